"""The gain of a classifier over another one in accuracy: McNemar's test, its interval, and the rows that it needs."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import binomtest, norm

from bertlora.confidence.intervals import LEVEL, Right, gain_interval

SIGNIFICANCE = 0.05
POWER = 0.8
POINT = 0.01


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
