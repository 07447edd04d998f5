"""Which rows go to train, validation and test, or into a sample: at random, each class in its share.

Letters: N rows, K classes.
"""

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def stratified_split(label_ids: NDArray[np.integer], shares: tuple[float, float, float], seed: int) -> NDArray[np.int8]:
    """Assigns each row to train (0), validation (1) or test (2).

    The rows of a part are exactly its share of N by largest remainder. Each class is shared out likewise within these
    totals; a class with as many rows as there are parts has a row in each, unless a part has fewer rows than there are
    such classes; a smaller class goes to train first.

    Args:
        label_ids: (N,) class of each row, from 0.
        shares: shares of the parts, which add up to 1; 0 leaves a part out.
        seed: the same seed gives the same parts.

    Returns:
        (N,) int8, the part of each row.
    """
    classes = np.bincount(label_ids)  # (K,)
    totals = part_totals(len(label_ids), shares)
    parts = sum(share > 0 for share in shares)
    # Rows promised to each class in each part, (3, K).
    promised = np.stack([classes >= (1 if part == 0 else parts) for part in range(3)]).astype(np.int64)
    promised &= classes > 0
    for part, total in enumerate(totals):
        if promised[part].sum() > total:
            promised[part] = 0

    # Parts are cut off one by one, test first, each from what the others have left; train is the rest.
    left = classes.astype(np.int64)
    counts = np.zeros((3, len(classes)), dtype=np.int64)
    for part in (2, 1):
        kept_back = promised[:part].sum(axis=0)
        targets = left * (shares[part] / sum(shares[: part + 1]))
        counts[part] = _apportion(targets, totals[part], promised[part], left - kept_back)
        left = left - counts[part]
    counts[0] = left
    return _deal(label_ids, counts, seed)


def stratified_sample(label_ids: NDArray[np.integer], size: int, seed: int) -> NDArray[np.int64]:
    """Draws rows at random, each class in its share and, where `size` allows, at least one row of each.

    Args:
        label_ids: (N,) class of each row, from 0.
        size: rows to draw; 0 or N and above take all.
        seed: the same seed draws the same rows.

    Returns:
        Indices of the rows drawn, in ascending order, int64.
    """
    rows = len(label_ids)
    if size == 0 or size >= rows:
        return np.arange(rows)
    classes = np.bincount(label_ids).astype(np.int64)
    low = (classes > 0).astype(np.int64)
    drawn = _apportion(classes * (size / rows), size, low if low.sum() <= size else low * 0, classes)
    return np.flatnonzero(_deal(label_ids, np.stack([classes - drawn, drawn]), seed))


def part_totals(rows: int, shares: tuple[float, float, float]) -> list[int]:
    """Returns the rows of each part: its share of `rows`, by largest remainder (at a tie, the earlier part)."""
    # Rounded, since 0.15 * 2000 may come out a hair below 300.
    targets = np.round(np.asarray(shares) * rows, 6)
    return [int(n) for n in _apportion(targets, rows, np.zeros(3, np.int64), np.full(3, rows) * (targets > 0))]


def _apportion(targets: NDArray[np.floating], total: int, low: Counts, high: Counts) -> Counts:
    """Returns whole numbers near `targets` within `low` and `high`, with sum `total`, by largest remainder."""
    counts = np.clip(np.floor(np.round(targets, 6)).astype(np.int64), low, high)
    while (missing := total - int(counts.sum())) != 0:
        step = 1 if missing > 0 else -1
        movable = counts < high if step > 0 else counts > low
        need = np.where(movable, step * (targets - counts), -np.inf)
        # One row each to the neediest; ties fall to the earlier class, so that a seed decides all that chance does.
        neediest = np.argsort(-need, kind="stable")[: min(abs(missing), int(movable.sum()))]
        counts[neediest] += step
    return counts


def _deal(label_ids: NDArray[np.integer], counts: Counts, seed: int) -> NDArray[np.int8]:
    """Deals the rows of each class at random to the parts, in the numbers of `counts` (parts, K)."""
    random = np.random.default_rng(seed)
    parts = np.zeros(len(label_ids), dtype=np.int8)
    by_class = np.argsort(label_ids, kind="stable")
    for k, rows in enumerate(np.split(by_class, np.cumsum(counts.sum(axis=0))[:-1])):
        parts[random.permutation(rows)] = np.repeat(np.arange(len(counts), dtype=np.int8), counts[:, k])
    return parts
