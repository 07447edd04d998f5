"""How sure a share of rows is, and the difference of two shares of the same rows: 95 % intervals.

The bootstrap is right where there is enough to resample. Drawing N rows again from N rows that are all right gives N
right rows each time, an interval of no width, as if nothing more could be learned. So where fewer than ten rows carry
the news (wrong rows for an accuracy, rows that one of two classifiers alone gets right for a difference), an interval
that counts what has not been seen takes the bootstrap's place.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from bertlora.errors import InputError

Right = npt.NDArray[np.bool_]

RESAMPLES = 10_000
LEVEL = 0.95
FEWEST = 10
TAILS = [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2]


def accuracy_interval(right: Right, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % interval of an accuracy.

    It has the percentiles of bootstrap resamples of the rows; with fewer than 10 rows right, or fewer than 10 wrong, it
    is the exact interval instead (see above).

    Args:
        right: (N,) which rows are right; at least one row.
        resamples: how many times N rows are drawn with replacement.
        seed: of these draws.

    Raises:
        InputError: there are no rows.
    """
    rows, hits = len(_some(right)), int(right.sum())
    if min(hits, rows - hits) < FEWEST:
        return exact_interval(hits, rows)
    # N draws with replacement of which a share p is right are a binomial draw: no rows need be drawn.
    shares = np.random.default_rng(seed).binomial(rows, hits / rows, size=resamples) / rows
    low, high = np.percentile(shares, TAILS)
    return float(low), float(high)


def exact_interval(hits: int, rows: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share, `hits` of `rows`; its coverage is never below 95 %.

    After Clopper and Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial".
    """
    found = binomtest(hits, rows).proportion_ci(LEVEL, method="exact")
    return float(found.low), float(found.high)


def gain_interval(first: Right, second: Right, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float, float]:
    """Returns the gain of `second` over `first` in points, -100..100, and both ends of its 95 % interval.

    The interval has the percentiles of bootstrap resamples of the paired rows; where fewer than 10 rows differ from
    all the others (won, lost, or the same for both), it is the score interval instead (see above).

    Args:
        first: (N,) which rows the first classifier gets right; at least one row.
        second: (N,) the same for the second.
        resamples: how many times N rows are drawn with replacement.
        seed: of these draws.

    Raises:
        InputError: there are no rows.
    """
    rows = len(_some(first))
    lost, won = int(np.sum(first & ~second)), int(np.sum(~first & second))
    gain = 100 * (won - lost) / rows
    if rows - max(lost, won, rows - lost - won) < FEWEST:
        # In this order both ends mirror when the two change places.
        return gain, 100 * _score_end(lost, won, rows), -100 * _score_end(won, lost, rows)
    shares = [lost / rows, won / rows, (rows - lost - won) / rows]
    counts = np.random.default_rng(seed).multinomial(rows, shares, size=resamples)
    low, high = np.percentile(100 * (counts[:, 1] - counts[:, 0]) / rows, TAILS)
    return gain, float(low), float(high)


def _score_end(lost: int, won: int, rows: int) -> float:
    """Returns the lower end of the score interval of (won - lost) / rows, in -1..1.

    After Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design": the differences that a score test would not refuse.
    """
    if lost == rows:
        return -1.0
    z = float(norm.ppf((1 + LEVEL) / 2))

    def surprise(gain: float) -> float:
        # The share lost that is likeliest when the true gain is `gain`: the larger root of a x² + b x + c = 0.
        a = 2 * rows
        b = (2 * rows - won + lost) * gain - won - lost
        c = -lost * gain * (1 - gain)
        share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = rows * (2 * share + gain * (1 - gain))
        return float((won - lost - rows * gain) ** 2 - z * z * variance)

    # At the observed gain itself nothing is surprising; with no row won or lost the variance there is 0 as well.
    return float(brentq(surprise, -1.0, (won - lost) / rows - 1e-9, xtol=1e-12))


def _some(right: Right) -> Right:
    if not len(right):
        raise InputError("no rows to judge by; give at least one")
    return right
