"""Ridge regression: a linear model of numbers, and of many classes in seconds, where softmax regression takes hours.

For classes it is fitted to indicators: each class has a target that is 1 in its rows and 0 in all others (Hastie,
Tibshirani and Friedman 2009, "The Elements of Statistical Learning", 4.2; scikit-learn's `RidgeClassifier`). One
decomposition serves all classes.

Letters: N rows, F features, K classes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bertlora.confidence.calibration import Calibration
from bertlora.confidence.probabilities import Array, Labels, cross_entropy
from bertlora.rivals.regression import FOLDS, NEVER, Regression, Weights, deal, one_blas_thread, some

# Alpha is one of these multiples of the mean squared length of a column, the strongest first: for numbers, for classes.
ALPHAS, CLASS_ALPHAS = tuple(10.0 ** (half / 2) for half in range(6, -9, -1)), (10.0, 1.0, 0.1)
# The strongest ones hardly differ, so chance may raise the error for a step.
PATIENCE = 3
# Of the solution for sparse features: more digits change no class.
TOLERANCE = 1e-3


def fit_indicators(
    features: Any, y_true: Labels, classes: int, seed: int, weights: Weights = None
) -> Regression | None:
    """Fits ridge regression on indicators, calibrated. Returns None if there is a single class.

    A fifth of the rows chooses alpha by its log loss, and gives the temperature.

    Args:
        features: (N, F), dense or sparse.
        y_true: (N,) class of each row, 0..K-1.
        classes: K.
        seed: the same seed gives the same fifth.
        weights: (N,) how much each row counts in a fit.

    Returns:
        weight (K, F), bias (K,), alpha as `strength`, and as `loss` the mean log loss of the fifth.
    """
    if len(np.unique(y_true)) < 2:
        return None
    alphas = [multiple * column_size(features) for multiple in CLASS_ALPHAS]
    alpha, scale, loss = alphas[1], 1.0, float("nan")
    held = deal(y_true, seed) == 0  # of each class about a fifth
    learned, known = np.flatnonzero(~held), np.flatnonzero(held & np.isin(y_true, y_true[~held]))
    some = None if weights is None else weights[learned]
    for tried in alphas if len(known) else ():
        logits = fit_indicators_fixed(features[learned], y_true[learned], classes, tried, some).logits(features[known])
        # With many classes all values are near 0, and the temperature of such logits would be out of its range.
        size = float(logits[:, np.unique(y_true[learned])].std())
        calibration = Calibration.fit(logits / size, y_true[known])
        found = cross_entropy(calibration.scaled(logits / size), y_true[known])
        if found >= loss:
            break
        alpha, scale, loss = tried, size * calibration.temperature, found
    fitted = fit_indicators_fixed(features, y_true, classes, alpha, weights)
    return Regression(fitted.weight / scale, fitted.bias / scale, alpha, loss)


def fit_indicators_fixed(
    features: Any, y_true: Labels, classes: int, alpha: float, weights: Weights = None
) -> Regression:
    """Fits ridge regression on indicators with a given alpha, without calibration."""
    from sklearn.linear_model import Ridge

    present = np.unique(y_true)
    indicators = (y_true[:, None] == present).astype(np.float64)
    with one_blas_thread():
        fitted = Ridge(alpha=alpha, tol=TOLERANCE).fit(features, indicators, sample_weight=weights)
    weight, bias = np.zeros((classes, features.shape[1])), np.full(classes, NEVER)
    weight[present], bias[present] = fitted.coef_, fitted.intercept_
    return Regression(weight, bias, alpha, float("nan"))


def fit_ridge(features: Any, targets: Array, seed: int, weights: Weights = None) -> Regression | None:
    """Fits ridge regression (Hoerl and Kennard 1970). Returns None if all numbers are equal.

    Five folds choose alpha by the squared error of the held-out rows: from the strongest on, it is lowered until the
    error has not fallen for three times. With fewer than ten rows the middle one is taken.

    Returns:
        weight (1, F), bias (1,), alpha as `strength`, and as `loss` the mean squared error of the held-out rows.
    """
    if np.ptp(targets) == 0:
        return None
    alphas = [strength * column_size(features) for strength in ALPHAS]
    alpha, loss, worse = alphas[len(alphas) // 2], float("nan"), 0
    for tried, error in _ridge_out_of_fold(features, targets, alphas, seed, weights):
        worse = worse + 1 if error >= loss else 0
        if worse == PATIENCE:
            break
        if not worse:
            alpha, loss = tried, error
    return fit_ridge_fixed(features, targets, alpha, loss, weights)


def fit_ridge_fixed(
    features: Any, targets: Array, alpha: float, loss: float = float("nan"), weights: Weights = None
) -> Regression:
    """Fits ridge regression with a given alpha."""
    from sklearn.linear_model import Ridge

    with one_blas_thread():
        fitted = Ridge(alpha=alpha).fit(features, targets, sample_weight=weights)
    return Regression(fitted.coef_.reshape(1, -1), np.array([float(fitted.intercept_)]), alpha, loss)


def head_alpha(features: Array) -> float:
    """Returns an alpha that is strong enough for a direction, whatever the number of rows."""
    return 0.1 * column_size(features)


def column_size(features: Any) -> float:
    """Returns the mean squared length of a column."""
    squares = features.multiply(features).sum() if hasattr(features, "multiply") else (features**2).sum()
    return max(float(squares) / int(features.shape[1]), 1e-12)


def _ridge_out_of_fold(
    features: Any, targets: Array, alphas: Sequence[float], seed: int, weights: Weights
) -> Iterator[tuple[float, float]]:
    """Yields each alpha with the mean squared error of the held-out rows."""
    if len(targets) < 2 * FOLDS:
        return
    fold = np.random.default_rng(seed).permutation(len(targets)) % FOLDS
    for alpha in alphas:
        found = np.empty(len(targets))
        for k in range(FOLDS):
            learned = np.flatnonzero(fold != k)
            fitted = fit_ridge_fixed(features[learned], targets[learned], alpha, weights=some(weights, learned))
            found[fold == k] = fitted.logits(features[fold == k])[:, 0]
        yield alpha, float(np.mean((found - targets) ** 2))
