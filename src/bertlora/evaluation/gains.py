"""The gain of a classifier over another one on the same rows: its test, its interval, and the rows that it needs.

In accuracy by McNemar's test, in macro F1 and other scores by a permutation test. All resamples of a test are computed
at once from counts per class. Nothing here grows with K².

Letters: N rows, K classes, R resamples, C kinds of rows.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import binomtest, norm

from bertlora.confidence.intervals import LEVEL, Right, gain_interval, normal_quantile
from bertlora.confidence.probabilities import Labels
from bertlora.evaluation.scores import METRIC_NAMES, SCORES, SLOPES, Confusion, Counts, score, smoothed

SIGNIFICANCE = 0.05
POWER = 0.8
POINT = 0.01
RESAMPLES = 10_000
# Numbers that a permutation test draws at a time.
CHUNK = 1_000_000


def mcnemar(first: Right, second: Right) -> float:
    """Returns the p value of McNemar's exact test.

    The null hypothesis: of the rows that only one classifier gets right, each classifier gets half.

    Args:
        first: (N,) which rows the first classifier gets right.
        second: (N,) the same for the second classifier.
    """
    return AccuracyGain.of(first, second).p


def rows_needed(discordant: float, gain: float = POINT, significance: float = SIGNIFICANCE) -> float:
    """Returns how many rows McNemar's test needs to detect a gain with 80 % power.

    Connor 1987, "Sample size for testing differences in proportions for the paired-sample design".

    Args:
        discordant: fraction of the rows that only one of the two gets right, 0..1. A value below `gain` counts as
            `gain`, because a gain needs at least as many such rows.
        gain: true difference of the two accuracies, above 0, at most 1.
        significance: p must be below this.
    """
    share = max(discordant, gain)
    spread = norm.ppf(1 - significance / 2) * share**0.5 + norm.ppf(POWER) * (share - gain**2) ** 0.5
    # The formula is asymptotic: for a handful of rows it promises more than the exact test can show. With fewer
    # discordant rows than this, the test cannot reach the significance, whatever these rows are.
    fewest = math.ceil(math.log2(2 / significance))
    return float(max((spread / gain) ** 2, fewest / share))


@dataclass(frozen=True)
class AccuracyGain:
    """The gain of a second classifier over a first one in accuracy, on the same rows.

    Attributes:
        rows: number of rows, N.
        lost: rows that only the first gets right.
        won: rows that only the second gets right.
    """

    rows: int
    lost: int
    won: int
    metric = "accuracy"
    unit = "points"
    test = "McNemar's exact test"

    @classmethod
    def of(cls, first: Right, second: Right) -> "AccuracyGain":
        """Returns the gain by the rows that each classifier gets right, (N,) and (N,)."""
        return cls(len(first), int(np.sum(first & ~second)), int(np.sum(~first & second)))

    @property
    def gain(self) -> float:
        """Accuracy of the second minus accuracy of the first, in points."""
        return 100 * (self.won - self.lost) / self.rows

    @cached_property
    def p(self) -> float:
        """P value of McNemar's exact test."""
        differing = self.lost + self.won
        return float(binomtest(self.lost, differing).pvalue) if differing else 1.0

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Returns the gain's confidence interval in points; see `gain_interval`."""
        return gain_interval(self.lost, self.won, self.rows, level)

    def rows_needed(self, significance: float) -> float | None:
        """Returns how many rows would detect a true gain as large as this one with 80 % power; None if it is zero."""
        if self.lost == self.won:
            return None
        return rows_needed(self.discordant, abs(self.won - self.lost) / self.rows, significance)

    @property
    def discordant(self) -> float:
        """The fraction of the rows that only one of the two gets right."""
        return (self.lost + self.won) / self.rows


@dataclass(frozen=True)
class ScoreGain:
    """The gain of a second classifier over a first one in a score, on the same rows.

    Attributes:
        metric: a key of `SCORES`.
        rows: number of rows.
        gain: score of the second minus score of the first, in points (hundredths).
        error: its standard error, in points.
        p: of a paired permutation test.
    """

    metric: str
    rows: int
    gain: float
    error: float
    p: float
    test = "paired permutation test"

    @property
    def unit(self) -> str:
        """What the gain is counted in."""
        return f"points of {METRIC_NAMES[self.metric]}"

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Returns the gain's confidence interval in points: gain plus or minus a multiple of the standard error."""
        half = normal_quantile(level) * self.error
        return self.gain - half, self.gain + half

    def rows_needed(self, significance: float) -> float | None:
        """Returns how many rows would detect a true gain as large as this one with 80 % power; None if it is zero.

        The standard error falls with the square root of the number of rows.
        """
        if abs(self.gain) < 1e-9:
            return None
        spread = norm.ppf(1 - significance / 2) + norm.ppf(POWER)
        return float(self.rows * (spread * self.error / self.gain) ** 2)

    def figures(self) -> dict[str, Any]:
        """Returns gain, interval and p for JSON, as fractions."""
        low, high = self.interval()
        return {"gain": self.gain / 100, "ci95": [low / 100, high / 100], "p": self.p}


