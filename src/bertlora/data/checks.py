"""Checks of the data before anything is learned: what is odd, which rows, and what to do about it.

Letters: N rows kept, in the order of the sources; K classes; G groups of rows with the same text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertlora.data.labels import quoted
from bertlora.data.source import SPLITS

ROWS_LISTED = 100
IMBALANCE_RATIO = 4


@dataclass(frozen=True)
class KeptRows:
    """The rows that are kept, as arrays of length N.

    Attributes:
        hashes: uint64, equal for equal texts.
        labels: int32, index of the label.
        splits: int8, index in train, validation, test.
        rows: int64, the row in its source, from 0.
        short: bool, whether the text is very short.
    """

    hashes: NDArray[np.uint64]
    labels: NDArray[np.int32]
    splits: NDArray[np.int8]
    rows: NDArray[np.int64]
    short: NDArray[np.bool_]


def find_checks(kept: KeptRows, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Runs every check and returns those that found something.

    Returns:
        Objects with `name`, `severity` (`note`, `warning` or `error`), `count`, `rows` (0-based in the source, the
        first 100), `splits` (the split of each of these rows) and `advice`.
    """
    return [*_same_texts(kept), *_classes(kept, labels), *_very_short(kept)]


def _same_texts(kept: KeptRows) -> Iterator[dict[str, Any]]:
    """Yields exact_duplicates, leakage and conflicting_labels."""
    _, first, group = np.unique(kept.hashes, return_index=True, return_inverse=True)  # (G,), (G,), (N,)
    groups = len(first)
    repeats = np.arange(len(group)) != first[group]
    yield from _check(
        kept, repeats, "exact_duplicates", "warning", "the same text stood in an earlier row; keep one of each"
    )
    first_split = np.full(groups, len(SPLITS), np.int8)
    np.minimum.at(first_split, group, kept.splits)
    yield from _check(
        kept,
        kept.splits > first_split[group],
        "leakage",
        "warning",
        "the text is also in an earlier split (train before validation before test), which flatters the score; "
        "remove it from one",
    )
    lowest, highest = np.full(groups, np.iinfo(np.int32).max, np.int32), np.zeros(groups, np.int32)
    np.minimum.at(lowest, group, kept.labels)
    np.maximum.at(highest, group, kept.labels)
    yield from _check(
        kept,
        (lowest != highest)[group],
        "conflicting_labels",
        "warning",
        "the same text carries different labels; decide on one",
    )


def _classes(kept: KeptRows, labels: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields class_missing, counted in pairs of class and split, and imbalance, counted in small classes."""
    nothing = np.zeros(len(kept.rows), np.bool_)
    missing = []
    for split in np.unique(kept.splits):
        present = np.bincount(kept.labels[kept.splits == split], minlength=len(labels)) > 0
        missing += [(SPLITS[split], label) for label, there in zip(labels, present, strict=True) if not there]
    if missing:
        listed = "; ".join(f"{split} has no '{label}'" for split, label in missing[:10])
        advice = f"{listed}; add rows of it, or its score there is unknown"
        yield from _check(kept, nothing, "class_missing", "warning", advice, count=len(missing))
    in_train = np.bincount(kept.labels[kept.splits == 0], minlength=len(labels))
    small = [label for label, rows in zip(labels, in_train, strict=True) if rows * IMBALANCE_RATIO < in_train.max()]
    if small:
        advice = (
            f"{quoted(small)}: less than a quarter of the rows of '{labels[int(in_train.argmax())]}' in train; "
            "try class_weights = balanced, and judge by macro F1"
        )
        yield from _check(kept, nothing, "imbalance", "warning", advice, count=len(small))


def _very_short(kept: KeptRows) -> Iterator[dict[str, Any]]:
    yield from _check(kept, kept.short, "very_short", "note", "fewer than three words; see whether these can be judged")


def _check(
    kept: KeptRows, found: NDArray[np.bool_], name: str, severity: str, advice: str, count: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yields the check as an object, if it found anything."""
    count = int(found.sum()) if count is None else count
    if count:
        listed = np.flatnonzero(found)[:ROWS_LISTED]
        yield {
            "name": name,
            "severity": severity,
            "count": count,
            "rows": kept.rows[listed].tolist(),
            "splits": [SPLITS[split] for split in kept.splits[listed]],
            "advice": advice,
        }
