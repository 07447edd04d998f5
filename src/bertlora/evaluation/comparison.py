"""Two classifiers on the same rows: which one is better, by how much, and is the difference significant?"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest, norm

from bertlora.confidence.intervals import Right, gain_interval

SIGNIFICANCE = 0.05
POWER = 0.8
POINT = 0.01
# With fewer rows that only one classifier gets right, McNemar's exact test cannot reach p < 0.05.
FEWEST_DISCORDANT = 6
# Nobody labels more rows than this to settle one comparison.
MOST_ROWS = 1_000_000


def mcnemar(first: Right, second: Right) -> float:
    """Returns the p value of McNemar's exact test.

    The null hypothesis: of the rows that only one classifier gets right, each classifier gets half.

    Args:
        first: (N,) which rows the first classifier gets right.
        second: (N,) the same for the second classifier.
    """
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(~first & second))
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


def rows_needed(discordant: float, gain: float = POINT, significance: float = SIGNIFICANCE) -> int:
    """Returns how many rows McNemar's test needs to detect a gain with 80 % power, to two significant digits.

    Connor 1987, "Sample size for testing differences in proportions for the paired-sample design".

    Args:
        discordant: fraction of the rows that only one of the two gets right, 0..1. A value below `gain` counts as
            `gain`, because a gain needs at least as many such rows.
        gain: true difference of the two accuracies, above 0, at most 1.
        significance: p must be below this.
    """
    share = max(discordant, gain)
    spread = norm.ppf(1 - significance / 2) * share**0.5 + norm.ppf(POWER) * (share - gain**2) ** 0.5
    # The formula is asymptotic: for a handful of rows it promises more than the exact test can show.
    rows = max((spread / gain) ** 2, FEWEST_DISCORDANT / share)
    return math.ceil(float(f"{rows:.1e}"))


@dataclass(frozen=True)
class Comparison:
    """A second classifier against a first one on the same rows.

    Attributes:
        rows: number of rows, N.
        only_first: rows that only the first gets right.
        only_second: rows that only the second gets right.
        gain: accuracy of the second minus accuracy of the first, in points.
        low: lower end of the gain's 95 % confidence interval, in points.
        high: upper end, in points.
        p: p value of McNemar's exact test.
    """

    rows: int
    only_first: int
    only_second: int
    gain: float
    low: float
    high: float
    p: float

    @classmethod
    def of(cls, first: Right, second: Right) -> "Comparison":
        """Compares two classifiers by the rows that each gets right, (N,) and (N,).

        Raises:
            InputError: there are no rows.
        """
        figures = *gain_interval(first, second), mcnemar(first, second)
        return cls(len(first), int(np.sum(first & ~second)), int(np.sum(~first & second)), *figures)

    @property
    def significant(self) -> bool:
        """Whether p is below 0.05 and the interval excludes zero.

        The test and the interval are different methods. Near p = 0.05 they can disagree; the difference then counts as
        not significant.
        """
        return self.p < SIGNIFICANCE and self.excludes_zero

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0

    @property
    def rows_for_a_point(self) -> int:
        """About how many rows would detect a difference of 1 point, at this fraction of discordant rows."""
        return rows_needed(self._discordant)

    def rows_to_settle(self, significance: float = SIGNIFICANCE) -> int | None:
        """Returns about how many rows would detect a true gain as large as the measured one; None if that is zero."""
        if self.only_first == self.only_second:
            return None
        return rows_needed(self._discordant, abs(self.only_second - self.only_first) / self.rows, significance)

    @property
    def _discordant(self) -> float:
        return (self.only_first + self.only_second) / self.rows

    def sentence(self, names: tuple[str, str]) -> str:
        """Returns which is better and by how much, or that the difference is not significant.

        Args:
            names: of the first classifier and of the second.
        """
        if self.significant:
            verb, sign = ("beats", 1) if self.gain > 0 else ("is worse than", -1)
            low, high = sorted((sign * self.low, sign * self.high))
            return (
                f"{names[1]} {verb} {names[0]} by {abs(self.gain):.1f} points, 95 % CI {low:.1f} to {high:.1f} "
                f"(McNemar's exact test, p = {self.p:.2g})."
            )
        return (
            f"{names[1]} and {names[0]} do not differ significantly: {self.gain:+z.1f} points, 95 % CI "
            f"{self.low:+z.1f} to {self.high:+z.1f} (McNemar's exact test, p = {self.p:.2g}){self._borderline}."
        )

    @property
    def _borderline(self) -> str:
        if self.excludes_zero:
            return ", a borderline case: the interval excludes zero, but the test does not reject"
        return ", a borderline case: the test rejects, but the interval includes zero" if self.p < SIGNIFICANCE else ""

    @property
    def open_sentence(self) -> str:
        """How many rows would settle the measured gap; empty if the difference is significant."""
        if self.significant:
            return ""
        needed = self.rows_to_settle()
        if needed is None:
            return "The measured gap is zero: more rows would only make the interval narrower."
        gap = f"{abs(self.gain):.1f}" if abs(self.gain) >= 0.05 else f"{abs(self.gain):.1g}"
        if needed > MOST_ROWS:
            return f"A gap of {gap} points is too small to settle: it would take more than {MOST_ROWS:,} rows."
        return f"If the true gap is {gap} points, about {needed:,} rows would show it."

    def figures(self, names: tuple[str, str]) -> dict[str, Any]:
        """Returns the comparison for JSON; `names` of the first classifier and of the second."""
        return {
            "rows": self.rows,
            "only_first": self.only_first,
            "only_second": self.only_second,
            "gain_points": self.gain,
            "gain_points_ci95": [self.low, self.high],
            "mcnemar_p": self.p,
            "significant": self.significant,
            "rows_for_a_point": self.rows_for_a_point,
            "rows_to_settle": None if self.significant else self.rows_to_settle(),
            "verdict": " ".join(part for part in (self.sentence(names), self.open_sentence) if part),
        }
