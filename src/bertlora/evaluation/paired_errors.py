"""The errors of two regressions on the same rows: which is smaller, by how much, and is the difference significant?

All draws of a paired bootstrap take the same rows for both. Pairs that are compared together are corrected for their
number, as classifiers are; see `comparison`.

Letters: N rows, R resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.stats import norm

from bertlora.confidence.agreement import LEVEL, percentiles, resamples
from bertlora.confidence.probabilities import Array
from bertlora.evaluation.comparison import FEWEST_ROWS, Name, holm, settling, two_digits
from bertlora.evaluation.gains import POWER, SIGNIFICANCE

RESAMPLES = 5_000


@dataclass(frozen=True)
class ErrorComparison:
    """A second regression against a first one on the same N rows, by the root of the mean squared error (RMSE).

    Attributes:
        rows: N.
        rmse: of the first and of the second, in the unit of the numbers.
        mae: mean absolute errors, likewise.
        draws: (R,) of a paired bootstrap: RMSE of the first minus RMSE of the second.
        pairs: how many pairs were compared together, this one included.
        p: p value, corrected for the number of pairs.
        tests: the number of tests that the correction counts for this pair; see `holm`.
    """

    rows: int
    rmse: tuple[float, float]
    mae: tuple[float, float]
    draws: Array
    pairs: int = 1
    p: float = 1.0
    tests: int = 1

    @property
    def gain(self) -> float:
        """RMSE of the first minus RMSE of the second: above 0 the second is better."""
        return self.rmse[0] - self.rmse[1]

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The gain's bootstrap interval: 95 %, and wider if the test counts other pairs too."""
        return percentiles(self.draws, 1 - (1 - LEVEL) / self.tests)

    @property
    def significant(self) -> bool:
        """Whether the corrected p is below 0.05 and the interval excludes zero."""
        low, high = self.interval
        return self.p < SIGNIFICANCE and (low > 0 or high < 0)

    @property
    def rows_to_settle(self) -> int | None:
        """About how many rows would detect a true gain as large as the measured one, with 80 % power.

        None if the difference is significant, if the gain is zero, or with fewer than 30 rows. The standard error falls
        with the square root of the number of rows.
        """
        if self.significant or self.rows < FEWEST_ROWS or abs(self.gain) < 1e-12:
            return None
        spread = norm.ppf(1 - SIGNIFICANCE / self.tests / 2) + norm.ppf(POWER)
        return two_digits(float(self.rows * (spread * self.draws.std() / self.gain) ** 2))

    def sentence(self, names: tuple[str, str]) -> str:
        """Returns which is better and by how much, or that the difference is not significant.

        Args:
            names: of the first regression and of the second.
        """
        corrected = f"; p and interval are corrected for {self.pairs} comparisons" if self.pairs > 1 else ""
        test = f"(paired bootstrap, p = {self.p:.2g}{corrected})"
        against = f"RMSE {self.rmse[1]:.4g} against {self.rmse[0]:.4g}"
        if self.significant:
            verb, sign = ("beats", 1) if self.gain > 0 else ("is worse than", -1)
            low, high = sorted(sign * end for end in self.interval)
            return (
                f"{names[1]} {verb} {names[0]}: {against}, a difference of {abs(self.gain):.3g}, 95 % CI {low:.3g} to "
                f"{high:.3g} {test}."
            )
        low, high = self.interval
        return (
            f"{names[1]} and {names[0]} do not differ significantly: {against}, a difference of {self.gain:.3g}, 95 % "
            f"CI {low:.3g} to {high:.3g} {test}."
        )

    @property
    def open_sentence(self) -> str:
        """How many rows would settle the measured gap; empty if the difference is significant."""
        gap = f"{abs(self.gain):.2g} of RMSE"
        return "" if self.significant else settling(gap, self.rows, self.rows_to_settle)

    def figures(self, names: tuple[str, str]) -> dict[str, Any]:
        """Returns the comparison for JSON.

        Args:
            names: of the first regression and of the second.

        Returns:
            - `rows`; `rmse` and `mae`, each of the first and of the second.
            - `gain`: RMSE of the first minus RMSE of the second.
            - `gain_ci95` and `p`, corrected for `pairs` pairs.
            - `significant`, `rows_to_settle`, `verdict`.
        """
        return {
            "rows": self.rows,
            "metric": "rmse",
            "rmse": list(self.rmse),
            "mae": list(self.mae),
            "gain": self.gain,
            "gain_ci95": list(self.interval),
            "p": self.p,
            "pairs": self.pairs,
            "significant": self.significant,
            "rows_to_settle": self.rows_to_settle,
            "verdict": " ".join(part for part in (self.sentence(names), self.open_sentence) if part),
        }


def compare_errors(
    y_true: Array, pairs: Mapping[Name, tuple[Array, Array]], seed: int = 0
) -> dict[Name, ErrorComparison]:
    """Compares pairs of regressions on the same rows, and corrects for the number of pairs.

    Args:
        y_true: (N,) the right numbers.
        pairs: by name, the numbers (N,) that the first regression of a pair predicts, and those of the second.
        seed: seed of the resampling.
    """
    errors = {name: (first - y_true, second - y_true) for name, (first, second) in pairs.items()}
    draws: dict[Name, list[Array]] = {name: [] for name in pairs}
    for times in resamples(len(y_true), seed, RESAMPLES):
        for name, (first, second) in errors.items():
            draws[name].append(np.sqrt(times @ first**2 / len(y_true)) - np.sqrt(times @ second**2 / len(y_true)))
    drawn = {name: np.concatenate(parts) for name, parts in draws.items()}
    corrections = holm([two_sided(found) for found in drawn.values()])
    return {
        name: ErrorComparison(
            len(y_true),
            (_rmse(first), _rmse(second)),
            (float(np.abs(first).mean()), float(np.abs(second).mean())),
            drawn[name],
            len(pairs),
            p,
            tests,
        )
        for (name, (first, second)), (p, tests) in zip(errors.items(), corrections, strict=True)
    }


def two_sided(draws: Array) -> float:
    """Returns the two-sided bootstrap p of no difference: twice the smaller share of draws (R,) on one side of zero."""
    below, above = int(np.sum(draws <= 0)), int(np.sum(draws >= 0))
    return min(1.0, 2 * (1 + min(below, above)) / (1 + len(draws)))


def _rmse(errors: Array) -> float:
    return float(np.sqrt(np.mean(errors**2)))
