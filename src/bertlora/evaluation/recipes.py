"""Recipes under the same seeds, on the same rows: is a difference larger than seeds and rows give by chance?

Letters: S seeds, N rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from bertlora.confidence.intervals import LEVEL, Right
from bertlora.confidence.probabilities import Array, Labels
from bertlora.data.labels import imbalanced
from bertlora.evaluation.comparison import gain_sentence, holm
from bertlora.evaluation.gains import SIGNIFICANCE
from bertlora.evaluation.scores import METRIC_NAMES
from bertlora.evaluation.seeds import summarise

# With two seeds the t test has one degree of freedom: it finds too much if the rows differ, and little otherwise.
FEWEST_SEEDS = 3
# With fewer seeds the interval is wide because of their number.
FEW_SEEDS = 5


@dataclass(frozen=True)
class RecipeGain:
    """The gain of a second recipe over a first one, under the same seeds and on the same rows.

    Both seeds and rows are samples: others would give other results. A two-way analysis of variance with random seeds
    and rows gives the standard error: Hillis 2007, "A comparison of denominator degrees of freedom methods for multiple
    observer ROC analysis", where readers have the place of seeds. With few seeds a bootstrap over seeds is too narrow,
    because it has no t quantile.

    Attributes:
        points: (S, N) the second recipe minus the first, in points: 100 if only the second gets the row right, -100 if
            only the first does; times the weight of the row.
    """

    points: npt.NDArray[np.float64]

    @property
    def gain(self) -> float:
        """The mean over seeds and rows, in points."""
        return float(self.points.mean())

    @cached_property
    def _squares(self) -> tuple[float, float]:
        """The mean squares: of seeds, and of rows without what seeds add to them."""
        seeds, rows = self.points.shape
        of_seeds, of_rows = self.points.mean(axis=1), self.points.mean(axis=0)
        rest = self.points - of_seeds[:, None] - of_rows[None, :] + self.gain
        residual = float((rest**2).sum()) / ((seeds - 1) * (rows - 1))
        return rows * float(of_seeds.var(ddof=1)), max(seeds * float(of_rows.var(ddof=1)) - residual, 0.0)

    @property
    def error(self) -> float:
        """The standard error of the gain, in points."""
        return float((sum(self._squares) / self.points.size) ** 0.5)

    @property
    def degrees(self) -> float:
        """The degrees of freedom: S - 1 if only seeds differ, and more the more the rows do."""
        of_seeds, of_rows = self._squares
        return (len(self.points) - 1) * (1 + of_rows / max(of_seeds, 1e-9)) ** 2

    @property
    def p(self) -> float:
        """P value of the t test of no difference, over seeds and rows."""
        return float(2 * t.sf(abs(self.gain) / self.error, self.degrees)) if self.error else 1.0

    @property
    def p_seeds(self) -> float:
        """P value of the paired t test over seeds: other seeds, but the same rows."""
        gains = self.points.mean(axis=1)
        error = float(gains.std(ddof=1)) / len(gains) ** 0.5
        return float(2 * t.sf(abs(self.gain) / error, len(gains) - 1)) if error else 1.0

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Returns the confidence interval of the gain, in points."""
        half = float(t.ppf((1 + level) / 2, self.degrees)) * self.error
        return self.gain - half, self.gain + half


def compare_recipes(y_true: Labels, right: Mapping[str, Sequence[Right]], seeds: Sequence[int]) -> dict[str, Any]:
    """Returns what `compare --seeds --json` prints.

    Args:
        y_true: (N,) the right classes; at least two rows.
        right: by recipe, which rows its run of each seed gets right, S times (N,); two recipes or more.
        seeds: the S seeds, at least three.

    Returns:
        - `n`, `seeds`.
        - `metric`: `accuracy`, or `balanced_accuracy` if the classes of the rows are imbalanced.
        - `runs` {name: `SeedSummary.figures` by this metric}; `ranking`, the names, the highest mean first.
        - `pairs`: objects with `first`, `second`, `rows`, `gains_points` (by seed), `gain_points`, `gain_points_ci95`,
          `p`, `p_seeds` (see `RecipeGain`); `tested`, `significant` and `verdict`, corrected for the number of pairs.
    """
    metric = "balanced_accuracy" if imbalanced(y_true) else "accuracy"
    weights = _weights(y_true, metric)
    scores: dict[str, Array] = {name: np.stack(found) * weights for name, found in right.items()}
    runs = {
        name: summarise(found.mean(axis=1).tolist(), METRIC_NAMES[metric]).figures() for name, found in scores.items()
    }
    gains = {(a, b): RecipeGain(100 * (scores[b] - scores[a])) for a, b in combinations(right, 2)}
    corrections = holm([gain.p for gain in gains.values()])
    return {
        "n": len(y_true),
        "seeds": list(seeds),
        "metric": metric,
        "runs": runs,
        "ranking": sorted(runs, key=lambda name: -runs[name]["mean"]),
        "pairs": [
            _pair_figures(names, gain, metric, len(gains), *correction)
            for (names, gain), correction in zip(gains.items(), corrections, strict=True)
        ],
    }


def _weights(y_true: Labels, metric: str) -> Array:
    """Returns the weight (N,) of each row, 1 on average; for balanced accuracy each class has the same weight."""
    counts = np.bincount(y_true)
    if metric == "accuracy":
        return np.ones(len(y_true))
    return np.asarray(len(y_true) / (np.count_nonzero(counts) * counts[y_true]))


def _pair_figures(
    names: tuple[str, str], gain: RecipeGain, metric: str, pairs: int, p: float, tests: int
) -> dict[str, Any]:
    low, high = gain.interval(1 - (1 - LEVEL) / tests)
    tested = {"metric": metric, "pairs": pairs, "gain_points": gain.gain, "gain_points_ci95": [low, high], "p": p}
    return {
        "first": names[0],
        "second": names[1],
        "rows": gain.points.shape[1],
        "gains_points": gain.points.mean(axis=1).tolist(),
        "gain_points": gain.gain,
        "gain_points_ci95": list(gain.interval()),
        "p": gain.p,
        "p_seeds": gain.p_seeds,
        "tested": tested,
        "significant": p < SIGNIFICANCE,
        "verdict": _sentence(names, tested, len(gain.points)),
    }


def _sentence(names: tuple[str, str], tested: Mapping[str, Any], seeds: int) -> str:
    """Returns which recipe is better and by how much, or that the difference is not significant."""
    gain, interval, p = tested["gain_points"], tested["gain_points_ci95"], tested["p"]
    unit = "points" if tested["metric"] == "accuracy" else f"points of {METRIC_NAMES[tested['metric']]}"
    corrected = f"; p and interval are corrected for {tested['pairs']} comparisons" if tested["pairs"] > 1 else ""
    test = f"(t test over {seeds} seeds and the rows, p = {p:.2g}{corrected})"
    said = gain_sentence(names, gain, interval, unit, test, p < SIGNIFICANCE)
    few = f" {seeds} seeds measure the chance between seeds roughly, so the interval is wide; more seeds narrow it."
    return said + (few if seeds < FEW_SEEDS else "")
