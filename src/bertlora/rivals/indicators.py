"""Ridge regression on indicators: a linear model of many classes in seconds, where softmax regression takes hours.

Each class has a target that is 1 in its rows and 0 in all others (Hastie, Tibshirani and Friedman 2009, "The Elements
of Statistical Learning", 4.2; scikit-learn's `RidgeClassifier`). One decomposition serves all classes.

Letters: N rows, F features, K classes.
"""

from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bertlora.confidence.calibration import Calibration
from bertlora.confidence.probabilities import Labels, cross_entropy
from bertlora.rivals.regression import NEVER, Regression, Weights, column_size, deal

# With more classes than this, a rival is fitted by this module.
MANY_CLASSES = 100
# Alpha is one of these multiples of the mean squared length of a column, the strongest first.
ALPHAS = (10.0, 1.0, 0.1)
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
    alphas = [multiple * column_size(features) for multiple in ALPHAS]
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
    # As in `regression`: small products gain nothing from BLAS threads.
    with threadpool_limits(limits=1, user_api="blas"):
        fitted = Ridge(alpha=alpha, tol=TOLERANCE).fit(features, indicators, sample_weight=weights)
    weight, bias = np.zeros((classes, features.shape[1])), np.full(classes, NEVER)
    weight[present], bias[present] = fitted.coef_, fitted.intercept_
    return Regression(weight, bias, alpha, float("nan"))
