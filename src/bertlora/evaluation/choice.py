"""What choosing the best of several classifiers by some rows costs: its figure on these rows is too high.

Letters: M classifiers, N rows, K classes, R resamples.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bertlora.confidence.probabilities import Labels
from bertlora.evaluation.gains import by_class
from bertlora.evaluation.scores import METRIC_NAMES, SCORES, Counts

RESAMPLES = 1_000
# Rows, or counts of classes, of all resamples that are drawn at a time.
CHUNK = 2_000_000
# Less optimism than this, in points, is not worth a figure.
LITTLE = 0.1


@dataclass(frozen=True)
class Choice:
    """The best of several classifiers, by their figures on the same rows.

    Attributes:
        best: its name.
        metric: `accuracy` or `macro_f1`.
        measured: its figure on the rows, in 0..1.
        expected: the figure that it is expected to have on new rows, in 0..1.
        of: number of classifiers.
    """

    best: str
    metric: str
    measured: float
    expected: float
    of: int

    @property
    def optimism_points(self) -> float:
        """How much the measured figure is too high, in points; never below 0."""
        return 100 * (self.measured - self.expected)

    @property
    def sentence(self) -> str:
        """How much the figure of the best is too high."""
        name, best = METRIC_NAMES[self.metric], f"'{self.best}' is the best of {self.of} runs on these rows"
        if self.optimism_points < LITTLE:
            return f"{best}, by so much that the choice adds less than {LITTLE} points to its {name}."
        return (
            f"{best}, so its {name} of {100 * self.measured:.1f} % is too high by about {self.optimism_points:.1f} "
            f"points: expect about {100 * self.expected:.1f} % on new rows."
        )

    def figures(self) -> dict[str, Any]:
        """Returns the choice for JSON."""
        return asdict(self) | {"optimism_points": self.optimism_points, "sentence": self.sentence}


def choose(y_true: Labels, predicted: Mapping[str, Labels], classes: int, metric: str) -> Choice:
    """Returns the best of several classifiers, and the figure that it is expected to have on new rows.

    Tsamardinos et al. 2018, "Bootstrapping the out-of-sample predictions for efficient and accurate cross-validation":
    each resample of the rows chooses its best classifier, which is evaluated on the rows that the resample left out.
    Efron's estimate (the best on the resample, minus the same on all rows) is too small: if all M are equally good, it
    finds only 71 % of the optimism, because it takes the measured figures for the true ones.

    Args:
        y_true: (N,) the right classes.
        predicted: by name, the classes (N,) that each classifier predicts.
        classes: number of classes, K.
        metric: `accuracy` or a key of `SCORES`.
    """
    names, guesses = list(predicted), np.stack(list(predicted.values()))
    figures = _figures(metric, np.ones((1, len(y_true))), y_true, guesses, classes)[0]
    best, random = int(figures.argmax()), np.random.default_rng(0)
    found: list[float] = []
    while len(found) < RESAMPLES:
        # How often each row is in a resample: binomial, and almost Poisson.
        times = random.poisson(1, size=(max(1, CHUNK // max(len(y_true), classes)), len(y_true))).astype(np.float64)
        chosen = _figures(metric, times, y_true, guesses, classes).argmax(axis=1)
        left_out = _figures(metric, (times == 0).astype(np.float64), y_true, guesses, classes)
        found += left_out[np.arange(len(chosen)), chosen].tolist()
    expected = min(float(np.mean(found)), float(figures[best]))
    return Choice(names[best], metric, float(figures[best]), expected, len(names))


def _figures(metric: str, times: Counts, y_true: Labels, guesses: Labels, classes: int) -> Counts:
    """Returns the figures (R, M) of M classifiers on resamples that hold the rows `times` (R, N) times each."""
    if metric == "accuracy":
        return np.asarray(times @ (guesses == y_true).T / times.sum(axis=1, keepdims=True))
    rows = times @ by_class(y_true, np.ones(len(y_true)), classes)  # (R, K)
    scores = [
        SCORES[metric](
            times @ by_class(y_true, (guess == y_true) * 1.0, classes),
            times @ by_class(guess, np.ones(len(guess)), classes),
            rows,
        )
        for guess in guesses
    ]
    return np.stack(scores, axis=1)
