"""Figures of one classifier on labelled rows."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from sklearn.metrics import (
    average_precision_score,
    classification_report,
    confusion_matrix,
    matthews_corrcoef,
    recall_score,
    roc_auc_score,
)

from bertlora.evaluation.calibration import brier_score, calibration_error
from bertlora.evaluation.intervals import accuracy_interval
from bertlora.model.predict import Array, cross_entropy, softmax

Labels = npt.NDArray[np.int64]


def judge(logits: Array, given: Labels, labels: Sequence[str]) -> dict[str, Any]:
    """Returns the figures of `evaluate --json`: how often it is right, how well it ranks, how far it can be trusted.

    Args:
        logits: (N, K), N at least 1; divided by the temperature already, where the run has one.
        given: (N,) the right classes.
        labels: the names of the K classes.

    Returns:
        The figures under their names. Those of averages: `balanced_accuracy` is the mean recall of the classes that
        have rows, `macro_f1` and `weighted_f1` take all K. `matthews` is 0 where it is not defined. `roc_auc` and
        `average_precision` are None where a class has no rows; see `ranking`. `loss` is the log loss in nats, `brier`
        lies in 0..2. `confusion[i][j]` counts rows of class i predicted as j.

    Raises:
        InputError: there are no rows.
    """
    predicted, probabilities = logits.argmax(axis=1), softmax(logits)
    interval = accuracy_interval(predicted == given)
    # By number: a class may well be called "accuracy".
    report = report_of(predicted, given, [str(i) for i in range(len(labels))])
    one_class_alone = len(np.union1d(given, predicted)) == 1  # scikit-learn then warns
    return {
        "accuracy": float(np.mean(predicted == given)),
        "accuracy_ci95": list(interval),
        "balanced_accuracy": float(recall_score(given, predicted, labels=np.unique(given), average="macro")),
        "macro_f1": float(report["macro avg"]["f1-score"]),
        "weighted_f1": float(report["weighted avg"]["f1-score"]),
        "matthews": 0.0 if one_class_alone else float(matthews_corrcoef(given, predicted)),
        "roc_auc": ranking(roc_auc_score, logits, given),
        "average_precision": ranking(average_precision_score, logits, given),
        "loss": cross_entropy(logits, given),
        "brier": brier_score(probabilities, given),
        "ece": calibration_error(probabilities, given),
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


def ranking(score: Callable[..., float], logits: Array, given: Labels) -> float | None:
    """Returns how well the logits rank the rows of a class above the others.

    Args:
        score: scikit-learn's `roc_auc_score` or `average_precision_score`.
        logits: (N, K).
        given: (N,) the right classes.

    Returns:
        For two classes the score of the second; for more the mean of each class against the rest; None where a class
        has no rows.
    """
    classes = logits.shape[1]
    if len(np.unique(given)) < classes:
        return None
    ranked = [1] if classes == 2 else range(classes)
    return float(np.mean([score(given == k, _log_odds(logits, k)) for k in ranked]))


def _log_odds(logits: Array, k: int) -> Array:
    """Returns the log odds (N,) of class k: the order of its probability, without its ties near 0 and 1."""
    return np.asarray(logits[:, k] - logsumexp(np.delete(logits, k, axis=1), axis=1))
