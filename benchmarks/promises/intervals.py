"""95 of 100 intervals hold the true value.

Letters: S seeds, N rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from bertlora.confidence.agreement import FIGURE_NAMES, Agreement
from bertlora.confidence.intervals import accuracy_interval
from bertlora.confidence.label_agreement import FIGURE_NAMES as LABEL_FIGURE_NAMES
from bertlora.confidence.label_agreement import LabelAgreement
from bertlora.confidence.probabilities import sigmoid
from bertlora.evaluation.gains import AccuracyGain, score_gains
from bertlora.evaluation.recipes import RecipeGain
from bertlora.evaluation.scores import METRIC_NAMES, SCORES, Confusion, score_interval
from bertlora.evaluation.seeds import summarise
from promises.promise import Promise, Random
from promises.tasks import TASKS, Task

# Intervals of counts are discrete: near 95 %, and below it by up to this.
LEAST = 0.93
# The better classifier of a pair gets this fraction of the missed rows right.
BETTER = 0.1
ROWS = 300
# Standard deviation between seeds of a simulated recipe's gain, as a fraction of the rows.
SEED_SPREADS = (0.0, 0.02)
RECIPE_GAIN = 0.02
# Shape of the beta distribution of how often a recipe gets a row right; the mean is 83 %.
EASY, HARD = 3, 0.6
# The mean of d (1 - d) over that distribution.
MEAN_ROOM = EASY * HARD / ((EASY + HARD) * (EASY + HARD + 1))
# Numbers y are predicted as 0.8 y + 0.6 z; both have variance 1. So the error is -0.2 y + 0.6 z.
NUMBERS = {
    "pearson": 0.8,
    "spearman": 6 / np.pi * np.arcsin(0.4),
    "r2": 0.6,
    "mae": (0.8 / np.pi) ** 0.5,
    "rmse": 0.4**0.5,
}
# Texts may have two labels, a frequent one and a rare one.
LABEL_ODDS, LABEL_SPREAD, NAMED_FROM = (-1.0, -3.0), 2.0, 0.3
MANY_ROWS = 400_000


def intervals() -> Iterator[Promise]:
    """Yields the promises."""
    for task in TASKS:
        yield Promise("coverage", task.name, partial(_task_held, task=task), LEAST)
    yield Promise("coverage", "accuracies of 5 seeds", _seed_mean_held, LEAST)
    for seeds in (3, 5, 10):
        for spread in SEED_SPREADS:
            case = f"recipes under {seeds} seeds that differ by {100 * spread:g} points"
            yield Promise("coverage", case, partial(_recipe_held, seeds=seeds, spread=spread), LEAST)
    yield Promise("coverage", "100 numbers", partial(_numbers_held, rows=100), LEAST)
    yield Promise("coverage", "150 texts of several labels", partial(_labels_held, rows=150), LEAST)


def recipe_points(random: Random, seeds: int, spread: float, gain: float = 0.0) -> npt.NDArray[np.float64]:
    """Returns the points (S, N) of one recipe over another one; see `RecipeGain`.

    Args:
        random: draws seeds and rows.
        seeds: S.
        spread: standard deviation of the gain between seeds, as a fraction of the rows.
        gain: the true gain, as a fraction of the rows.
    """
    easy = random.beta(EASY, HARD, ROWS)
    shift = gain + random.normal(0, spread, seeds)
    first = random.random((seeds, ROWS)) < easy
    # The second recipe is better on the rows that are not certain, by `shift` on average.
    second = random.random((seeds, ROWS)) < easy + shift[:, None] * easy * (1 - easy) / MEAN_ROOM
    return 100.0 * (second.astype(float) - first)


def _task_held(random: Random, task: Task) -> dict[str, bool]:
    """Returns which intervals of a classifier, and of the gain of a better one, hold the true value."""
    y_true, first, second = task.with_better(random, BETTER)
    right, better = first == y_true, second == y_true
    confusion, gains = Confusion.of(y_true, first, task.classes), score_gains(y_true, first, second, task.classes)
    found = {"accuracy": (accuracy_interval(right), AccuracyGain.of(right, better).interval())}
    found |= {metric: (score_interval(metric, confusion), gains[metric].interval()) for metric in SCORES}
    held = {}
    for metric, (interval, gain_interval) in found.items():
        before, after = task.true_score(metric), task.improved(BETTER).true_score(metric)
        held[f"95 % CI of the {METRIC_NAMES[metric]} holds it"] = holds(interval, before)
        held[f"95 % CI of a gain in {METRIC_NAMES[metric]} holds it"] = holds(gain_interval, 100 * (after - before))
    return held


def holds(interval: Sequence[float], truth: float) -> bool:
    """Returns whether an interval has a value; its ends are whole numbers of rows over N, up to rounding."""
    return interval[0] - 1e-9 <= truth <= interval[1] + 1e-9


def _seed_mean_held(random: Random) -> dict[str, bool]:
    interval = summarise(random.normal(0.9, 0.01, 5).tolist()).mean_ci95
    return {"95 % CI of the mean holds it": interval is not None and holds(interval, 0.9)}


def _recipe_held(random: Random, seeds: int, spread: float) -> dict[str, bool]:
    interval = RecipeGain(recipe_points(random, seeds, spread, RECIPE_GAIN)).interval()
    return {"95 % CI of the gain holds it": holds(interval, 100 * RECIPE_GAIN)}


def _numbers_held(random: Random, rows: int) -> dict[str, bool]:
    y_true = random.normal(size=rows)
    found = Agreement(0.8 * y_true + 0.6 * random.normal(size=rows), y_true).intervals()
    return _all_held(found, NUMBERS, FIGURE_NAMES)


def _labels_held(random: Random, rows: int) -> dict[str, bool]:
    return _all_held(_of_labels(random, rows).intervals(), _true_figures(), LABEL_FIGURE_NAMES)


def _all_held(
    found: Mapping[str, Sequence[float] | None], truth: Mapping[str, float | None], names: Mapping[str, str]
) -> dict[str, bool]:
    held = {}
    for name, interval in found.items():
        value = truth[name]
        held[f"95 % CI of the {names[name]} holds it"] = (
            interval is not None and value is not None and holds(interval, value)
        )
    return held


def _of_labels(random: Random, rows: int) -> LabelAgreement:
    """Returns how well the labels that are named agree with those that texts have."""
    probabilities = sigmoid(random.normal(LABEL_ODDS, LABEL_SPREAD, size=(rows, len(LABEL_ODDS))))
    return LabelAgreement(
        probabilities >= NAMED_FROM, probabilities, random.random(probabilities.shape) < probabilities
    )


@cache
def _true_figures() -> dict[str, float | None]:
    return _of_labels(np.random.default_rng(0), MANY_ROWS).figures
