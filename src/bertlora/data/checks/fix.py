"""What `--fix` does: it removes exact duplicates, and puts texts that are equal or nearly equal into one split.

Letters: N rows kept, G groups of rows.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bertlora.data.checks.find import KeptRows
from bertlora.data.checks.places import grouped_places
from bertlora.data.source import SPLITS
from bertlora.data.splits import LEFT_OUT, part_totals, stratified_split

ROWS_NAMED = 10

Shares = tuple[float, float, float]
# (split, rows of its source) → where they are, by row.
Places = Callable[[str, Sequence[int]], dict[int, str]]


def fixed(
    kept: KeptRows, names: Sequence[str], shares: Shares, seed: int, places: Places
) -> tuple[KeptRows, list[str]]:
    """Returns the rows that stay, in splits without leakage, and a note on each change.

    - Of equal texts in one source the first stays; if their labels differ, none stays.
    - Of named splits, the earlier one (train before validation before test) loses the texts that are equal or nearly
      equal to one of a later split. So a test set stays as it is.
    - A source that was split here is split again in the same shares, with each group of similar texts in one split.

    Args:
        kept: the rows.
        names: the split of each source, in the order of their numbers; empty for a source that is one table.
        shares: the shares of train, validation and test by which a source was split.
        seed: the same seed gives the same splits.
        places: returns where the rows of a split are in the source, for the notes.
    """
    splits, notes = kept.splits.copy(), []
    conflicting, repeats = _equal_in_source(kept)
    splits[conflicting | repeats] = LEFT_OUT
    notes += _note(kept, conflicting, "removed {}: equal texts with different labels", places)
    notes += _note(kept, repeats, "removed {}: equal to an earlier row", places)
    for number, name in sorted(enumerate(names), key=lambda item: SPLITS.index(item[1] or "train")):
        here = (kept.sources == number) & (splits != LEFT_OUT)
        later = [n for n, other in enumerate(names) if other and SPLITS.index(other) > SPLITS.index(name or "train")]
        leaking = here & np.isin(kept.groups, kept.groups[np.isin(kept.sources, later) & (splits != LEFT_OUT)])
        splits[leaking] = LEFT_OUT
        notes += _note(
            kept, leaking, f"removed {{}} of {name}: equal or nearly equal to a text of a later split", places
        )
        notes += _split_again(kept, splits, kept.sources == number, shares, seed)
    return kept.take(np.flatnonzero(splits != LEFT_OUT), splits[splits != LEFT_OUT]), notes


def _equal_in_source(kept: KeptRows) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns (N,) whether a row's text has other labels in its source, and (N,) whether it repeats an earlier row."""
    conflicting, repeats = np.zeros(len(kept.rows), np.bool_), np.zeros(len(kept.rows), np.bool_)
    for source in np.unique(kept.sources):
        rows = np.flatnonzero(kept.sources == source)
        labels = kept.labels[rows]
        _, first, text = np.unique(kept.facts.hashes[rows], return_index=True, return_inverse=True)  # (G,), (rows,)
        differs = np.zeros(len(first), np.bool_)
        np.logical_or.at(differs, text, labels != labels[first[text]])
        conflicting[rows] = differs[text]
        repeats[rows] = (np.arange(len(rows)) != first[text]) & ~differs[text]
    return conflicting, repeats


def _split_again(
    kept: KeptRows, splits: NDArray[np.int8], source: NDArray[np.bool_], shares: Shares, seed: int
) -> list[str]:
    """Splits a source again in its shares, if it was split here and has lost rows or has a group in two splits."""
    had = np.bincount(kept.splits[source], minlength=len(SPLITS))
    rows = np.flatnonzero(source & (splits != LEFT_OUT))
    if (had > 0).sum() < 2 or not len(rows):
        return []
    _, first, group, sizes = np.unique(kept.groups[rows], return_index=True, return_inverse=True, return_counts=True)
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
