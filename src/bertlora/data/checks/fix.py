"""What `--fix` does: exact duplicates go, and texts that are equal or near lie in one split.

Letters: N rows kept, G groups of rows.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bertlora.data.checks.find import KeptRows
from bertlora.data.source import SPLITS
from bertlora.data.splits import part_totals, stratified_split

LEFT_OUT = -1
ROWS_NAMED = 10


Shares = tuple[float, float, float]


def fixed(kept: KeptRows, names: Sequence[str], shares: Shares, seed: int) -> tuple[KeptRows, list[str]]:
    """Returns the rows that stay, in splits without leakage, and a line for each thing done.

    Of equal texts in one source, the first stays; where their labels differ, none does. Of named splits, the earlier
    one (train before validation before test) loses what is equal or near to a text of the later, so that a test set
    stays as it is. A source that was split here is split again, in the same shares: each group of like texts whole.

    Args:
        kept: the rows.
        names: the split that each source is, in the order of their numbers; empty for a source that is one table.
        shares: the shares of train, validation and test by which a source was split.
        seed: the same seed gives the same splits.
    """
    splits, notes = kept.splits.copy(), []
    conflicting, repeats = _equal_in_source(kept)
    splits[conflicting | repeats] = LEFT_OUT
    notes += _note(kept, conflicting, "dropped {}: equal texts with different labels")
    notes += _note(kept, repeats, "dropped {}: equal to an earlier row")
    for number, name in sorted(enumerate(names), key=lambda item: SPLITS.index(item[1] or "train")):
        here = (kept.sources == number) & (splits != LEFT_OUT)
        later = [n for n, other in enumerate(names) if other and SPLITS.index(other) > SPLITS.index(name or "train")]
        leaking = here & np.isin(kept.groups, kept.groups[np.isin(kept.sources, later) & (splits != LEFT_OUT)])
        splits[leaking] = LEFT_OUT
        notes += _note(kept, leaking, f"dropped {{}} of {name}: in a later split too, or near a text of it")
        notes += _split_again(kept, splits, kept.sources == number, shares, seed)
    return kept.take(np.flatnonzero(splits != LEFT_OUT), splits[splits != LEFT_OUT]), notes


def _equal_in_source(kept: KeptRows) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns (N,) whether a row's text has other labels too in its source, and whether it repeats an earlier row."""
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
    """Splits a source anew in the shares that it had, if it was split and rows went or groups lie in two splits."""
    had = np.bincount(kept.splits[source], minlength=len(SPLITS))
    rows = np.flatnonzero(source & (splits != LEFT_OUT))
    if (had > 0).sum() < 2 or not len(rows):
        return []
    _, first, group, sizes = np.unique(kept.groups[rows], return_index=True, return_inverse=True, return_counts=True)
    if len(rows) == had.sum() and (splits[rows] == splits[rows[first[group]]]).all():
        return []
    splits[rows] = stratified_split(kept.labels[rows], _shares(had, shares), seed, group)
    several = sizes[sizes > 1]
    whole = f", {len(several):,} groups of like texts ({several.sum():,} rows) whole in one split each"
    return ["split again" + (whole if len(several) else "")]


def _shares(had: NDArray[np.int64], shares: Shares) -> Shares:
    """Returns the shares that gave parts of `had` rows: those asked for, unless a sample of each part was drawn."""
    train, validation, test = shares
    if not had[2]:  # a train file, of which validation was cut
        train, validation, test = train / (train + validation), validation / (train + validation), 0.0
    if part_totals(int(had.sum()), (train, validation, test)) != had.tolist():
        train, validation, test = (had / had.sum()).tolist()
    return train, validation, test


def _note(kept: KeptRows, found: NDArray[np.bool_], line: str) -> list[str]:
    """Returns a line that says how many rows, and names the first."""
    rows = kept.rows[found]
    if not len(rows):
        return []
    more = f" and {len(rows) - ROWS_NAMED:,} more" if len(rows) > ROWS_NAMED else ""
    named = f"rows {', '.join(map(str, rows[:ROWS_NAMED]))}{more}"
    return [f"{line.format(f'{len(rows):,} rows' if len(rows) > 1 else '1 row')} ({named})"]
