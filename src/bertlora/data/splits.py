"""Splits and samples of one table: random and stratified by class, with groups of rows in one part.

Letters: N rows, K classes.
"""

import numpy as np
from numpy.typing import NDArray

# By source: the label of each row, and its split (an index in SPLITS, or LEFT_OUT).
Ids = dict[str, NDArray[np.int32]]
Splits = dict[str, NDArray[np.int8]]
Counts = NDArray[np.int64]

LEFT_OUT = -1
NO_ID = -1  # instead of a label, of a row that is never used
UNASSIGNED = -1


def stratified_split(
    label_ids: NDArray[np.integer],
    shares: tuple[float, float, float],
    seed: int,
    groups: NDArray[np.integer] | None = None,
) -> NDArray[np.int8]:
    """Assigns each row to train (0), validation (1) or test (2).

    Each part has exactly its share of the N rows, by largest remainder. Within these totals each class is divided in
    the same way. A class with at least as many rows as there are parts has a row in each part, unless a part has fewer
    rows than there are such classes. A smaller class goes to train first.

    Args:
        label_ids: (N,) class of each row, from 0.
        shares: shares of the parts, which add up to 1; 0 leaves a part out.
        seed: the same seed gives the same parts.
        groups: (N,) rows with the same number stay in one part. The totals are exact as long as there are enough rows
            without a group to fill the parts.

    Returns:
        (N,) int8, the part of each row.
    """
    counts = _part_counts(np.bincount(label_ids), shares)
    random = np.random.default_rng(seed)
    parts = np.full(len(label_ids), UNASSIGNED, dtype=np.int8)
    if groups is not None:
        counts = _assign_groups(label_ids, groups, counts, parts, random)
    _assign(label_ids, counts, parts, random)
    return parts


def stratified_sample(label_ids: NDArray[np.integer], size: int, seed: int) -> NDArray[np.int64]:
    """Draws rows at random, in proportion to the classes, with at least one row of each class if `size` allows.

    Args:
        label_ids: (N,) class of each row, from 0.
        size: rows to draw; 0, or N and more, takes all.
        seed: the same seed draws the same rows.

    Returns:
        (rows,) int64, the indices of the rows drawn, in ascending order.
    """
    rows = len(label_ids)
    if size == 0 or size >= rows:
        return np.arange(rows)
    classes = np.bincount(label_ids).astype(np.int64)
    low = (classes > 0).astype(np.int64)
    drawn = _apportion(classes * (size / rows), size, low if low.sum() <= size else low * 0, classes)
    parts = np.full(rows, UNASSIGNED, dtype=np.int8)
    _assign(label_ids, np.stack([classes - drawn, drawn]), parts, np.random.default_rng(seed))
    return np.flatnonzero(parts)


def part_totals(rows: int, shares: tuple[float, float, float]) -> list[int]:
    """Returns the rows of each part: its share of `rows`, by largest remainder (at a tie, the earlier part)."""
    # Rounded, because 0.15 * 2000 may be a little below 300.
    targets = np.round(np.asarray(shares) * rows, 6)
    return [int(n) for n in _apportion(targets, rows, np.zeros(3, np.int64), np.full(3, rows) * (targets > 0))]


def _part_counts(classes: NDArray[np.integer], shares: tuple[float, float, float]) -> Counts:
    """Returns the rows of each class in each part, (3, K), for classes with these numbers of rows (K,)."""
    totals = part_totals(int(classes.sum()), shares)
    parts = sum(share > 0 for share in shares)
    # Rows promised to each class in each part, (3, K).
    promised = np.stack([classes >= (1 if part == 0 else parts) for part in range(3)]).astype(np.int64)
    promised &= classes > 0
    for part, total in enumerate(totals):
        if promised[part].sum() > total:
            promised[part] = 0

    # Test is cut off first, then validation; train is the rest.
    left = classes.astype(np.int64)
    counts = np.zeros((3, len(classes)), dtype=np.int64)
    for part in (2, 1):
        kept_back = promised[:part].sum(axis=0)
        targets = left * (shares[part] / sum(shares[: part + 1]))
        counts[part] = _apportion(targets, totals[part], promised[part], left - kept_back)
        left = left - counts[part]
    counts[0] = left
    return counts


