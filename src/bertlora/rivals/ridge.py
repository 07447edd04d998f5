"""Ridge regression of numbers, with its strength chosen by cross-validation; and the linear model of either task.

Letters: N rows, F features.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bertlora.confidence.probabilities import Array
from bertlora.rivals.regression import FOLDS, Regression, fit_regression

# alpha is one of these multiples of the mean squared length of a column, from the strongest regularisation on.
STRENGTHS = tuple(10.0 ** (half / 2) for half in range(6, -9, -1))
# The strongest ones hardly differ, so chance may raise the error for a step.
PATIENCE = 3


def fit_linear(features: Any, targets: Any, classes: int, strengths: Sequence[float], seed: int) -> Regression | None:
    """Fits softmax regression to classes (N,), or ridge regression to float64 numbers (N,); None if all are equal.

    Args:
        features: (N, F), dense or sparse.
        targets: (N,) classes or numbers.
        classes: number of classes.
        strengths: of softmax regression; see `fit_regression`. Those of ridge regression follow from the features.
        seed: the same seed gives the same folds.
    """
    if targets.dtype.kind == "f":
        return fit_ridge(features, targets, seed)
    return fit_regression(features, targets, classes, strengths, seed)


def fit_ridge(features: Any, targets: Array, seed: int) -> Regression | None:
    """Fits ridge regression (Hoerl and Kennard 1970). Returns None if all numbers are equal.

    Five folds choose alpha by the squared error of the held-out rows: from the strongest on, it is lowered until the
    error has not fallen for three times. With fewer than ten rows the middle one is taken.

    Returns:
        weight (1, F), bias (1,), alpha as `strength`, and as `loss` the mean squared error of the held-out rows.
    """
    if np.ptp(targets) == 0:
        return None
    alphas = [strength * _column_size(features) for strength in STRENGTHS]
    alpha, loss, worse = alphas[len(alphas) // 2], float("nan"), 0
    for tried, error in _out_of_fold(features, targets, alphas, seed):
        worse = worse + 1 if error >= loss else 0
        if worse == PATIENCE:
            break
        if not worse:
            alpha, loss = tried, error
    return fit_ridge_fixed(features, targets, alpha, loss)


def fit_ridge_fixed(features: Any, targets: Array, alpha: float, loss: float = float("nan")) -> Regression:
    """Fits ridge regression with a given alpha."""
    from sklearn.linear_model import Ridge

    # The products are small; see `regression`.
    with threadpool_limits(limits=1, user_api="blas"):
        fitted = Ridge(alpha=alpha).fit(features, targets)
    return Regression(fitted.coef_.reshape(1, -1), np.array([float(fitted.intercept_)]), alpha, loss)


def head_alpha(features: Array) -> float:
    """Returns an alpha that is strong enough for a direction, whatever the number of rows."""
    return 0.1 * _column_size(features)


def _column_size(features: Any) -> float:
    """Returns the mean squared length of a column."""
    squares = features.multiply(features).sum() if hasattr(features, "multiply") else (features**2).sum()
    return max(float(squares) / int(features.shape[1]), 1e-12)


def _out_of_fold(features: Any, targets: Array, alphas: Sequence[float], seed: int) -> Iterator[tuple[float, float]]:
    """Yields each alpha with the mean squared error of the held-out rows."""
    if len(targets) < 2 * FOLDS:
        return
    fold = np.random.default_rng(seed).permutation(len(targets)) % FOLDS
    for alpha in alphas:
        found = np.empty(len(targets))
        for k in range(FOLDS):
            fitted = fit_ridge_fixed(features[fold != k], targets[fold != k], alpha)
            found[fold == k] = fitted.logits(features[fold == k])[:, 0]
        yield alpha, float(np.mean((found - targets) ** 2))
