"""Which linear model a rival is: ridge regression for numbers, softmax regression for classes, and for many classes
ridge regression on indicators. Several labels have a regression each.

Letters: N rows, F features, K classes.
"""

from collections.abc import Sequence
from typing import Any

from bertlora.confidence.probabilities import Array
from bertlora.rivals.indicators import MANY_CLASSES, fit_indicators, fit_indicators_fixed
from bertlora.rivals.regression import (
    Regression,
    Weights,
    fit_fixed,
    fit_labels,
    fit_labels_fixed,
    fit_regression,
    fit_ridge,
    fit_ridge_fixed,
    head_alpha,
)

# C of the softmax regression that only gives the head its direction.
HEAD_STRENGTH = 0.1


def fit_linear(
    features: Any, targets: Any, classes: int, strengths: Sequence[float], seed: int, weights: Weights = None
) -> Regression | None:
    """Fits a linear model whose strength the training rows choose; None if all targets are equal.

    Args:
        features: (N, F), dense or sparse.
        targets: (N,) classes, (N, K) which labels a row has, or (N,) float64 numbers.
        classes: K.
        strengths: of softmax regression; see `fit_regression`. Those of ridge regression follow from the features.
        seed: the same seed gives the same folds.
        weights: (N,) how much each row counts in a fit; rows that a fold holds out count equally.
    """
    if targets.dtype.kind == "f":
        return fit_ridge(features, targets, seed, weights)
    if targets.ndim == 2:
        return fit_labels(features, targets, strengths, seed, weights)
    if classes > MANY_CLASSES:
        return fit_indicators(features, targets, classes, seed, weights)
    return fit_regression(features, targets, classes, strengths, seed, weights)


def refit(features: Any, y_true: Any, classes: int, strength: float) -> Regression:
    """Fits classes with the strength that `fit_linear` chose, without calibration."""
    if classes > MANY_CLASSES:
        return fit_indicators_fixed(features, y_true, classes, strength)
    return fit_fixed(features, y_true, classes, strength)


def fit_direction(features: Array, targets: Any, classes: int, weights: Weights = None) -> Array:
    """Returns the weights (K, F) of a linear model for any number of rows; only their direction counts."""
    if targets.dtype.kind == "f":
        return fit_ridge_fixed(features, targets, head_alpha(features), weights=weights).weight
    if targets.ndim == 2:
        return fit_labels_fixed(features, targets, HEAD_STRENGTH, weights)
    if classes > MANY_CLASSES:
        return fit_indicators_fixed(features, targets, classes, head_alpha(features), weights).weight
    return fit_fixed(features, targets, classes, HEAD_STRENGTH, weights).weight
