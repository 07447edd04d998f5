"""What to say if a run has met the rows on which it is evaluated."""

from dataclasses import dataclass

import numpy as np

from bertlora.run.manifest import Hashes, Seen
from bertlora.task import CLASSIFICATION, MULTILABEL, REGRESSION

UNKNOWN = "It is not known which texts the run was trained on; check that these rows are not among them."
TRAIN = "The run was trained on these rows, so the figures do not apply to new texts."
VALIDATION = "The {chosen} were chosen on these rows, so the figures are slightly too good."
# What the validation rows choose.
CHOSEN = {
    CLASSIFICATION: "epoch and the temperature",
    REGRESSION: "epoch and the intervals",
    MULTILABEL: "epoch, the temperatures and the thresholds",
}


@dataclass(frozen=True)
class Met:
    """How far a run has met N rows, by the hashes of their texts.

    Attributes:
        rows: N.
        trained: rows whose text is one of the training texts; None if it is not known.
        validated: rows whose text is only among the validation texts; None if it is not known.
        task: of the run.
    """

    rows: int
    trained: int | None
    validated: int | None
    task: str = CLASSIFICATION

    @classmethod
    def of(cls, found: Hashes, seen: Seen | None, task: str = CLASSIFICATION) -> "Met":
        """Compares the rows' hashes, (N,), with those of a run."""
        if seen is None:
            return cls(len(found), None, None, task)
        trained = np.isin(found, seen.train)
        return cls(len(found), int(trained.sum()), int((np.isin(found, seen.validation) & ~trained).sum()), task)

    @property
    def split(self) -> str:
        """`train` or `validation` if all rows are known from that split; otherwise empty."""
        return {self.trained: "train", self.validated: "validation"}.get(self.rows, "")

    @property
    def caution(self) -> str:
        """A sentence for people; empty if the run has met none of the rows."""
        if self.trained is None or self.validated is None:
            return UNKNOWN
        if self.split:
            return TRAIN if self.split == "train" else VALIDATION.format(chosen=CHOSEN[self.task])
        parts = [
            f"{count:,} of {self.rows:,} rows ({count / self.rows:.1%}) are {what}"
            for count, what in (
                (self.trained, "texts on which the run was trained"),
                (self.validated, f"texts on which the {CHOSEN[self.task]} were chosen"),
            )
            if count
        ]
        return f"{'; '.join(parts)}. So the figures are too good." if parts else ""
