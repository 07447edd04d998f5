"""What a training reports: the figures of the kept adapter, and sample texts before and after, for each task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertlora.confidence.agreement import agreement_figures
from bertlora.confidence.label_agreement import LabelAgreement
from bertlora.confidence.learned import Learned
from bertlora.confidence.probabilities import Array
from bertlora.confidence.spread import Spread
from bertlora.confidence.thresholds import Thresholds
from bertlora.data.reader import Examples
from bertlora.evaluation.metrics import classification_metrics
from bertlora.model.adapted import Adapted
from bertlora.run.loaded import Run
from bertlora.training.loop import Training


def training_metrics(training: Training) -> dict[str, Any]:
    """Returns the figures of a finished training; `validation` is the evaluation of the kept adapter."""
    history = training.progress.history
    best = max((e for e in history if e["best"]), key=lambda e: e["step"])
    learned, y_true = training.learned(), training.validation.labels
    validation = {key: best[key] for key in training.objective.figures}
    validation |= {"loss": best["validation_loss"], "epoch": best["epoch"]}
    if len(y_true):
        validation |= _with_intervals(learned, training.best_logits, y_true)
    return {"train": training.summary(), "validation": validation, "epochs": history}


def _with_intervals(learned: Learned, outputs: Array, y_true: npt.NDArray[Any]) -> dict[str, Any]:
    """Returns the figures of the validation rows with their intervals."""
    if isinstance(learned, Spread):
        return agreement_figures(learned.values.astype(np.float64), y_true)
    if isinstance(learned, Thresholds):
        return LabelAgreement(learned.chosen(outputs), learned.probabilities(outputs), y_true).with_intervals()
    figures: dict[str, Any] = classification_metrics(outputs, y_true, [str(k) for k in range(outputs.shape[1])])
    return {key: figures[key] for key in ("accuracy_ci95", "macro_f1", "matthews", "roc_auc")}


def leading_figure(run: Run, rows: Examples) -> tuple[str, float]:
    """Returns name and value of a run's main figure on rows, in the default precision of `evaluate`."""
    outputs, learned = run.adapted.logits(rows.inputs), run.calibration
    if isinstance(learned, Spread):
        return "RMSE", float(np.sqrt(np.mean((outputs[:, 0] - rows.labels) ** 2)))
    if isinstance(learned, Thresholds):
        return "macro F1", float(LabelAgreement(learned.chosen(outputs), outputs, rows.labels).figures["macro_f1"] or 0)
    return "accuracy", float(np.mean(outputs.argmax(axis=1) == rows.labels))


@dataclass(frozen=True)
class Samples:
    """Texts that are predicted before and after training."""

    texts: Sequence[str]
    before: Array

    @classmethod
    def of(cls, adapted: Adapted, texts: Sequence[str]) -> "Samples":
        """Predicts the texts with the base and its untrained head."""
        logits = adapted.logits(adapted.reader.read(texts), base=True) if texts else np.empty((0, 0))
        return cls(texts, logits)

    def after_training(self, adapted: Adapted, calibration: Learned) -> list[dict[str, Any]]:
        """Returns `text`, `before`, `after` and `confidence` for each text; only classes have a confidence."""
        if not self.texts:
            return []
        after = adapted.logits(adapted.reader.read(self.texts))
        if isinstance(calibration, Spread):
            return [
                {"text": text, "before": calibration.mean, "after": value, "confidence": None}
                for text, value in zip(self.texts, after[:, 0].tolist(), strict=True)
            ]
        if isinstance(calibration, Thresholds):
            both = zip(self.texts, self.before > 0, calibration.chosen(after), strict=True)
            return [
                {"text": text, "before": _named(adapted, b), "after": _named(adapted, a), "confidence": None}
                for text, b, a in both
            ]
        return [
            {
                "text": text,
                "before": adapted.labels[int(b.argmax())],
                "after": adapted.labels[int(a.argmax())],
                "confidence": float(a.max()),
            }
            for text, b, a in zip(self.texts, self.before, calibration.probabilities(after), strict=True)
        ]


def _named(adapted: Adapted, marks: npt.NDArray[np.bool_]) -> str:
    """Returns the names of some labels."""
    return ", ".join(label for label, mark in zip(adapted.labels, marks, strict=True) if mark)
