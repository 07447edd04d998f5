"""From logits to predictions: label, confidence, probabilities; on request no label, or a set of labels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertlora.confidence.calibration import Calibration
from bertlora.confidence.probabilities import Array, Labels, softmax
from bertlora.errors import InputError

if TYPE_CHECKING:
    from bertlora.confidence.abstention import Threshold
    from bertlora.confidence.label_sets import LabelSets


@dataclass(frozen=True)
class Predictions:
    """How logits become predictions.

    Attributes:
        labels: names of the K classes.
        probabilities: turns logits (B, K) into probabilities (B, K).
        threshold: the lowest confidence with which a label is given. None always gives a label.
        sets: which labels the set of a text contains. None gives no sets.
    """

    labels: list[str]
    probabilities: Callable[[Array], Array]
    threshold: "Threshold | None" = None
    sets: "LabelSets | None" = None

    @classmethod
    def of(
        cls,
        labels: list[str],
        calibration: Calibration,
        *,
        raw: bool = False,
        abstain: str = "",
        sets: float | None = None,
        per_class: bool = False,
    ) -> "Predictions":
        """Returns the predictions of a run.

        Args:
            labels: names of the K classes.
            calibration: of the run. Thresholds are chosen on its validation rows.
            raw: do not use the temperature.
            abstain: `accuracy=A` or `coverage=C`: what the threshold is chosen for. Empty gives every text a label.
            sets: the share of texts, 0..1, whose label set must contain the right label. None gives no sets.
            per_class: this share must hold for the texts of each class, not only over all texts; needs `sets`.

        Raises:
            InputError: a value is out of its range, or there are no or too few validation rows to choose on.
        """
        if per_class and sets is None:
            raise InputError("per_class is for label sets; give sets too, such as 0.9")
        if not abstain and sets is None:
            return cls(labels, softmax if raw else calibration.probabilities)
        if raw:
            raise InputError("raw probabilities are not calibrated, which abstain and sets need; leave one out")
        if not calibration.rows:
            raise InputError("abstain and sets are chosen on validation rows, and the run has none; train with some")
        # Not at the top: scipy.stats takes a while to import, and most predictions do not need it.
        from bertlora.confidence.label_sets import LabelSets

        validation, y_true = calibration.validation, calibration.y_true
        threshold = _threshold(abstain, validation, y_true) if abstain else None
        chosen = LabelSets.of(validation, y_true, sets, per_class) if sets is not None else None
        return cls(labels, calibration.probabilities, threshold, chosen)

    @property
    def notes(self) -> list[str]:
        """What people should know about the threshold and the sets, in sentences."""
        threshold = "" if self.threshold is None else self.threshold.note
        sets = "" if self.sets is None else self.sets.note(self.labels)
        return [note for note in (threshold, sets) if note]

    def __call__(self, logits: Array) -> list[dict[str, Any]]:
        """Returns `label`, `confidence` and `probabilities` for each row of logits (B, K).

        With a threshold also `abstained`; the label is then None if it is true. With sets also `labels`, the most
        probable first.
        """
        probabilities = self.probabilities(logits)
        lines = []
        for row in probabilities:
            best = int(row.argmax())
            named = {label: float(p) for label, p in zip(self.labels, row, strict=True)}
            lines.append({"label": self.labels[best], "confidence": float(row[best]), "probabilities": named})
        if self.threshold is not None:
            for line, confident in zip(lines, self.threshold.answers(probabilities), strict=True):
                line |= {"label": line["label"] if confident else None, "abstained": not confident}
        if self.sets is not None:
            for line, row, held in zip(lines, probabilities, self.sets(probabilities), strict=True):
                line["labels"] = [self.labels[k] for k in (-row).argsort(kind="stable") if held[k]]
        return lines


def _threshold(abstain: str, probabilities: Array, y_true: Labels) -> "Threshold":
    """Returns the threshold for `accuracy=A` or `coverage=C`, chosen on validation rows."""
    from bertlora.confidence.abstention import (
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
            f"abstain: got '{abstain}', expected accuracy=A or coverage=C with a share, such as accuracy=0.95"
        ) from None
    return choose(probabilities, y_true, check_share(f"abstain {kind}", share))
