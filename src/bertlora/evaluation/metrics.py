"""Metrics of one classifier on labelled rows.

All is linear in the number of classes: scikit-learn's functions, called for each of 1,000, would take a minute.

Letters: N rows, K classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import logsumexp
from sklearn.metrics import classification_report

from bertlora.confidence.intervals import accuracy_interval
from bertlora.confidence.probabilities import Array, CalibrationError, Labels, brier_score, cross_entropy, softmax
from bertlora.evaluation.scores import SCORES, Confusion, leading_metric, score, score_interval

# With fewer classes, the right one is nearly always among the first.
FEWEST_CLASSES = 10
FIRST = (3, 5)


def classification_metrics(logits: Array, y_true: Labels, labels: Sequence[str]) -> dict[str, Any]:
    """Returns the metrics of one classifier, under the names of `evaluate --json`.

    Args:
        logits: (N, K), N at least 1; already divided by the temperature, if the run has one.
        y_true: (N,) the right classes.
        labels: names of the K classes.

    Returns:
        The metrics by name. `balanced_accuracy` is the mean recall over the classes that have rows; `macro_f1` and
        `weighted_f1` average over all K classes. `f1` is the F1 of the second of two classes, and None with more.
        `matthews` is 0 if it is not defined. `accuracy`, `macro_f1`, `balanced_accuracy`, `matthews` and `f1` have
        95 % confidence intervals, such as `macro_f1_ci95`. With 10 classes or more there are `top_3_accuracy` and
        `top_5_accuracy`: see `top_accuracies`. `roc_auc` and `average_precision` are None if a class has no rows: see
        `ranking_figures`. `loss`, `brier`, `ece`, its interval and its floor: see `probability_figures`. `confusion`,
        `top_confusions` and `other_confusions`: see `Confusion.figures`.

    Raises:
        InputError: there are no rows.
    """
    predicted = logits.argmax(axis=1)
    interval = accuracy_interval(predicted == y_true)
    # Classes go in by number, because a class may have the name of one of the report's own lines, such as "accuracy".
    report = report_of(predicted, y_true, [str(i) for i in range(len(labels))])
    confusion = Confusion.of(y_true, predicted, len(labels))
    ends = {name: list(score_interval(name, confusion)) for name in SCORES}
    return {
        "accuracy": float(np.mean(predicted == y_true)),
        "accuracy_ci95": list(interval),
        **top_accuracies(logits, y_true),
        "balanced_accuracy": score("balanced_accuracy", confusion),
        "balanced_accuracy_ci95": ends["balanced_accuracy"],
        "macro_f1": float(report["macro avg"]["f1-score"]),
        "macro_f1_ci95": ends["macro_f1"],
        "weighted_f1": float(report["weighted avg"]["f1-score"]),
        "matthews": score("matthews", confusion),
        "matthews_ci95": ends["matthews"],
        "f1": score("f1", confusion) if len(labels) == 2 else None,
        "f1_ci95": list(score_interval("f1", confusion)) if len(labels) == 2 else None,
        **ranking_figures(logits, y_true),
        **probability_figures(logits, y_true),
        "per_class": {
            label: {
                "precision": float(report[str(i)]["precision"]),
                "recall": float(report[str(i)]["recall"]),
                "f1": float(report[str(i)]["f1-score"]),
                "support": int(report[str(i)]["support"]),
            }
            for i, label in enumerate(labels)
        },
        **confusion.figures(labels),
    }


def probability_figures(logits: Array, y_true: Labels) -> dict[str, Any]:
    """Returns how good the probabilities of logits (N, K) are.

    Returns:
        `loss`, the log loss in nats; `brier`, in 0..2; and `ece`, its interval and its floor: see `CalibrationError`.
    """
    probabilities = softmax(logits)
    return {
        "loss": cross_entropy(logits, y_true),
        "brier": brier_score(probabilities, y_true),
        **CalibrationError.of(probabilities, y_true).figures(),
    }


def ranking_figures(logits: Array, y_true: Labels) -> dict[str, float | None]:
    """Returns `roc_auc` and `average_precision` of logits (N, K).

    For two classes they are those of the second class. For more classes they are the means over classes, each against
    the rest. They are None if a class has no rows. Both are as in scikit-learn.
    """
    classes = logits.shape[1]
    if len(np.unique(y_true)) < classes:
        return {"roc_auc": None, "average_precision": None}
    odds = all_log_odds(logits)
    ranked = [1] if classes == 2 else range(classes)
    areas, precisions = zip(*(_of_class(odds[:, k], y_true == k) for k in ranked), strict=True)
    # Rounding takes a perfect average precision a little above 1.
    return {
        "roc_auc": min(1.0, float(np.mean(areas))),
        "average_precision": min(1.0, float(np.mean(precisions))),
    }


def top_accuracies(logits: Array, y_true: Labels) -> dict[str, Any]:
    """Returns how often the right class is among the first 3, and among the first 5, with exact 95 % intervals.

    Of classes with the same logit, the one with the lower number comes first, as in a prediction.

    Returns:
        `top_3_accuracy`, `top_3_accuracy_ci95`, `top_5_accuracy` and `top_5_accuracy_ci95`; empty with fewer than 10
        classes.
    """
    classes = logits.shape[1]
    if classes < FEWEST_CLASSES:
        return {}
    own = logits[np.arange(len(y_true)), y_true][:, None]
    before = (logits == own) & (np.arange(classes) < y_true[:, None])
    place = ((logits > own) | before).sum(axis=1)
    found: dict[str, Any] = {}
    for first in FIRST:
        right = place < first
        found[f"top_{first}_accuracy"] = float(right.mean())
        found[f"top_{first}_accuracy_ci95"] = list(accuracy_interval(right))
    return found


def all_log_odds(logits: Array) -> Array:
    """Returns the log odds (N, K) of each class: they rank like the probability, but have no ties near 0 and 1."""
    rows, top = np.arange(len(logits)), logits.argmax(axis=1)
    shifted = logits - logits[rows, top][:, None]
    powers = np.exp(shifted)
    rest = powers.sum(axis=1, keepdims=True) - powers
    # 1 minus a probability near 1 would lose all digits, so the others of the highest class are summed without it.
    rest[rows, top] = 1.0
    odds = shifted - np.log(rest)
    shifted[rows, top] = -np.inf
    odds[rows, top] = -logsumexp(shifted, axis=1)
    return np.asarray(odds)


def _of_class(odds: Array, positive: Any) -> tuple[float, float]:
    """Returns the area under the ROC curve and the average precision of one class; ties count half, or together."""
    own, others = np.sort(odds[positive]), np.sort(odds[~positive])
    below = np.searchsorted(others, own, "left"), np.searchsorted(others, own, "right")
    area = float(np.mean(sum(below))) / 2 / len(others)
    own_above = len(own) - np.searchsorted(own, own, "left")
    return area, float(np.mean(own_above / (own_above + len(others) - below[0])))


def headline(name: str, logits: Array, y_true: Labels, rows_name: str = "rows") -> str:
    """Returns in one sentence how good a classifier is: by accuracy, or by macro F1 if the classes are imbalanced.

    Args:
        name: of the classifier.
        logits: (N, K), N at least 1.
        y_true: (N,) the right classes.
        rows_name: what the sentence calls the rows, such as `test reviews`.
    """
    predicted = logits.argmax(axis=1)
    right, rows = predicted == y_true, f"{len(y_true):,} {rows_name}"
    if leading_metric(y_true) == "accuracy":
        low, high = (100 * end for end in accuracy_interval(right))
        return f"{name} gets {100 * right.mean():.1f} % of {rows} right, 95 % CI {low:.1f} to {high:.1f}."
    confusion = Confusion.of(y_true, predicted, logits.shape[1])
    (low, high), value = score_interval("macro_f1", confusion), score("macro_f1", confusion)
    largest = 100 * np.bincount(y_true).max() / len(y_true)
    return (
        f"{name} has a macro F1 of {value:.3f} on {rows}, 95 % CI {low:.3f} to {high:.3f}. The classes are imbalanced: "
        f"it gets {100 * right.mean():.1f} % right, and always naming the largest class gets {largest:.1f} % right."
    )


def report_of(predicted: Labels, y_true: Labels, labels: Sequence[str]) -> dict[str, Any]:
    """Returns scikit-learn's classification report as a dict; the precision of a class that is never predicted is 0."""
    classes = range(len(labels))
    report: dict[str, Any] = classification_report(
        y_true, predicted, labels=classes, target_names=list(labels), output_dict=True, zero_division=0
    )
    return report
