"""Scores that count each class alike: macro F1, balanced accuracy and Matthews; their intervals and paired tests.

And the F1 of the second of two classes, with its interval.

A score depends on three counts per class: its rows, the rows that are predicted as it, and its hits (the rows that are
both). All resamples of a test are computed at once from these counts. Nothing here grows with K².

Letters: N rows, K classes, R resamples, C kinds of rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import norm

from bertlora.confidence.intervals import LEVEL, exact_interval, normal_quantile
from bertlora.confidence.probabilities import Labels
from bertlora.data.labels import imbalanced
from bertlora.evaluation.confusion import Confusion, Counts
from bertlora.evaluation.mcnemar import POWER

# From hits, predicted rows and rows of each class, (..., K), to scores (...).
Score = Callable[[Counts, Counts, Counts], Counts]

RESAMPLES = 10_000
# Numbers that a permutation test draws at a time.
CHUNK = 1_000_000


def macro_f1(hits: Counts, predicted: Counts, rows: Counts) -> Counts:
    """Returns the mean F1 of all K classes; it is 0 for a class without rows and predictions, as in scikit-learn."""
    return np.asarray(_ratio(2 * hits, predicted + rows).mean(axis=-1))


def balanced_accuracy(hits: Counts, predicted: Counts, rows: Counts) -> Counts:
    """Returns the mean recall of the classes that have rows."""
    return np.asarray(_ratio(hits, rows).sum(axis=-1) / (rows > 0).sum(axis=-1))


def matthews(hits: Counts, predicted: Counts, rows: Counts) -> Counts:
    """Returns the Matthews correlation, -1..1; 0 if it is not defined.

    Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    whole = rows.sum(axis=-1)
    covariance = hits.sum(axis=-1) * whole - (predicted * rows).sum(axis=-1)
    spread = (whole**2 - (predicted**2).sum(axis=-1)) * (whole**2 - (rows**2).sum(axis=-1))
    return _ratio(covariance, np.sqrt(np.maximum(spread, 0)))


def f1(hits: Counts, named: Counts, rows: Counts) -> Counts:
    """Returns the F1 of class 1, the second one; 0 if it has no rows and no predictions."""
    return _ratio(2 * hits[..., 1], named[..., 1] + rows[..., 1])


class Slopes(NamedTuple):
    """How much a score changes per further row of each cell: of true class i and predicted class j.

    It is `rows[i] + named[j]`, and for a right row `hits[i]` more.

    Attributes:
        hits: (K,) the derivative by the hits of each class.
        named: (K,) by the rows that are predicted as it.
        rows: (K,) by its rows.
    """

    hits: Counts
    named: Counts
    rows: Counts

    def of(self, true: Labels, predicted: Labels) -> Counts:
        """Returns the slopes of cells (C,)."""
        return np.asarray(self.rows[true] + self.named[predicted] + self.hits[true] * (true == predicted))

    @property
    def right(self) -> Counts:
        """(K,) the slope of a right row of each class."""
        return np.asarray(self.hits + self.named + self.rows)

    def wrong(self, power: int = 1) -> Counts:
        """Returns the mean of a power, 1 or 2, of the slopes of the wrong rows of each class, (K,)."""
        others = len(self.rows) - 1
        first = (self.named.sum() - self.named) / others
        if power == 1:
            return np.asarray(self.rows + first)
        second = ((self.named**2).sum() - self.named**2) / others
        return np.asarray(self.rows**2 + 2 * self.rows * first + second)


def macro_f1_slopes(hits: Counts, named: Counts, rows: Counts) -> Slopes:
    """Returns the slopes of macro F1."""
    by_rows = _ratio(-2 * hits, (named + rows) ** 2) / len(rows)
    return Slopes(_ratio(np.full(len(rows), 2.0), named + rows) / len(rows), by_rows, by_rows)


def balanced_accuracy_slopes(hits: Counts, named: Counts, rows: Counts) -> Slopes:
    """Returns the slopes of the balanced accuracy; the number of classes that have rows does not change."""
    present = (rows > 0).sum()
    return Slopes(_ratio(np.ones(len(rows)), rows) / present, np.zeros(len(rows)), _ratio(-hits, rows**2) / present)


def matthews_slopes(hits: Counts, named: Counts, rows: Counts) -> Slopes:
    """Returns the slopes of the Matthews correlation; 0 if it is not defined. A further row makes the whole larger."""
    whole = rows.sum()
    first, second = whole**2 - (named**2).sum(), whole**2 - (rows**2).sum()
    if not first * second > 0:
        return Slopes(*np.zeros((3, len(rows))))
    root, value = np.sqrt(first * second), float(matthews(hits, named, rows))
    return Slopes(
        np.full(len(rows), whole / root),
        -rows / root + value * named / first,
        (hits.sum() - named) / root - value * (whole / first + (whole - rows) / second),
    )


