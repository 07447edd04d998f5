"""Figures of one classifier on labelled rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import classification_report, confusion_matrix

from bertlora.evaluation.comparison import RESAMPLES
from bertlora.model.predict import Array, cross_entropy, softmax

Labels = npt.NDArray[np.int64]

BINS = 15


def judge(logits: Array, given: Labels, labels: Sequence[str]) -> dict[str, Any]:
    """Returns accuracy with its interval, macro F1, loss, calibration error, figures per class, confusion matrix.

    Args:
        logits: (N, K).
        given: (N,) the right classes.
        labels: the names of the K classes.

    Returns:
        The figures under the names of `evaluate --json`. `confusion[i][j]` counts rows of class i predicted as j.
    """
    predicted = logits.argmax(axis=1)
    # By number: a class may well be called "accuracy".
    report = report_of(predicted, given, [str(i) for i in range(len(labels))])
    return {
        "accuracy": float(np.mean(predicted == given)),
        "accuracy_ci95": list(accuracy_interval(predicted == given)),
        "macro_f1": float(report["macro avg"]["f1-score"]),
        "loss": cross_entropy(logits, given),
        "ece": calibration_error(softmax(logits), given),
        "per_class": {
            label: {
                "precision": float(report[str(i)]["precision"]),
                "recall": float(report[str(i)]["recall"]),
                "f1": float(report[str(i)]["f1-score"]),
                "support": int(report[str(i)]["support"]),
            }
            for i, label in enumerate(labels)
        },
        "confusion": confusion_matrix(given, predicted, labels=range(len(labels))).tolist(),
    }


def report_of(predicted: Labels, given: Labels, labels: Sequence[str]) -> dict[str, Any]:
    """Returns scikit-learn's classification report as a table; a class never predicted has precision 0."""
    classes = range(len(labels))
    report: dict[str, Any] = classification_report(
        given, predicted, labels=classes, target_names=list(labels), output_dict=True, zero_division=0
    )
    return report


def accuracy_interval(right: npt.NDArray[np.bool_], resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of an accuracy: percentiles over resampled rows.

    Drawing N rows with replacement of which a share p is right is a binomial draw, so no rows need be drawn.
    """
    rows = len(right)
    shares = np.random.default_rng(seed).binomial(rows, right.mean(), size=resamples) / rows
    low, high = np.percentile(shares, [2.5, 97.5])
    return float(low), float(high)


def calibration_error(probabilities: Array, given: Labels, bins: int = BINS) -> float:
    """Returns the expected calibration error: |accuracy - confidence| over bins of confidence, weighted by their rows.

    After Guo et al. 2017, "On Calibration of Modern Neural Networks"; equal-width bins.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == given
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(right[place == b].mean() - confidence[place == b].mean()) * (place == b).mean() for b in np.unique(place)
    ]
    return float(sum(gaps))
