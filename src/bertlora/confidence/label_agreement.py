"""How well the labels of texts agree with the true ones, if a text may have several: F1, subset accuracy, precision.

Letters: N rows, K labels, R resamples, P distinct probabilities.
"""

import numpy as np
import numpy.typing as npt

from bertlora.confidence.agreement import Resampled
from bertlora.confidence.probabilities import Array

FIGURES = ("macro_f1", "micro_f1", "subset_accuracy", "average_precision")
FIGURE_NAMES = {
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "subset_accuracy": "subset accuracy",
    "average_precision": "average precision",
}
Chosen = npt.NDArray[np.bool_]


class LabelAgreement(Resampled):
    """The agreement of chosen labels (N, K) and probabilities (N, K) with the true labels (N, K): `FIGURES`.

    - `macro_f1`: the mean F1 of the labels that a row has. A label that no row has is left out: its F1 would be 0.
    - `micro_f1`: F1 of all N K decisions.
    - `subset_accuracy`: the share of the rows whose labels are all right.
    - `average_precision`: the mean over the labels that a row has, as scikit-learn computes it for each.

    Raises:
        InputError: there are no rows.
    """

    def __init__(self, chosen: Chosen, probabilities: Array, y_true: Chosen) -> None:
        super().__init__(len(y_true))
        self._probabilities, self._true = probabilities, np.asarray(y_true, dtype=np.bool_)
        self._hits, self._named, self._having = (
            found.astype(np.float64) for found in (chosen & self._true, chosen, self._true)
        )
        self._right = (chosen == self._true).all(axis=1).astype(np.float64)

    def of(self, times: Array) -> dict[str, Array]:
        """Returns each figure (R,), NaN if it is not defined, for rows that occur `times` (R, N)."""
        hits, named, having = self._counts(times)
        columns = zip(self._probabilities.T, self._true.T, strict=True)
        precisions = [average_precision(times, p, y) for p, y in columns]
        return {
            "macro_f1": self.macro_f1(times),
            "micro_f1": _ratio(2 * hits.sum(axis=1), (named + having).sum(axis=1)),
            "subset_accuracy": times @ self._right / times.sum(axis=1),
            "average_precision": _mean(np.stack(precisions, axis=1)),
        }

    def macro_f1(self, times: Array) -> Array:
        """Returns the macro F1 (R,), NaN if no row has a label, for rows that occur `times` (R, N)."""
        return _mean(self.f1(times))

    def f1(self, times: Array) -> Array:
        """Returns the F1 (R, K) of each label, NaN if no row has it, for rows that occur `times` (R, N)."""
        hits, named, having = self._counts(times)
        return np.where(having > 0, _ratio(2 * hits, named + having), np.nan)

    def _counts(self, times: Array) -> tuple[Array, Array, Array]:
        """Returns, by label (R, K): rows that rightly get it, rows that get it, rows that have it."""
        return times @ self._hits, times @ self._named, times @ self._having


def average_precision(times: Array, probabilities: Array, y_true: Chosen) -> Array:
    """Returns the average precision (R,) of a label, NaN if no row has it, for rows (N,) that occur `times` (R, N).

    It is the mean, over the rows that have the label, of the precision among the rows that are at least as probable.
    """
    order = np.argsort(-probabilities, kind="stable")
    _, group = np.unique(-probabilities[order], return_inverse=True)  # 0 is the most probable
    drawn, ends = times[:, order], np.flatnonzero(np.diff(group, append=-1))  # (R, N), (P,)
    named = np.cumsum(drawn, axis=1)[:, ends]
    hits = np.cumsum(drawn * y_true[order], axis=1)[:, ends]
    new = np.diff(hits, axis=1, prepend=0)
    return _ratio((new * _ratio(hits, named, 0.0)).sum(axis=1), hits[:, -1])


def _ratio(above: Array, below: Array, otherwise: float = np.nan) -> Array:
    return np.asarray(np.divide(above, below, out=np.full(below.shape, otherwise), where=below > 0))


def _mean(values: Array) -> Array:
    """Returns the mean (R,) of the values (R, K) that are not NaN; NaN if all are."""
    there = ~np.isnan(values)
    return _ratio(np.where(there, values, 0.0).sum(axis=1), there.sum(axis=1).astype(np.float64))
