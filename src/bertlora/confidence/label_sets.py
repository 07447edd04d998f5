"""An answer to uncertainty: a set of labels that contains the right one with a wanted probability (conformal sets).

The sets are chosen on validation rows. The guarantee holds for new rows from the same distribution (exchangeability).

Letters: N validation rows, B rows, K classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bertlora.confidence.abstention import check_rows, check_share, gaps_below, reached
from bertlora.confidence.probabilities import Array, Labels
from bertlora.data.labels import SHOWN


@dataclass(frozen=True)
class LabelSets:
    """From the probabilities of a text to its set of labels.

    Attributes:
        coverage: wanted probability that a set contains the right label, above 0, at most 1.
        per_class: whether this holds for the texts of each class, or only over all texts.
        floors: (K,) the lowest probability that puts each label into a set; 0: it is in every set.
        rows: (K,) number of validation rows that each floor was chosen on.
    """

    coverage: float
    per_class: bool
    floors: npt.NDArray[np.float64]
    rows: npt.NDArray[np.int64]

    @classmethod
    def of(cls, probabilities: Array, labels: Labels, coverage: float, per_class: bool = False) -> "LabelSets":
        """Chooses the floors on validation rows.

        Split conformal prediction with the score 1 - p of the right label: Sadinle, Lei and Wasserman 2019, "Least
        ambiguous set-valued classifiers with bounded error levels". The set of a new row contains the right label with
        a probability of at least `coverage`, over the draw of the validation rows and of the new row. Without
        `per_class` this holds on average over all rows; a rare class can be missed more often.

        With `per_class` each class has its own floor, chosen on its own rows. The coverage then holds for the new rows
        of each class: Vovk 2012, "Conditional validity of inductive conformal predictors".

        Args:
            probabilities: (N, K) of validation rows.
            labels: (N,) their right classes.
            coverage: wanted coverage, above 0, at most 1.
            per_class: whether the coverage must hold for each class.

        Raises:
            InputError: there are no rows, or the coverage is out of range.
        """
        check_share("sets", coverage)
        check_rows(labels)
        right, classes = probabilities[np.arange(len(labels)), labels], probabilities.shape[1]
        groups = [right[labels == k] for k in range(classes)] if per_class else [right] * classes
        floors = np.array([reached(group, coverage) for group in groups])
        return cls(coverage, per_class, floors, np.array([len(group) for group in groups], dtype=np.int64))

    def __call__(self, probabilities: Array) -> npt.NDArray[np.bool_]:
        """Returns which labels are in each row's set, (B, K), for probabilities (B, K).

        The most probable label is always in the set, so no set is empty. The coverage can therefore be higher than
        wanted.
        """
        sets: npt.NDArray[np.bool_] = probabilities >= self.floors
        sets[np.arange(len(sets)), probabilities.argmax(axis=1)] = True
        return sets

    def note(self, names: Sequence[str]) -> str:
        """Returns which labels are in every set, and why; empty if there are none. `names` are those of the classes."""
        short = [k for k, rows in enumerate(self.rows.tolist()) if not gaps_below(rows, self.coverage)]
        if not short:
            return ""
        share = f"{self.coverage:.4g}"
        if self.coverage == 1:
            return f"every set contains all labels: no smaller set is right with a probability of {share}"
        needed = rows_needed(self.coverage)
        if not self.per_class:
            return f"every set contains all labels: {share} needs {needed:,} validation rows, got {self.rows[0]:,}"
        listed = ", ".join(f"'{names[k]}' ({self.rows[k]:,})" for k in short[:SHOWN])
        more = f" and {len(short) - SHOWN:,} more" if len(short) > SHOWN else ""
        return f"labels in every set, because {share} needs {needed:,} validation rows of a class: {listed}{more}"


def rows_needed(coverage: float) -> int:
    """Returns the fewest validation rows with which a set can leave a label out: 1 / (1 - coverage) - 1, rounded up."""
    return math.ceil((coverage - 1e-9) / (1 - coverage))
