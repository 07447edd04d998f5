"""The most confident errors, with the attribution of each word.

Letters: N rows, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bertlora.confidence.probabilities import softmax
from bertlora.evaluation.verdict import Evaluated

if TYPE_CHECKING:
    from bertlora.model.explain import Explanation, Word

SHOWN = 8
LONGEST = 600  # characters of a text that are shown
Table = dict[str, Any]


def worst_errors(evaluated: Evaluated, most: int = SHOWN) -> list[int]:
    """Returns the rows that LoRA gets wrong, most confident first."""
    confidence = softmax(evaluated.logits("lora")).max(axis=1)
    wrong = np.flatnonzero(~evaluated.right("lora"))
    return [int(row) for row in wrong[np.argsort(-confidence[wrong], kind="stable")][:most]]


def error_facts(
    evaluated: Evaluated,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    explanations: Mapping[int, "Explanation"],
    rows: Sequence[int] | npt.NDArray[np.int64] | None = None,
) -> Table:
    """Returns how many rows LoRA gets wrong, and the most confident of them.

    Args:
        evaluated: the outputs of the classifiers on N rows.
        texts: the N texts.
        pairs: the N second texts of pairs.
        explanations: row (of the N) → its token attributions, for some of the rows.
        rows: the N row numbers in the source, which are shown; with None the rows are numbered 0..N-1.
    """
    probabilities = softmax(evaluated.logits("lora"))
    shown = []
    for row in worst_errors(evaluated):
        predicted = int(probabilities[row].argmax())
        own = [texts[row]] if pairs is None else [texts[row], pairs[row]]
        shown.append(
            {
                "row": row if rows is None else int(rows[row]),
                "given": evaluated.labels[evaluated.y_true[row]],
                "predicted": evaluated.labels[predicted],
                "confidence": float(probabilities[row, predicted]),
                "texts": shown_texts(own, explanations.get(row)),
            }
        )
    wrong = int((~evaluated.right("lora")).sum())
    return {"count": wrong, "n": len(evaluated.y_true), "explained": bool(explanations), "shown": shown}


def shown_texts(texts: Sequence[str], explanation: "Explanation | None") -> list[Table]:
    """Returns a `passage` of a text, or of both texts of a pair.

    The weights of `pieces` are the attributions of words divided by the largest of the row, in -1..1.
    """
    if explanation is None:
        return [passage(text, [], 1.0) for text in texts]
    words = [explanation.words, explanation.pair_words or []]
    largest = max((_moved(word) for part in words for word in part), default=0.0)
    return [passage(text, part, largest or 1.0) for text, part in zip(texts, words, strict=False)]


def passage(text: str, words: "Sequence[Word]", largest: float) -> Table:
    """Returns the part of a text that is shown, at most 600 characters.

    A shorter text is shown whole. Of a longer text it is the passage with the largest sum of absolute attributions, or
    the beginning if there are no attributions.

    Args:
        text: the text.
        words: its words in order, with their attributions.
        largest: the attribution that has weight 1.

    Returns:
        `pieces`, each with a `text` and its `weight` (None between words, and for words that the model did not read);
        `before` and `after`: whether the text goes on before and after the passage.
    """
    start, end = _busiest(words) if words and len(text) > LONGEST else (0, _opening(text))
    pieces: list[Table] = []
    done = start
    for word in words:
        if start <= word.start and word.end <= end:
            weight = None if word.attribution is None else word.attribution / largest
            between = {"text": text[done : word.start], "weight": None}
            pieces += [between, {"text": text[word.start : word.end], "weight": weight}]
            done = word.end
    pieces = [piece for piece in [*pieces, {"text": text[done:end], "weight": None}] if piece["text"]]
    return {"pieces": pieces, "before": bool(text[:start].strip()), "after": bool(text[end:].strip())}


def _busiest(words: "Sequence[Word]") -> tuple[int, int]:
    """Returns start and end of the first passage of whole words, at most 600 characters, with the largest sum."""
    first, moved = 0, 0.0
    best, ends = -1.0, (words[0].start, min(words[0].end, words[0].start + LONGEST))
    for word in words:
        moved += _moved(word)
        while word.end - words[first].start > LONGEST and words[first] is not word:
            moved -= _moved(words[first])
            first += 1
        if moved > best + 1e-9 and word.end - words[first].start <= LONGEST:
            best, ends = moved, (words[first].start, word.end)
    return ends


def _moved(word: "Word") -> float:
    return abs(word.attribution or 0.0)


def _opening(text: str) -> int:
    """Returns the end of the beginning of a text: at most 600 characters, between two words if possible."""
    return len(text) if len(text) <= LONGEST else max(text.rfind(" ", 0, LONGEST), 0) or LONGEST
