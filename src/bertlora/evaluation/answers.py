"""From logits to what a run answers: calibrated probabilities, a label or none, and the labels that may be right."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bertlora.errors import InputError
from bertlora.model.predict import Array, softmax
from bertlora.run import Run

if TYPE_CHECKING:
    from bertlora.evaluation.abstention import Threshold

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """How a run answers.

    Attributes:
        labels: names of the K classes.
        temperature: by which logits are divided.
        threshold: the least confidence to give a label with; None always gives one.
        floor: the least probability of a label in the set of those that may be right; None gives no sets.
    """

    labels: list[str]
    temperature: float
    threshold: "Threshold | None" = None
    floor: float | None = None

    @classmethod
    def of(cls, run: Run, *, raw: bool = False, abstain: str = "", sets: float | None = None) -> "Answers":
        """Returns how `run` answers.

        Args:
            run: the run.
            raw: leave the temperature out.
            abstain: `accuracy=A` or `coverage=C`, what to choose the threshold for; empty gives every text a label.
            sets: the share of texts whose set must hold the right label.

        Raises:
            InputError: a value is out of its range, the run has no validation rows to choose by, or there are too few.
        """
        temperature = 1.0 if raw else run.adapted.temperature
        if not abstain and sets is None:
            return cls(run.manifest.labels, temperature)
        if raw:
            raise InputError("--raw leaves out the calibration that --abstain and --sets need; leave one out")
        if run.calibration is None:
            raise InputError(
                f"{run.path}: has no validation rows to choose by, which --abstain and --sets need; train with some"
            )
        # Not above: scipy's statistics take a while to import, and most predictions have no use for them.
        from bertlora.evaluation.abstention import check_share, label_floor

        judged, given = run.calibration.validation, run.calibration.labels
        threshold = _threshold(abstain, judged, given) if abstain else None
        floor = None if sets is None else label_floor(judged, given, check_share("--sets", sets))
        return cls(run.manifest.labels, temperature, threshold, floor)

    def __call__(self, logits: Array) -> list[dict[str, Any]]:
        """Returns for each row of logits (B, K) `label`, `confidence` and `probabilities`.

        With a threshold also `abstained`, and no label where it is true; with sets also `labels`, likeliest first.
        """
        probabilities = softmax(logits / self.temperature)
        lines = []
        for row in probabilities:
            best = int(row.argmax())
            named = {label: float(p) for label, p in zip(self.labels, row, strict=True)}
            lines.append({"label": self.labels[best], "confidence": float(row[best]), "probabilities": named})
        if self.threshold is not None:
            for line, answered in zip(lines, self.threshold.answers(probabilities), strict=True):
                line |= {"label": line["label"] if answered else None, "abstained": not answered}
        if self.floor is not None:
            from bertlora.evaluation.abstention import label_sets

            for line, row, held in zip(lines, probabilities, label_sets(probabilities, self.floor), strict=True):
                line["labels"] = [self.labels[k] for k in (-row).argsort(kind="stable") if held[k]]
        return lines


def _threshold(abstain: str, judged: Array, given: Labels) -> "Threshold":
    """Returns the threshold for `accuracy=A` or `coverage=C`, chosen on validation rows."""
    from bertlora.evaluation.abstention import (
        Threshold,
        check_share,
        threshold_for_accuracy,
        threshold_for_coverage,
    )

    choices: dict[str, Callable[[Array, Labels, float], Threshold]]
    choices = {"accuracy": threshold_for_accuracy, "coverage": threshold_for_coverage}
    kind, _, value = abstain.partition("=")
    try:
        choose, share = choices[kind], float(value)
    except (KeyError, ValueError):
        raise InputError(
            f"--abstain: got '{abstain}', expected accuracy=A or coverage=C with a share, such as accuracy=0.95"
        ) from None
    return choose(judged, given, check_share(f"--abstain {kind}", share))
