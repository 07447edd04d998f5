"""How well the labels of texts agree with the true ones, if a text may have several: F1, subset accuracy, precision.

Letters: N rows, K labels, R resamples, P distinct probabilities.
"""

import numpy as np
import numpy.typing as npt

from bertlora.confidence.agreement import RESAMPLES, Resampled
from bertlora.confidence.probabilities import Array

FIGURES = ("macro_f1", "micro_f1", "subset_accuracy", "average_precision")
FIGURE_NAMES = {
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "subset_accuracy": "subset accuracy",
    "average_precision": "average precision",
}
Chosen = npt.NDArray[np.bool_]
Drawn = npt.NDArray[np.float32]
# With more than 200,000 decisions (N K) there are fewer resamples: their product is at most this.
WORK, FEWEST_RESAMPLES = 400_000_000, 500


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
        super().__init__(len(y_true), int(np.clip(WORK // max(y_true.size, 1), FEWEST_RESAMPLES, RESAMPLES)))
        self._probabilities, self._true = probabilities, np.asarray(y_true, dtype=np.bool_)
        self._hits, self._named, self._having = (
            found.astype(np.float32) for found in (chosen & self._true, chosen, self._true)
        )
        self._right = (chosen == self._true).all(axis=1).astype(np.float64)

    def of(self, times: Array) -> dict[str, Array]:
        """Returns each figure (R,), NaN if it is not defined, for rows that occur `times` (R, N)."""
        hits, named, having = self._counts(times)
        columns, drawn = (
            zip(self._probabilities.T, self._true.T, strict=True),
            np.ascontiguousarray(times.T, np.float32),
        )
        precisions = [average_precision(drawn, p, y) for p, y in columns]
        return {
            "macro_f1": _mean(_f1(hits, named, having)),
            "micro_f1": _ratio(2 * hits.sum(axis=1), (named + having).sum(axis=1)),
            "subset_accuracy": times @ self._right / times.sum(axis=1),
            "average_precision": _mean(np.stack(precisions, axis=1)),
        }

    def macro_f1(self, times: Array) -> Array:
        """Returns the macro F1 (R,), NaN if no row has a label, for rows that occur `times` (R, N)."""
        return _mean(_f1(*self._counts(times)))

    def _counts(self, times: Array) -> tuple[Array, Array, Array]:
        """Returns, by label (R, K): rows that rightly get it, rows that get it, rows that have it."""
        drawn = times.astype(np.float32)  # faster, and exact for counts
        hits, named, having = ((drawn @ part).astype(np.float64) for part in (self._hits, self._named, self._having))
        return hits, named, having


def average_precision(drawn: Drawn, probabilities: Array, y_true: Chosen) -> Array:
    """Returns the average precision (R,) of a label, NaN if no row has it, for rows (N,) that are `drawn` (N, R) times.

    It is the mean, over the rows that have the label, of the precision among the rows that are at least as probable.
    """
    having = np.unique(probabilities[y_true])[::-1]  # (P,)
    if not len(having):
        return np.full(drawn.shape[1], np.nan)
    # Rows between two probabilities of `having` count alike, so they are added up first.
    place = np.searchsorted(-having, -probabilities)
    new = _added(drawn, place, y_true, len(having))
    named = np.cumsum(_added(drawn, place, place < len(having), len(having)), axis=0)
    hits = np.cumsum(new, axis=0)
    return _ratio((new * _ratio(hits, named, 0.0)).sum(axis=0), hits[-1])


def _added(drawn: Drawn, place: npt.NDArray[np.int64], rows: Chosen, places: int) -> Array:
    """Returns the sums (P, R) of those of the `rows` (N,) of `drawn` (N, R) that have each `place` (N,)."""
    from scipy.sparse import csr_array  # scipy takes a second to import, and predictions do not need it

    ones = np.ones(int(rows.sum()), np.float32)
    return np.asarray(csr_array((ones, (place[rows], np.flatnonzero(rows))), (places, len(place))) @ drawn, np.float64)


def _f1(hits: Array, named: Array, having: Array) -> Array:
    """Returns the F1 (R, K) of each label, NaN if no row has it."""
    return np.where(having > 0, _ratio(2 * hits, named + having), np.nan)


def _ratio(above: Array, below: Array, otherwise: float = np.nan) -> Array:
    return np.asarray(np.divide(above, below, out=np.full(below.shape, otherwise), where=below > 0))


def _mean(values: Array) -> Array:
    """Returns the mean (R,) of the values (R, K) that are not NaN; NaN if all are."""
    there = ~np.isnan(values)
    return _ratio(np.where(there, values, 0.0).sum(axis=1), there.sum(axis=1).astype(np.float64))
