"""Classifiers whose true scores are known: class shares and recalls are given, labels and predictions are drawn.

Letters: N rows, K classes, M classifiers.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bertlora.evaluation.scores import SCORES

Labels = npt.NDArray[np.int64]
Table = npt.NDArray[np.float64]
Random = np.random.Generator

# How often a classifier repeats the prediction that all share: classifiers trained on the same rows err alike.
ALIKE = 0.7


@dataclass(frozen=True, eq=False)
class Task:
    """Rows of K classes, and a classifier of them.

    Attributes:
        name: what it is.
        rows: number of rows of a draw.
        shares: (K,) how frequent each class is.
        predicted: (K, K) how often a row of each class is predicted as each class; the rows of the table add up to 1.
    """

    name: str
    rows: int
    shares: Table
    predicted: Table

    @classmethod
    def of(cls, name: str, rows: int, shares: list[float], recalls: list[float]) -> "Task":
        """Returns a task with these recalls; the missed rows of a class are spread over the other classes."""
        hits = np.array(recalls)
        others = (1 - np.eye(len(hits))) * ((1 - hits) / (len(hits) - 1))[:, None]
        return cls(name, rows, np.array(shares), np.diag(hits) + others)

    @property
    def classes(self) -> int:
        """K."""
        return len(self.shares)

    def improved(self, gain: float) -> "Task":
        """Returns the same rows with a classifier that gets this fraction of the missed rows of each class right."""
        return Task(self.name, self.rows, self.shares, (1 - gain) * self.predicted + gain * np.eye(self.classes))

    def true_score(self, metric: str) -> float:
        """Returns the classifier's score on endlessly many rows."""
        table = self.shares[:, None] * self.predicted
        if metric not in SCORES:
            return float(np.trace(table))
        return float(SCORES[metric](np.diagonal(table), table.sum(axis=0), table.sum(axis=1)))

    def draw(self, random: Random, others: int = 0) -> tuple[Labels, list[Labels]]:
        """Returns labels (N,), and the predictions (N,) of this many other, equally good classifiers and of itself."""
        y_true = random.choice(self.classes, self.rows, p=self.shares)
        shared = self._predictions(random, y_true)
        found = []
        for _ in range(others + 1):
            own = self._predictions(random, y_true)
            found.append(np.where(random.random(self.rows) < ALIKE, shared, own))
        return y_true, found

    def with_better(self, random: Random, gain: float) -> tuple[Labels, Labels, Labels]:
        """Returns labels (N,), and the predictions of the classifier and of the `improved` one."""
        y_true, (first, second) = self.draw(random, 1)
        return y_true, first, np.where(random.random(self.rows) < gain, y_true, second)

    def _predictions(self, random: Random, y_true: Labels) -> Labels:
        sums = self.predicted.cumsum(axis=1)[y_true]
        return np.asarray(np.minimum((sums < random.random(self.rows)[:, None]).sum(axis=1), self.classes - 1))


BALANCED = Task.of("two equal classes", 872, [0.5, 0.5], [0.9, 0.9])
SMALL = Task.of("two equal classes, 60 rows", 60, [0.5, 0.5], [0.9, 0.9])
RARE = Task.of("5 % positives", 872, [0.95, 0.05], [0.985, 0.6])
FEW_RARE = Task.of("5 % positives, 200 rows", 200, [0.95, 0.05], [0.985, 0.6])
FIVE = Task.of("five classes, 5 to 40 %", 400, [0.4, 0.3, 0.15, 0.1, 0.05], [0.9, 0.8, 0.7, 0.6, 0.5])
TWENTY = Task.of("20 equal classes", 400, [0.05] * 20, [0.7] * 20)
CERTAIN = Task.of("10 % positives, 1 % wrong", 300, [0.9, 0.1], [0.995, 0.95])
TASKS = (BALANCED, SMALL, RARE, FEW_RARE, FIVE, TWENTY, CERTAIN)