def _apportion(targets: NDArray[np.floating], total: int, low: Counts, high: Counts) -> Counts:
    """Returns whole numbers near `targets`, between `low` and `high`, that add up to `total`: largest remainder."""
    counts = np.clip(np.floor(np.round(targets, 6)).astype(np.int64), low, high)
    while (missing := total - int(counts.sum())) != 0:
        step = 1 if missing > 0 else -1
        movable = counts < high if step > 0 else counts > low
        need = np.where(movable, step * (targets - counts), -np.inf)
        # One row each for those farthest below their target. At a tie the earlier class wins: only the seed is random.
        farthest = np.argsort(-need, kind="stable")[: min(abs(missing), int(movable.sum()))]
        counts[farthest] += step
    return counts


def _assign(
    label_ids: NDArray[np.integer], counts: Counts, parts: NDArray[np.int8], random: np.random.Generator
) -> None:
    """Assigns the rows that have no part yet, at random, `counts` (parts, K) of each class to each part."""
    free = np.flatnonzero(parts == UNASSIGNED)
    by_class = free[np.argsort(label_ids[free], kind="stable")]
    for k, rows in enumerate(np.split(by_class, np.cumsum(counts.sum(axis=0))[:-1])):
        parts[random.permutation(rows)] = np.repeat(np.arange(len(counts), dtype=np.int8), counts[:, k])


def _assign_groups(
    label_ids: NDArray[np.integer],
    groups: NDArray[np.integer],
    counts: Counts,
    parts: NDArray[np.int8],
    random: np.random.Generator,
) -> Counts:
    """Assigns each group of two rows or more to one part. Returns what is left of `counts` (3, K) for single rows."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes)[:-1])
    several = np.flatnonzero(sizes > 1)
    left = counts.copy()
    # The largest groups first, when there is most room. Groups of the same size come in random order.
    several = random.permutation(several)
    for g in several[np.argsort(-sizes[several], kind="stable")].tolist():
        classes, rows = np.unique(label_ids[members[g]], return_counts=True)
        room = np.maximum(left.sum(axis=1), 0)
        fits = room * (left[:, classes] >= rows).all(axis=1)
        if fits.any():
            part = int(random.choice(3, p=fits / fits.sum()))
        else:  # the part with most room; if the group is too large for each, the one that is emptiest for its size
            part = int((room if room.max() >= sizes[g] else room / np.maximum(counts.sum(axis=1), 1)).argmax())
        left[part, classes] -= rows
        parts[members[g]] = part
    return _balanced(left, np.bincount(label_ids[parts == UNASSIGNED], minlength=left.shape[1]))


def _balanced(left: Counts, singles: Counts) -> Counts:
    """Returns `left` (3, K) without negative numbers and with `singles` (K,) rows of each class.

    If groups took more than their share of a part, it gets fewer single rows of any class, so that its total holds.
    """
    room = left.sum(axis=1)
    counts = np.maximum(left, 0)
    for k in np.flatnonzero(counts.sum(axis=0) != singles):
        counts[:, k] = _apportion(counts[:, k].astype(float), int(singles[k]), counts[:, k] * 0, counts[:, k])
    # Within a class, rows move from a part with too many to a part with too few.
    for part in np.argsort(room - counts.sum(axis=1))[::-1]:
        for other in range(3):
            wanted = int(min(room[part] - counts[part].sum(), counts[other].sum() - max(room[other], 0)))
            if wanted > 0:
                moved = _apportion(
                    counts[other] * (wanted / counts[other].sum()), wanted, counts[other] * 0, counts[other]
                )
                counts[other] -= moved
                counts[part] += moved
    return counts
