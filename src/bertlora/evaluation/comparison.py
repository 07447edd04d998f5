"""Two classifiers on the same rows: is one better, by how much, and how sure is that?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest, norm

from bertlora.evaluation.intervals import Right, gain_interval

SURE = 0.05
POWER = 0.8
POINT = 0.01


def mcnemar(first: Right, second: Right) -> float:
    """Returns the p value of McNemar's exact test: are the rows that only one of the two gets right split evenly?

    Args:
        first: (N,) which rows the first classifier gets right.
        second: (N,) the same for the second.
    """
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(~first & second))
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


def rows_needed(discordant: float, gain: float = POINT) -> int:
    """Returns how many rows McNemar's test needs to show a gain with 80 % power at p < 0.05, to two significant digits.

    After Connor 1987, "Sample size for testing differences in proportions for the paired-sample design".

    Args:
        discordant: share of the rows that one of the two alone gets right, 0..1; as large as `gain` at least, or
            there could be no such gain.
        gain: the true difference of the two accuracies, above 0, at most 1.
    """
    share = max(discordant, gain)
    spread = norm.ppf(1 - SURE / 2) * share**0.5 + norm.ppf(POWER) * (share - gain**2) ** 0.5
    return int(float(f"{(spread / gain) ** 2:.1e}"))


@dataclass(frozen=True)
class Comparison:
    """A second classifier against a first on the same rows.

    Attributes:
        rows: how many, N.
        only_first: rows that the first alone gets right.
        only_second: rows that the second alone gets right.
        gain: of the second over the first, in points.
        low: lower end of its 95 % interval, in points.
        high: upper end.
        p: of McNemar's exact test.
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
        """Compares which rows each gets right, (N,) and (N,).

        Raises:
            InputError: there are no rows.
        """
        figures = *gain_interval(first, second), mcnemar(first, second)
        return cls(len(first), int(np.sum(first & ~second)), int(np.sum(~first & second)), *figures)

    @property
    def apart(self) -> bool:
        """Whether the two can be told apart: the test says so, and the interval leaves out zero.

        Near p = 0.05 the two may differ, for they are not the same method; then it is not sure.
        """
        return self.p < SURE and self._leaves_out_zero

    @property
    def _leaves_out_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    @property
    def rows_for_a_point(self) -> int:
        """About how many rows would show a difference of 1 point, at this share of rows that one alone gets right."""
        return rows_needed((self.only_first + self.only_second) / self.rows)

    def sentence(self, names: tuple[str, str]) -> str:
        """Returns what it means in one sentence; `names` of the first and of the second."""
        if self.apart:
            verb, sign = ("beats", 1) if self.gain > 0 else ("falls behind", -1)
            low, high = sorted((sign * self.low, sign * self.high))
            return (
                f"{names[1]} {verb} {names[0]} by {abs(self.gain):.1f} points, 95 % interval {low:.1f} to {high:.1f} "
                f"(McNemar's exact p = {self.p:.2g}, {self.rows:,} rows)."
            )
        return (
            f"{names[1]} and {names[0]} are not distinguishable on {self.rows:,} rows: {self.gain:+z.1f} points, "
            f"95 % interval {self.low:+z.1f} to {self.high:+z.1f} (McNemar's exact p = {self.p:.2g}){self._doubt}; "
            f"{self._more_rows}."
        )

    @property
    def _doubt(self) -> str:
        if self._leaves_out_zero:
            return ", a borderline case, as the interval leaves out zero and the test does not"
        return ", a borderline case, as the test leaves out zero and the interval does not" if self.p < SURE else ""

    @property
    def _more_rows(self) -> str:
        if self.rows_for_a_point > self.rows:
            return f"about {self.rows_for_a_point:,} rows would show a 1-point difference"
        return f"a 1-point difference would probably have shown, as about {self.rows_for_a_point:,} rows are enough"

    def figures(self, names: tuple[str, str]) -> dict[str, Any]:
        """Returns the comparison as JSON has it; `names` of the first and of the second."""
        return {
            "rows": self.rows,
            "only_first": self.only_first,
            "only_second": self.only_second,
            "gain_points": self.gain,
            "gain_points_ci95": [self.low, self.high],
            "mcnemar_p": self.p,
            "rows_for_a_point": self.rows_for_a_point,
            "verdict": self.sentence(names),
        }
