"""Why a text got its label: how many logits each of its words moved it there, by integrated gradients."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertlora.data.words import words_of_tokens
from bertlora.errors import InputError, ModelError
from bertlora.model.adapted import Adapted
from bertlora.model.engine.execution import WORTH_PREPARING, executing
from bertlora.model.integrated import Attributed, attributed, blank_id
from bertlora.model.original import base_alone
from bertlora.model.predict import Array, evaluating


@dataclass(frozen=True)
class Word:
    """A word as it stands in the text.

    Attributes:
        text: `text[start:end]` of the whole text.
        start: its first character.
        end: the character after its last.
        attribution: logits by which it moved the difference towards the label; None where the model did not read it:
            it was cut, or the tokenizer leaves such characters out.
    """

    text: str
    start: int
    end: int
    attribution: float | None


@dataclass(frozen=True)
class Explanation:
    """Why a text got its label.

    Attributes:
        label: the predicted label.
        rival: the label with the next highest logit.
        words: the text's words in order; between them is white space alone.
        pair_words: those of the second text of a pair; None for a single text.
        logit_difference: the label's logit less the rival's.
        baseline_difference: the same of the baseline, a text of as many blanks.
        gap: what the attributions sum to, less logit_difference - baseline_difference.
    """

    label: str
    rival: str
    words: list[Word]
    pair_words: list[Word] | None
    logit_difference: float
    baseline_difference: float
    gap: float

    def to_json(self) -> dict[str, Any]:
        """Returns what `predict --explain` prints."""
        both = {"words": self.words} | ({} if self.pair_words is None else {"pair_words": self.pair_words})
        return {
            "label": self.label,
            "rival": self.rival,
            "logit_difference": self.logit_difference,
            "baseline_difference": self.baseline_difference,
            "gap": self.gap,
        } | {key: [{"word": w.text, "attribution": w.attribution} for w in words] for key, words in both.items()}


def explain(
    adapted: Adapted, texts: Sequence[str], pairs: Sequence[str] | None = None, base: bool = False
) -> list[Explanation]:
    """Returns why each text, or pair of texts, gets its label; see `integrated.py` for how.

    The gap is at most 1 % of what the attributions should sum to, or 0.01 logits where that is more, unless 1,024 steps
    do not reach it. All is computed in fp32; the model is left as it came.

    Args:
        adapted: the classifier.
        texts: the texts.
        pairs: the second texts of pairs.
        base: explain the base with its untrained head.

    Raises:
        InputError: texts that `Adapted.read` refuses, or a classifier of one class.
        ModelError: a tokenizer that cannot tell which characters a token stands for.
    """
    inputs, tokenizer = adapted.read(texts, pairs), adapted.reader.tokenizer
    if len(adapted.labels) < 2:
        raise InputError("a classifier of one class has no second label to explain the first against")
    if not tokenizer.is_fast:
        raise ModelError("the tokenizer does not tell which characters a token stands for; use one with tokenizer.json")
    found = []
    with ExitStack() as stack:
        if base:
            stack.enter_context(base_alone(adapted.model, adapted.changed))
        stack.enter_context(evaluating(adapted.model))
        # Even for one text so many tokens are run that weights are better made ready.
        execution = stack.enter_context(executing(adapted.model, adapted.reader.pad_id, "fp32", tokens=WORTH_PREPARING))
        for i, text in enumerate(texts):
            result = attributed(execution, inputs.take([i]), blank_id(tokenizer))
            found.append(_explanation(adapted, result, text, None if pairs is None else pairs[i]))
    return found


def _explanation(adapted: Adapted, found: Attributed, text: str, pair: str | None) -> Explanation:
    words, rest = _words(adapted.reader.tokenizer, text, found.tokens)
    return Explanation(
        label=adapted.labels[found.label],
        rival=adapted.labels[found.rival],
        words=words,
        pair_words=None if pair is None else _words(adapted.reader.tokenizer, pair, rest)[0],
        logit_difference=found.difference,
        baseline_difference=found.baseline,
        gap=found.gap,
    )


def _words(tokenizer: Any, text: str, tokens: Array) -> tuple[list[Word], Array]:
    """Returns a text's words with the sums over their tokens, and the tokens left over, those of a second text."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    spans, owners = words_of_tokens(text, encoded["offset_mapping"])
    sums: list[float | None] = [None] * len(spans)
    for owner, value in zip(owners, tokens.tolist(), strict=False):
        if not np.isnan(value):
            sums[owner] = (sums[owner] or 0.0) + value
    words = [Word(text[start:end], start, end, total) for (start, end), total in zip(spans, sums, strict=True)]
    return words, tokens[len(owners) :]
