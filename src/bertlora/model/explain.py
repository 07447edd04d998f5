"""Why a text got its label, or its number: how much each word contributes, by integrated gradients."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertlora.confidence.probabilities import Array
from bertlora.data.tokenizer import AnyTokenizer
from bertlora.data.words import words_of_tokens
from bertlora.errors import InputError
from bertlora.model.adapted import Adapted
from bertlora.model.engine import Execution, evaluating
from bertlora.model.integrated import Attributed, Enter, Steps, attributed, blank_id, finished
from bertlora.task import CLASSIFICATION, MULTILABEL, REGRESSION


@dataclass(frozen=True)
class Word:
    """A word of a text.

    Attributes:
        text: `text[start:end]` of the whole text.
        start: its first character.
        end: the character after its last.
        attribution: logits that it adds to the difference between label and rival, or to the label; or what it adds to
            a number. None if the model did not read it, because the text was cut or the tokenizer drops such
            characters.
    """

    text: str
    start: int
    end: int
    attribution: float | None


@dataclass(frozen=True)
class Explanation:
    """Why a text got its label, or its number.

    Attributes:
        label: the predicted label, or the most probable of several; in a regression the name of the number.
        rival: the label with the next highest logit; empty unless labels exclude each other.
        words: the text's words in order; between them is only white space.
        pair_words: those of the second text of a pair; None for a single text.
        logit_difference: the label's logit minus the rival's; without a rival its logit, or the number.
        baseline_difference: the same for the baseline, a text of equally many blanks.
        gap: the sum of the attributions minus (logit_difference - baseline_difference).
        task: what the model predicts.
    """

    label: str
    rival: str
    words: list[Word]
    pair_words: list[Word] | None
    logit_difference: float
    baseline_difference: float
    gap: float
    task: str = CLASSIFICATION

    def to_json(self) -> dict[str, Any]:
        """Returns what `predict --explain` prints."""
        both = {"words": self.words} | ({} if self.pair_words is None else {"pair_words": self.pair_words})
        ends: dict[str, Any] = {
            "label": self.label,
            "rival": self.rival,
            "logit_difference": self.logit_difference,
            "baseline_difference": self.baseline_difference,
        }
        if self.task == MULTILABEL:
            ends = {"label": self.label, "logit": self.logit_difference, "baseline_logit": self.baseline_difference}
        elif self.task == REGRESSION:
            ends = {"value": self.logit_difference, "baseline_value": self.baseline_difference}
        return {**ends, "gap": self.gap} | {
            key: [{"word": w.text, "attribution": w.attribution} for w in words] for key, words in both.items()
        }


def explain(
    adapted: Adapted, texts: Sequence[str], pairs: Sequence[str] | None = None, base: bool = False
) -> list[Explanation]:
    """Returns why each text, or pair of texts, gets its label or number. `integrated.py` has the method.

    Of several labels, the most probable one is explained.

    The gap is at most 1 % of the expected sum, or 0.01 logits if that is more, unless 1,024 steps do not reach it.
    Everything is computed in fp32.

    Args:
        adapted: the classifier.
        texts: the texts.
        pairs: the second texts of pairs.
        base: explain the base with its untrained head.

    Raises:
        InputError: `Reader.read` refuses the texts, or the classifier has a single class.
        ModelError: the tokenizer does not report the characters of a token.
    """
    # Already one text runs enough tokens for merged weights to pay.
    with _ready(adapted, base) as execution:
        return finished(explaining(adapted, texts, pairs, base, lambda: nullcontext(execution)))


def explaining(
    adapted: Adapted,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    base: bool = False,
    enter: Enter | None = None,
) -> Steps[list[Explanation]]:
    """Explains in steps; see `explain`. Between steps the model is as it was, and others may use it.

    Args:
        adapted: the classifier.
        texts: the texts.
        pairs: the second texts of pairs.
        base: explain the base with its untrained head.
        enter: makes the model ready for a step; None does so for each step.
    """
    inputs, tokenizer = adapted.reader.read(texts, pairs), adapted.reader.tokenizer
    if len(adapted.labels) < 2 and adapted.task == CLASSIFICATION:
        raise InputError("a classifier of one class has no second label to explain the first against")
    if len(texts):
        tokenizer.spans(texts[0])  # refuses a tokenizer without spans before anything is computed
    found, enter = [], enter or (lambda: _ready(adapted, base))
    for i, text in enumerate(texts):
        result = yield from attributed(enter, inputs.take([i]), blank_id(tokenizer), adapted.task)
        found.append(_explanation(adapted, result, text, None if pairs is None else pairs[i]))
    return found


@contextmanager
def _ready(adapted: Adapted, base: bool) -> Iterator[Execution]:
    with adapted.execution(base=base) as execution, evaluating(adapted.model):
        yield execution


def _explanation(adapted: Adapted, found: Attributed, text: str, pair: str | None) -> Explanation:
    words, rest = _words(adapted.reader.tokenizer, text, found.tokens)
    return Explanation(
        label=adapted.labels[found.label],
        rival="" if found.rival is None else adapted.labels[found.rival],
        words=words,
        pair_words=None if pair is None else _words(adapted.reader.tokenizer, pair, rest)[0],
        logit_difference=found.difference,
        baseline_difference=found.baseline,
        gap=found.gap,
        task=adapted.task,
    )


def _words(tokenizer: AnyTokenizer, text: str, tokens: Array) -> tuple[list[Word], Array]:
    """Returns a text's words with the sums over their tokens, and the remaining tokens, those of a second text."""
    spans, owners = words_of_tokens(text, tokenizer.spans(text))
    sums: list[float | None] = [None] * len(spans)
    for owner, value in zip(owners, tokens.tolist(), strict=False):
        if not np.isnan(value):
            sums[owner] = (sums[owner] or 0.0) + value
    words = [Word(text[start:end], start, end, total) for (start, end), total in zip(spans, sums, strict=True)]
    return words, tokens[len(owners) :]
