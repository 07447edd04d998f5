"""The confusion matrix, and scores that count each class alike: macro F1, balanced accuracy and Matthews.

And the F1 of the second of two classes. Each score has an interval.

A score depends on three counts per class: its rows, the rows that are predicted as it, and its hits (the rows that are
both). The confusion matrix is kept as the cells that have rows. So nothing here grows with K².

Letters: N rows, K classes, C cells.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bertlora.confidence.intervals import LEVEL, exact_interval
from bertlora.confidence.probabilities import Labels
from bertlora.data.labels import imbalanced

Counts = npt.NDArray[np.float64]
# From hits, predicted rows and rows of each class, (..., K), to scores (...).
Score = Callable[[Counts, Counts, Counts], Counts]

# With more classes, no one reads the whole matrix, and no figure holds it.
LARGEST_MATRIX = 100
TOP_CONFUSIONS = 20


@dataclass(frozen=True)
class Confusion:
    """How often each class is predicted as each other one.

    Attributes:
        classes: K.
        true: (C,) the true class of each cell.
        predicted: (C,) its predicted class.
        counts: (C,) its rows, at least one.
    """

    classes: int
    true: Labels
    predicted: Labels
    counts: Counts

    @classmethod
    def of(cls, y_true: Labels, predicted: Labels, classes: int) -> "Confusion":
        """Counts N rows."""
        cells, counts = np.unique(y_true.astype(np.int64) * classes + predicted, return_counts=True)
        return cls(classes, cells // classes, cells % classes, counts.astype(np.float64))

    @cached_property
    def hits(self) -> Counts:
        """(K,) the right rows of each class."""
        return self._by_class(self.true, self.counts * (self.true == self.predicted))

    @cached_property
    def named(self) -> Counts:
        """(K,) the rows that are predicted as each class."""
        return self._by_class(self.predicted, self.counts)

    @cached_property
    def rows(self) -> Counts:
        """(K,) the rows of each class."""
        return self._by_class(self.true, self.counts)

    def figures(self, labels: Sequence[str]) -> dict[str, Any]:
        """Returns the matrix for JSON.

        Returns:
            `confusion`: row: true class, column: predicted class; None with over 100 classes. `top_confusions`: the 20
            largest cells of wrong rows, as `true`, `predicted`, `rows` and `share`, the fraction of the true class.
            `other_confusions`: the wrong rows in all other cells.
        """
        wrong = np.flatnonzero(self.true != self.predicted)
        top = wrong[np.argsort(-self.counts[wrong], kind="stable")][:TOP_CONFUSIONS]
        cells = zip(self.true[top].tolist(), self.predicted[top].tolist(), self.counts[top].tolist(), strict=True)
        return {
            "confusion": self._matrix() if self.classes <= LARGEST_MATRIX else None,
            "top_confusions": [
                {"true": labels[i], "predicted": labels[j], "rows": int(count), "share": count / float(self.rows[i])}
                for i, j, count in cells
            ],
            "other_confusions": int(self.counts[wrong].sum() - self.counts[top].sum()),
        }

    def _matrix(self) -> list[list[int]]:
        table = np.zeros((self.classes, self.classes), np.int64)
        table[self.true, self.predicted] = self.counts.astype(np.int64)
        found: list[list[int]] = table.tolist()
        return found

    def _by_class(self, place: Labels, counts: Counts) -> Counts:
        return np.asarray(np.bincount(place, counts, self.classes), dtype=np.float64)


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


def choosing_score(best_metric: str) -> str:
    """Returns the score of classes that a recipe's `best_metric` names; accuracy if it names none, as `loss`."""
    return best_metric if best_metric in EVERY_SCORE else "accuracy"


def value_of(metric: str, y_true: Labels, predicted: Labels, classes: int) -> float:
    """Returns the accuracy, or a score of `EVERY_SCORE`, of N rows that are predicted as one of K classes each."""
    if metric == "accuracy":
        return float(np.mean(predicted == y_true))
    return score(metric, Confusion.of(y_true, predicted, classes))


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
        (float(EVERY_SCORE[name](*smoothed(confusion))) - low) / width,
    )
    rows = typical * (1 - typical) * width**2 / max(_variance(name, confusion), 1e-12)
    found = exact_interval(share * rows, rows, level)
    return low + width * found[0], low + width * found[1]


def _ratio(above: Counts, below: Counts) -> Counts:
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below > 0)


def smoothed(confusion: Confusion) -> tuple[Counts, Counts, Counts]:
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
    counts = smoothed(confusion)
    slopes, rows = SLOPES[name](*counts), counts[-1]
    factor = rows / np.maximum(rows - 2, 1)
    measured = confusion.counts * slopes.of(confusion.true, confusion.predicted) ** 2 * factor[confusion.true]
    added = (slopes.right**2 + slopes.wrong(2)) / 2 * factor * (confusion.rows > 0)
    return float(measured.sum() + added.sum())
