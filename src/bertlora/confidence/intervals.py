"""Confidence intervals of an accuracy, and of the difference of two accuracies on the same rows.

Both use the bootstrap if there is enough to resample. The bootstrap fails in extreme cases: if all N rows are
right, each resample is all right too, and the interval has no width. If fewer than ten rows are informative, an exact
interval or a score interval is used instead. Informative are the wrong rows for an accuracy, and for a difference the
rows that only one of two classifiers gets right.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import beta, norm

from bertlora.errors import InputError

Right = npt.NDArray[np.bool_]

RESAMPLES = 10_000
LEVEL = 0.95
FEWEST = 10


def accuracy_interval(right: Right, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % confidence interval of an accuracy, both ends in 0..1.

    It is the percentile bootstrap interval over rows. If fewer than 10 rows are right, or fewer than 10 are wrong, it
    is the exact interval (see the module docstring).

    Args:
        right: (N,) which rows are right; at least one row.
        resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Raises:
        InputError: there are no rows.
    """
    rows, hits = _some(len(right)), int(right.sum())
    if min(hits, rows - hits) < FEWEST:
        return exact_interval(hits, rows)
    # If a fraction p of N rows is right, drawing N rows with replacement is one binomial draw. It needs no row indices.
    shares = np.random.default_rng(seed).binomial(rows, hits / rows, size=resamples) / rows
    return _percentiles(shares, LEVEL)


def exact_interval(hits: float, rows: float, level: float = LEVEL) -> tuple[float, float]:
    """Returns the exact confidence interval of the fraction `hits / rows`; its coverage is never below the level.

    Clopper and Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial".

    Args:
        hits: number of rows that are right, 0..rows. It need not be whole, and neither need `rows`.
        rows: number of rows, above 0.
        level: confidence level, in 0..1.
    """
    outside = (1 - level) / 2
    low = float(beta.ppf(outside, hits, rows - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - outside, hits + 1, rows - hits)) if hits < rows else 1.0
    return low, high


def gain_interval(
    lost: int, won: int, rows: int, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Returns the confidence interval of the gain in accuracy of a second classifier over a first one on the same rows.

    Both ends are in points, -100..100. It is the percentile bootstrap interval over paired rows. Each row has one of
    three outcomes: only the first is right, only the second is right, or no difference. If fewer than 10 rows lie
    outside the most frequent outcome, it is the score interval (see the module docstring).

    Args:
        lost: rows that only the first classifier gets right.
        won: rows that only the second gets right.
        rows: number of rows, at least one.
        level: confidence level, in 0..1.
        resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Raises:
        InputError: there are no rows.
    """
    _some(rows)
    if rows - max(lost, won, rows - lost - won) < FEWEST:
        # The upper end is computed from the swapped counts, so that swapping the classifiers mirrors the interval.
        return 100 * _score_end(lost, won, rows, level), -100 * _score_end(won, lost, rows, level)
    shares = [lost / rows, won / rows, (rows - lost - won) / rows]
    counts = np.random.default_rng(seed).multinomial(rows, shares, size=resamples)
    return _percentiles(100 * (counts[:, 1] - counts[:, 0]) / rows, level)


def normal_quantile(level: float) -> float:
    """Returns how many standard errors an interval of this confidence level has on either side: 1.96 for 0.95."""
    return float(norm.ppf((1 + level) / 2))


def _percentiles(draws: npt.NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.percentile(draws, [100 * (1 - level) / 2, 100 * (1 + level) / 2])
    return float(low), float(high)


def _score_end(lost: int, won: int, rows: int, level: float) -> float:
    """Returns the lower end of the score interval of (won - lost) / rows, in -1..1.

    Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design". The interval holds the differences that a score test does not reject.
    """
    if lost == rows:
        return -1.0
    z = normal_quantile(level)

    def excess(gain: float) -> float:
        # The most likely fraction of lost rows if the true gain is `gain`: the larger root of a x² + b x + c = 0.
        a = 2 * rows
        b = (2 * rows - won + lost) * gain - won - lost
        c = -lost * gain * (1 - gain)
        share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = rows * (2 * share + gain * (1 - gain))
        return float((won - lost - rows * gain) ** 2 - z * z * variance)

    # At the observed gain the score is 0. If no row is won or lost, the variance is 0 there too, so stay just below it,
    # by one row or less: the score is negative there only so near.
    return float(brentq(excess, -1.0, (won - lost) / rows - 1 / max(rows, 10**9), xtol=1e-12))


def _some(rows: int) -> int:
    if not rows:
        raise InputError("no rows to evaluate; give at least one")
    return rows
