"""What `--fix` does: it removes exact duplicates, and puts similar texts into one split.

Letters: N rows kept, G groups of rows.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bertlora.data.checks.kept import KeptRows
from bertlora.data.checks.places import grouped_places
from bertlora.data.source import SPLITS
from bertlora.data.splits import LEFT_OUT, part_totals, stratified_split

ROWS_NAMED = 10

Shares = tuple[float, float, float]
# (split, rows of its source) → where they are, by row.
Places = Callable[[str, Sequence[int]], dict[int, str]]


def fixed(kept: KeptRows, shares: Shares, seed: int, places: Places) -> tuple[KeptRows, list[str]]:
    """Returns the rows that stay, in splits without leakage, and a note on each change.

    - Of equal texts in one split of the source the first stays; if their labels differ, none stays.
    - Of splits that the source names, the earlier one (train before validation before test) loses what a later one
      has: the text, a near duplicate, a text that contains it or is part of it, or the group of `--group-column`. So a
      test set stays as it is. Splits by time are treated like these.
    - Rows that were split at random are split again in the same shares, each cluster of similar texts in one split.

    Args:
        kept: the rows.
        shares: the shares of train, validation and test by which a source was split.
        seed: the same seed gives the same splits.
        places: returns where the rows of a split are in the source, for the notes.
    """
    splits, notes = kept.splits.copy(), []
    conflicting, repeats = _equal_in_source(kept)
    splits[conflicting | repeats] = LEFT_OUT
    notes += _note(kept, conflicting, "removed {}: equal texts with different labels", places)
    notes += _note(kept, repeats, "removed {}: equal to an earlier row", places)
    for part in np.unique(kept.home).tolist():
        later = (kept.home > part) & (splits != LEFT_OUT)
        for leaking, why in (
            (kept.near(later), "equal or nearly equal to a text of a later split"),
            (kept.overlapping(later), "with a text that is part of a text of a later split, or contains one"),
            (kept.same_group(later), "of a group that a later split has too"),
        ):
            removed = leaking & (kept.home == part) & (splits != LEFT_OUT)
            splits[removed] = LEFT_OUT
            notes += _note(kept, removed, f"removed {{}} of {SPLITS[part]}: {why}", places)
        notes += _split_again(kept, splits, kept.home == part, shares, seed)
    return kept.take(np.flatnonzero(splits != LEFT_OUT), splits[splits != LEFT_OUT]), notes


def _equal_in_source(kept: KeptRows) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns (N,) whether a row's text has other labels in its split, and (N,) whether it repeats an earlier row."""
    conflicting, repeats = np.zeros(len(kept.rows), np.bool_), np.zeros(len(kept.rows), np.bool_)
    for part in np.unique(kept.home):
        rows = np.flatnonzero(kept.home == part)
        labels = kept.labels[rows]
        _, first, text = np.unique(kept.facts.hashes[rows], return_index=True, return_inverse=True)  # (G,), (rows,)
        differs = np.zeros(len(first), np.bool_)
        np.logical_or.at(differs, text, labels != labels[first[text]])
        conflicting[rows] = differs[text]
        repeats[rows] = (np.arange(len(rows)) != first[text]) & ~differs[text]
    return conflicting, repeats


def _split_again(
    kept: KeptRows, splits: NDArray[np.int8], home: NDArray[np.bool_], shares: Shares, seed: int
) -> list[str]:
    """Splits these rows again in their shares, if they were split here and lost some or have a cluster in two parts."""
    had = np.bincount(kept.splits[home], minlength=len(SPLITS))
    rows = np.flatnonzero(home & (splits != LEFT_OUT))
    if (had > 0).sum() < 2 or not len(rows):
        return []
    _, first, group, sizes = np.unique(kept.clusters[rows], return_index=True, return_inverse=True, return_counts=True)
    if len(rows) == had.sum() and (splits[rows] == splits[rows[first[group]]]).all():
        return []
    splits[rows] = stratified_split(kept.labels[rows], _shares(had, shares), seed, group)
    several = sizes[sizes > 1]
    whole = f", each of {len(several):,} groups of similar texts ({several.sum():,} rows) in one split"
    return ["split again" + (whole if len(several) else "")]


def _shares(had: NDArray[np.int64], shares: Shares) -> Shares:
    """Returns the shares that gave parts of `had` rows: `shares`, unless a sample of each part was drawn."""
    train, validation, test = shares
    if not had[2]:  # validation was cut from a train file
        train, validation, test = train / (train + validation), validation / (train + validation), 0.0
    if part_totals(int(had.sum()), (train, validation, test)) != had.tolist():
        train, validation, test = (had / had.sum()).tolist()
    return train, validation, test


def _note(kept: KeptRows, found: NDArray[np.bool_], line: str, places: Places) -> list[str]:
    """Returns a note with the number of rows found and the places of the first ten; nothing if there are none."""
    chosen = np.flatnonzero(found)
    if not len(chosen):
        return []
    first = [(SPLITS[kept.splits[i]], int(kept.rows[i])) for i in chosen[:ROWS_NAMED]]
    found_in = {split: places(split, [row for other, row in first if other == split]) for split, _ in first}
    named = [found_in[split][row] for split, row in first]
    more = f" and {len(chosen) - ROWS_NAMED:,} more" if len(chosen) > ROWS_NAMED else ""
    number = f"{len(chosen):,} rows" if len(chosen) > 1 else "1 row"
    return [f"{line.format(number)} ({grouped_places(named)}{more})"]
