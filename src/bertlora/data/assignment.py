"""Which split each row of each source goes to: at random, by group, by time, or as the source says.

Letters: N rows of a source.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bertlora.data.labels import label_fault
from bertlora.data.placement import Placement
from bertlora.data.source import SPLITS
from bertlora.data.splits import LEFT_OUT, NO_ID, Ids, Splits, part_totals, stratified_sample, stratified_split
from bertlora.errors import DataError
from bertlora.recipe import Recipe

Shares = tuple[float, float, float]


class Assigned(NamedTuple):
    """What is decided for each row, by source; arrays of length N.

    Attributes:
        splits: int8, index in SPLITS, or LEFT_OUT.
        home: int8, the split to which the row belongs before validation is cut from train. Rows with the same one may
            be split again at random. By time, each row stays in its split.
        groups: int64, the same number for rows of one group of `--group-column`; empty without it.
    """

    splits: Splits
    home: Splits
    groups: Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Rows:
    """Labels (N,) and placement of rows that are split together, and the name of their source."""

    name: str
    labels: NDArray[np.int32]
    placement: Placement

    def take(self, rows: NDArray[np.int64]) -> "Rows":
        """Returns some of the rows."""
        return Rows(self.name, self.labels[rows], self.placement.take(rows))

    def split(self, shares: Shares, seed: int) -> NDArray[np.int8]:
        """Returns the part of each row, (N,): by time or group if the placement has them, else stratified.

        Raises:
            DataError: a part gets no row, because groups or equal times are kept together.
        """
        times, groups = self.placement.times, self.placement.groups
        if times is not None:
            parts = split_by_time(times, shares)
        else:
            parts = stratified_split(self.labels, shares, seed, groups)
        had = np.bincount(parts, minlength=len(SPLITS))
        for part, total in enumerate(part_totals(len(parts), shares)):
            if total and not had[part] and (times is not None or groups is not None):
                what, several = ("time", times) if times is not None else ("group", groups)
                raise DataError(
                    f"{self.name}: no row is left for {SPLITS[part]}, because the rows of one {what} stay together and "
                    f"there are {len(np.unique(several)):,} {what}s; give other shares by --split"  # type: ignore[arg-type]
                )
        return parts


def assign_splits(
    ids: Ids,
    placements: Mapping[str, Placement],
    names: Mapping[str, str],
    shares: Shares,
    sample: int,
    seed: int,
    sample_from: str = Recipe.sample_from,
) -> Assigned:
    """Returns the split of each row of each source.

    A source without a name is one table and is split by `shares`, unless a column names the split of each row. Named
    splits stay as they are; if there is no validation split, it is cut from train.

    Args:
        ids: by source, the label of each row; NO_ID for a row that is left out.
        placements: by source, what columns say about the rows.
        names: by source, its name for messages.
        shares: shares of train, validation and test, which add up to 1.
        sample: rows to draw; 0 = all.
        seed: the same seed gives the same splits.
        sample_from: `table` draws from a table before it is split, `split` from each of its splits. Named splits are
            always drawn from each.

    Raises:
        DataError: a part gets no row, because groups or equal times are kept together.
    """
    home = {name: _home(name, found, placements[name]) for name, found in ids.items()}
    splits = {name: found.copy() for name, found in home.items()}
    first = next(iter(ids))
    rows = Rows(names[first], ids[first], placements[first])
    if first == "" and placements[first].splits is None:
        usable = np.flatnonzero(ids[first] != NO_ID)
        from_each = sample_from == "split"
        drawn = usable[stratified_sample(ids[first][usable], 0 if from_each else sample, seed)]
        splits[first][:] = LEFT_OUT
        splits[first][drawn] = rows.take(drawn).split(shares, seed)
        if from_each:
            _draw(splits[first], ids[first], sample, seed)
    else:
        train = np.flatnonzero(home[first] == 0)
        if not len(train):
            raise DataError(f"{names[first]}: no row has the split train; the model needs rows to train on")
        if shares[1] > 0 and not any((split == 1).any() for split in home.values()):
            cut = shares[1] / (shares[0] + shares[1])
            splits[first][train] = rows.take(train).split((1 - cut, cut, 0.0), seed)
        for name, split in splits.items():
            _draw(split, ids[name], sample, seed)
    if any(placement.times is not None for placement in placements.values()):
        home = splits
    return Assigned(splits, home, {n: p.groups for n, p in placements.items() if p.groups is not None})


def split_by_time(times: NDArray[np.float64], shares: Shares) -> NDArray[np.int8]:
    """Assigns the oldest rows to train (0), later ones to validation (1), the latest to test (2).

    Each part has its share of the N rows, but rows of the same time stay together: a part ends at the change of the
    time that is nearest to its share. So every row of a part is later than all rows of the parts before.

    Args:
        times: (N,) when each row is from.
        shares: shares of the parts, which add up to 1; 0 leaves a part out.

    Returns:
        (N,) int8, the part of each row. A part may be empty if there are few different times.
    """
    order = np.argsort(times, kind="stable")
    changes = np.concatenate([[0], np.flatnonzero(np.diff(times[order])) + 1, [len(times)]])
    wanted = np.cumsum(part_totals(len(times), shares)).tolist()
    ends = [int(changes[np.abs(changes - end).argmin()]) for end in wanted]
    parts = np.empty(len(times), np.int8)
    parts[order] = np.searchsorted(ends, np.arange(len(times)), side="right")
    return parts


def sample_notes(rows: Mapping[str, int], sample: int) -> list[str]:
    """Returns a note that says what `sample` drew from each split of a table; nothing if it drew nothing.

    Args:
        rows: rows of each split that were drawn.
        sample: rows to draw from each; 0 = all.
    """
    if not sample:
        return []
    short = [f"{split} has {found:,}" for split, found in rows.items() if found < sample]
    fewer = f", or all of them: {', '.join(short)}" if short else ""
    return [f"sample: the table was split first, then {sample:,} rows were drawn from each split{fewer}"]


def check_train(splits: Splits, ids: Ids, labels: list[str], name: str) -> None:
    """Raises DataError if a class has no row in train. `name` is the source, for the message."""
    first = next(iter(splits))
    in_train = ids[first][splits[first] == 0]
    if len(np.unique(in_train)) < len(labels):
        raise DataError(
            f"{name}: {len(in_train)} rows for {len(labels)} classes are left to train on, expected at least one for "
            "each; give more rows, a larger --sample, or train a larger share of --split"
            f"{label_fault(labels, int((ids[first] != NO_ID).sum()))}"
        )


def _home(name: str, labels: NDArray[np.int32], placement: Placement) -> NDArray[np.int8]:
    """Returns the split that the source gives each row, (N,): from its name or a column, else train."""
    everywhere = np.full(len(labels), SPLITS.index(name or "train"), np.int8)
    home = everywhere if placement.splits is None else placement.splits.copy()
    home[labels == NO_ID] = LEFT_OUT
    return home


def _draw(split: NDArray[np.int8], labels: NDArray[np.int32], sample: int, seed: int) -> None:
    """Leaves out the rows of each split that are not in a random sample of it."""
    for part in np.unique(split[split != LEFT_OUT]):
        members = np.flatnonzero(split == part)
        drawn = stratified_sample(labels[members], sample, seed)
        split[np.delete(members, drawn)] = LEFT_OUT