def score_gains(y_true: Labels, first: Labels, second: Labels, classes: int) -> dict[str, ScoreGain]:
    """Returns the gain of a second classifier over a first one in each score.

    Args:
        y_true: (N,) the right classes.
        first: (N,) the classes that the first classifier predicts.
        second: (N,) the same of the second.
        classes: K.
    """
    tables = Confusion.of(y_true, first, classes), Confusion.of(y_true, second, classes)
    gains = {name: score(name, tables[1]) - score(name, tables[0]) for name in SCORES}
    p = _permutation_p(gains, y_true, first, second, classes)
    return {
        name: ScoreGain(name, len(y_true), 100 * gain, 100 * _gain_error(name, tables, y_true, first, second), p[name])
        for name, gain in gains.items()
    }


def _gain_error(name: str, tables: tuple[Confusion, Confusion], y_true: Labels, first: Labels, second: Labels) -> float:
    """Returns the standard error of a gain by the delta method: the gain is nearly a sum over rows of their slopes.

    Two rows are added that only one classifier gets right, one each way, spread over the classes (Bonett and Price
    2012). So the error is not 0 if the two agree on all rows.
    """
    before, after = (SLOPES[name](*smoothed(table)) for table in tables)
    rows = after.of(y_true, second) - before.of(y_true, first)
    # As in `_variance`; and a slope for n + 1 rows is smaller than one for n rows.
    of_class = np.bincount(y_true)[y_true]
    weights = (of_class + 1) ** 2 / (of_class * np.maximum(of_class - 1, 1))
    present = np.unique(y_true)
    more = (after.right - before.wrong())[present] ** 2 + (after.wrong() - before.right)[present] ** 2
    return float(np.sqrt((weights * (rows - rows.mean()) ** 2).sum() + more.mean()))


def _permutation_p(
    gains: dict[str, float], y_true: Labels, first: Labels, second: Labels, classes: int
) -> dict[str, float]:
    """Returns the p value of each gain: how often it is as large if each row's two predictions swap at random.

    Yeh 2000, "More accurate tests for the statistical significance of result differences". Rows of one kind (the same
    true class and the same two predictions) are swapped together: their number is binomial.
    """
    differ = first != second
    (true, a, b), sizes = np.unique(np.stack([y_true, first, second])[:, differ], axis=1, return_counts=True)
    hit_change = by_class(true, (b == true) * 1.0 - (a == true), classes)  # (C, K)
    named_change = by_class(b, np.ones(len(sizes)), classes) - by_class(a, np.ones(len(sizes)), classes)
    rows = np.bincount(y_true, minlength=classes).astype(np.float64)
    counts = [np.bincount(y_true[labels == y_true], minlength=classes) for labels in (first, second)]
    named = [np.bincount(labels, minlength=classes) for labels in (first, second)]
    random = np.random.default_rng(0)
    as_large, size = dict.fromkeys(gains, 1), max(CHUNK // max(len(sizes), classes), 1)
    for start in range(0, RESAMPLES, size):
        resamples = min(size, RESAMPLES - start)
        swapped = random.binomial(sizes, 0.5, size=(resamples, len(sizes))).astype(np.float64)
        hits, predicted = swapped @ hit_change, swapped @ named_change  # (R, K)
        for name, gain in gains.items():
            before = SCORES[name](counts[0] + hits, named[0] + predicted, rows)
            after = SCORES[name](counts[1] - hits, named[1] - predicted, rows)
            as_large[name] += int((np.abs(after - before) >= abs(gain) - 1e-9).sum())
    return {name: count / (RESAMPLES + 1) for name, count in as_large.items()}


def by_class(place: Labels, values: Counts, classes: int) -> csr_array:
    """Returns a sparse table (C, K) with the values (C,) in the columns `place` (C,)."""
    return csr_array((values, (np.arange(len(place)), place)), shape=(len(place), classes))
