"""How well logits rank the rows of a class above the other rows, and how often the right class is among the first.

All is linear in K: scikit-learn's functions, called for each of 1,000 classes, would take a minute.

Letters: N rows, K classes.
"""

from typing import Any

import numpy as np
from scipy.special import logsumexp

from bertlora.confidence.intervals import accuracy_interval
from bertlora.confidence.probabilities import Array, Labels

# With fewer classes, the right one is nearly always among the first.
FEWEST_CLASSES = 10
FIRST = (3, 5)


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
