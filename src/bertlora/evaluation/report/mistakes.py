"""The most confident errors, with what each word of them did.

Letters: N rows, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bertlora.evaluation.verdict import Judged
from bertlora.model.predict import softmax

if TYPE_CHECKING:
    from bertlora.model.explain import Explanation, Word

SHOWN = 8
LONGEST = 600  # characters of a text that are shown
Table = dict[str, Any]


def worst_errors(judged: Judged, most: int = SHOWN) -> list[int]:
    """Returns the rows that LoRA gets wrong, the most confident first."""
    confidence = softmax(judged.logits("lora")).max(axis=1)
    wrong = np.flatnonzero(~judged.right("lora"))
    return [int(row) for row in wrong[np.argsort(-confidence[wrong], kind="stable")][:most]]


def error_facts(
    judged: Judged,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    explanations: Mapping[int, "Explanation"],
    rows: Sequence[int] | npt.NDArray[np.int64] | None = None,
) -> Table:
    """Returns how many rows LoRA gets wrong, and the most confident of them.

    Args:
        judged: what the classifiers make of N rows.
        texts: the N texts.
        pairs: the N second texts of pairs.
        explanations: row of the N → token attributions, of as many as have them.
        rows: the N rows' places in their source, by which they are shown; None: they are shown by their own.
    """
    probabilities = softmax(judged.logits("lora"))
    shown = []
    for row in worst_errors(judged):
        predicted = int(probabilities[row].argmax())
        own = [texts[row]] if pairs is None else [texts[row], pairs[row]]
        shown.append(
            {
                "row": row if rows is None else int(rows[row]),
                "given": judged.labels[judged.given[row]],
                "predicted": judged.labels[predicted],
                "confidence": float(probabilities[row, predicted]),
                "texts": shown_texts(own, explanations.get(row)),
            }
        )
    wrong = int((~judged.right("lora")).sum())
    return {"count": wrong, "n": len(judged.given), "explained": bool(explanations), "shown": shown}


def shown_texts(texts: Sequence[str], explanation: "Explanation | None") -> list[Table]:
    """Returns what is shown of a text, or of both texts of a pair: a `passage` of each.

    The weights of `pieces` are the attributions of words over the largest of the row, in -1..1.
    """
    if explanation is None:
        return [passage(text, [], 1.0) for text in texts]
    words = [explanation.words, explanation.pair_words or []]
    largest = max((_moved(word) for part in words for word in part), default=0.0)
    return [passage(text, part, largest or 1.0) for text, part in zip(texts, words, strict=False)]


def passage(text: str, words: "Sequence[Word]", largest: float) -> Table:
    """Returns a text of at most 600 characters whole; of a longer one the passage whose words moved the answer most.

    Without words that is its opening.

    Args:
        text: the text.
        words: its words in order, with their attributions.
        largest: the attribution that has weight 1.

    Returns:
        `pieces`, each a `text` and its `weight` (None for what is between words, and for words that were not read);
        `before` and `after`: whether there is more of the text on that side.
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
    """Returns the ends of the first passage of whole words, at most 600 characters, that moved the answer most."""
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
    """Returns where the opening of a text ends: after 600 characters at most, between words if it can."""
    return len(text) if len(text) <= LONGEST else max(text.rfind(" ", 0, LONGEST), 0) or LONGEST
