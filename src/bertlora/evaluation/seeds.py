"""The same recipe with several seeds, judged on the same rows: how much is luck?"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import t

from bertlora.errors import InputError
from bertlora.evaluation.intervals import LEVEL


@dataclass(frozen=True)
class SeedSummary:
    """Accuracies of S runs that differ by their seed alone, all fractions in 0..1.

    Attributes:
        accuracies: one a run, in the order given.
        mean: their mean.
        deviation: their standard deviation, with S - 1 below; None for a single run.
        mean_ci95: Student's 95 % interval of the mean across seeds, cut to 0..1; None for a single run. It tells what
            other seeds would give on the same rows; other rows would move all runs together.
    """

    accuracies: tuple[float, ...]
    mean: float
    deviation: float | None
    mean_ci95: tuple[float, float] | None

    @property
    def sentence(self) -> str:
        """What it means, in one sentence."""
        if self.deviation is None or self.mean_ci95 is None:
            return f"One seed: accuracy {100 * self.mean:.1f} %; two seeds or more would show how much of it is luck."
        low, high = (100 * end for end in self.mean_ci95)
        return (
            f"{len(self.accuracies)} seeds: mean accuracy {100 * self.mean:.1f} %, standard deviation "
            f"{100 * self.deviation:.1f} points, 95 % interval of the mean {low:.1f} to {high:.1f} across seeds on the "
            f"same rows; lowest {100 * min(self.accuracies):.1f}, highest {100 * max(self.accuracies):.1f}."
        )

    def figures(self) -> dict[str, Any]:
        """Returns the summary as JSON has it."""
        table = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return table | {"verdict": self.sentence}


def summarise(accuracies: Sequence[float]) -> SeedSummary:
    """Returns mean, spread and interval of the accuracies of runs that differ by their seed alone.

    Args:
        accuracies: one a run, each in 0..1, all on the same rows.

    Raises:
        InputError: there is none.
    """
    values = np.array(accuracies, dtype=np.float64)
    if not len(values):
        raise InputError("no accuracies to summarise; train with at least one seed")
    mean = float(values.mean())
    if len(values) == 1:
        return SeedSummary((mean,), mean, None, None)
    deviation = float(values.std(ddof=1))
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    interval = max(mean - half, 0.0), min(mean + half, 1.0)
    return SeedSummary(tuple(values.tolist()), mean, deviation, interval)
