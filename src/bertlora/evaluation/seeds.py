"""The same recipe with several seeds, evaluated on the same rows: how much of the accuracy is chance?"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import t

from bertlora.confidence.intervals import LEVEL
from bertlora.confidence.label_agreement import LabelAgreement
from bertlora.confidence.spread import Spread
from bertlora.confidence.thresholds import Thresholds
from bertlora.data.prepared import Prepared
from bertlora.data.reader import split_examples
from bertlora.errors import InputError
from bertlora.evaluation.scores import METRIC_NAMES, choosing_score, value_of
from bertlora.run.loaded import Run

# Metrics that are no fractions in 0..1, and their ranges.
RMSE = "RMSE"
RANGES = {RMSE: (0.0, math.inf), METRIC_NAMES["matthews"]: (-1.0, 1.0)}


@dataclass(frozen=True)
class SeedSummary:
    """Accuracies of S runs that differ only in their seed, all fractions in 0..1; or values of another metric.

    Attributes:
        accuracies: one per run, in the given order; or values of another metric.
        mean: their mean.
        deviation: their standard deviation, with S - 1 in the denominator; None for a single run.
        mean_ci95: 95 % confidence interval of the mean (Student's t), cut to the range of the metric; None for a single
            run. It covers the variation between seeds on the same rows. Other rows would change all runs together.
        metric: what the sentence calls the metric.
    """

    accuracies: tuple[float, ...]
    mean: float
    deviation: float | None
    mean_ci95: tuple[float, float] | None
    metric: str = "accuracy"

    @property
    def shares(self) -> bool:
        """Whether the values are fractions in 0..1."""
        return self.metric not in RANGES

    @property
    def sentence(self) -> str:
        """The summary in one sentence."""
        if self.deviation is None or self.mean_ci95 is None:
            found = f"One seed: {self.metric} {self._text(self.mean)}"
            return f"{found}; train with two seeds or more to see how much it varies."
        low, high, least, most = map(self._number, (*self.mean_ci95, min(self.accuracies), max(self.accuracies)))
        deviation = f"{self._number(self.deviation)}{' points' if self.shares else ''}"
        return (
            f"{len(self.accuracies)} seeds: mean {self.metric} {self._text(self.mean)}, standard deviation "
            f"{deviation}, 95 % CI of the mean {low} to {high} (across seeds, on the same rows); lowest {least}, "
            f"highest {most}."
        )

    def _number(self, value: float) -> str:
        return f"{100 * value:.1f}" if self.shares else f"{value:.4g}"

    def _text(self, value: float) -> str:
        return f"{self._number(value)}{' %' if self.shares else ''}"

    def figures(self) -> dict[str, Any]:
        """Returns the summary for JSON."""
        table = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return table | {"verdict": self.sentence}


def summarise(accuracies: Sequence[float], metric: str = "accuracy") -> SeedSummary:
    """Returns mean, standard deviation and interval of the accuracies of runs that differ only in their seed.

    Args:
        accuracies: one per run, each in 0..1, all on the same rows; or values of another metric.
        metric: what the sentence calls the metric, as `METRIC_NAMES` has it, or RMSE.

    Raises:
        InputError: there are no accuracies.
    """
    values = np.array(accuracies, dtype=np.float64)
    if not len(values):
        raise InputError("no accuracies to summarise; train with at least one seed")
    mean = float(values.mean())
    if len(values) == 1:
        return SeedSummary((mean,), mean, None, None, metric)
    deviation = float(values.std(ddof=1))
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    least, most = RANGES.get(metric, (0.0, 1.0))
    interval = max(mean - half, least), min(mean + half, most)
    return SeedSummary(tuple(values.tolist()), mean, deviation, interval, metric)


def leading_figure(run: Run, data: Prepared, split: str) -> tuple[str, float]:
    """Returns name and value of a run's main figure on a split, in the default precision of `evaluate`.

    For classes it is the score that chose the run's epoch, or accuracy if none did.
    """
    rows = split_examples(run.adapted.reader, data, split)
    outputs, learned = run.adapted.logits(rows.inputs), run.calibration
    if isinstance(learned, Spread):
        return RMSE, float(np.sqrt(np.mean((outputs[:, 0] - rows.labels) ** 2)))
    if isinstance(learned, Thresholds):
        return "macro F1", float(LabelAgreement(learned.chosen(outputs), outputs, rows.labels).figures["macro_f1"] or 0)
    recipe = run.recipe()
    metric = "accuracy" if recipe is None else choosing_score(recipe.best_metric)
    return METRIC_NAMES[metric], value_of(metric, rows.labels, outputs.argmax(axis=1), outputs.shape[1])