def f1_slopes(hits: Counts, named: Counts, rows: Counts) -> Slopes:
    """Returns the slopes of the F1 of class 1."""
    second, below = np.arange(len(rows)) == 1, named + rows
    by_rows = second * _ratio(-2 * hits, below**2)
    return Slopes(second * _ratio(np.full(len(rows), 2.0), below), by_rows, by_rows)


SCORES: dict[str, Score] = {"macro_f1": macro_f1, "balanced_accuracy": balanced_accuracy, "matthews": matthews}
# And the F1 of two classes, which no test compares.
EVERY_SCORE: dict[str, Score] = SCORES | {"f1": f1}
SLOPES = {
    "macro_f1": macro_f1_slopes,
    "balanced_accuracy": balanced_accuracy_slopes,
    "matthews": matthews_slopes,
    "f1": f1_slopes,
}
METRIC_NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "balanced_accuracy": "balanced accuracy",
    "matthews": "Matthews correlation",
    "f1": "F1",
}


def leading_metric(y_true: Labels) -> str:
    """Returns the metric that comparisons use: `macro_f1` where the classes are imbalanced, otherwise `accuracy`."""
    return "macro_f1" if imbalanced(y_true) else "accuracy"


def score(name: str, confusion: Confusion) -> float:
    """Returns a score, of `EVERY_SCORE`, of a confusion matrix."""
    return float(EVERY_SCORE[name](confusion.hits, confusion.named, confusion.rows))


def score_interval(name: str, confusion: Confusion, level: float = LEVEL) -> tuple[float, float]:
    """Returns the confidence interval of a score.

    It is the exact interval of a fraction, for the effective number of rows: a fraction of this many rows has the
    standard error that the score has (Korn and Graubard 1998). A percentile bootstrap has no width if all rows are
    right, and covers too little if a class has few rows.

    Args:
        name: a key of `EVERY_SCORE`.
        confusion: of K classes, at least 2.
        level: confidence level, in 0..1.
    """
    # The exact interval is one of fractions: Matthews, -1..1, is moved to 0..1.
    low, width = (-1.0, 2.0) if name == "matthews" else (0.0, 1.0)
    share, typical = (
        (score(name, confusion) - low) / width,
        (float(EVERY_SCORE[name](*_smoothed(confusion))) - low) / width,
    )
    rows = typical * (1 - typical) * width**2 / max(_variance(name, confusion), 1e-12)
    found = exact_interval(share * rows, rows, level)
    return low + width * found[0], low + width * found[1]


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


def _ratio(above: Counts, below: Counts) -> Counts:
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below > 0)


def _smoothed(confusion: Confusion) -> tuple[Counts, Counts, Counts]:
    """Returns hits, predicted rows and rows with half a right and half a wrong row more of each class that has rows.

    The half row that is wrong is spread over the other classes.
    """
    present = (confusion.rows > 0).astype(np.float64)
    wrong = (present.sum() - present) / (confusion.classes - 1) / 2
    return confusion.hits + present / 2, confusion.named + present / 2 + wrong, confusion.rows + present


def _variance(name: str, confusion: Confusion) -> float:
    """Returns the variance of a score by the delta method, for the smoothed counts.

    A class with n rows has n + 1 in the smoothed matrix. The unbiased variance of a fraction divides by n - 1.
    """
    counts = _smoothed(confusion)
    slopes, rows = SLOPES[name](*counts), counts[-1]
    factor = rows / np.maximum(rows - 2, 1)
    measured = confusion.counts * slopes.of(confusion.true, confusion.predicted) ** 2 * factor[confusion.true]
    added = (slopes.right**2 + slopes.wrong(2)) / 2 * factor * (confusion.rows > 0)
    return float(measured.sum() + added.sum())


def _gain_error(name: str, tables: tuple[Confusion, Confusion], y_true: Labels, first: Labels, second: Labels) -> float:
    """Returns the standard error of a gain by the delta method: the gain is nearly a sum over rows of their slopes.

    Two rows are added that only one classifier gets right, one each way, spread over the classes (Bonett and Price
    2012). So the error is not 0 if the two agree on all rows.
    """
    before, after = (SLOPES[name](*_smoothed(table)) for table in tables)
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
