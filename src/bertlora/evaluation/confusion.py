"""The confusion matrix of K classes, as the cells that have rows: no table here grows with K².

Letters: N rows, K classes, C cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from bertlora.confidence.probabilities import Labels

Counts = npt.NDArray[np.float64]

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
