"""Linear models with their strength chosen by cross-validation: softmax regression, calibrated, and ridge regression.

Both rivals are fitted by them: softmax regression to classes, one for each of several labels, and ridge regression to
numbers. A rival that is regularised badly, or that is not calibrated, would flatter LoRA.

Letters: N rows, F features, K classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from threadpoolctl import threadpool_limits

from bertlora.confidence.calibration import Calibration
from bertlora.confidence.probabilities import Array, Labels, cross_entropy
from bertlora.confidence.thresholds import choose_thresholds
from bertlora.data.label_sets import Marks

# Of N rows; None if all count equally.
Weights = Array | None

FOLDS = 5
MAX_ITERATIONS = 1000
# Of a linear probe in a run of an earlier version.
OLD_STRENGTH = 0.1
# The logit of a class that has no training row.
NEVER = -1e9
# Of ridge regression: alpha is one of these multiples of the mean squared length of a column, the strongest first.
ALPHAS = tuple(10.0 ** (half / 2) for half in range(6, -9, -1))
# The strongest ones hardly differ, so chance may raise the error for a step.
PATIENCE = 3


@dataclass(frozen=True)
class Regression:
    """A fitted softmax regression; or ridge regression, with one output and alpha as its strength.

    Attributes:
        weight: (K, F) float64.
        bias: (K,) float64.
        strength: scikit-learn's C; the smaller, the stronger the regularisation. Of several labels the median.
        loss: mean log loss, in nats, of the rows that a fold held out, calibrated; NaN without cross-validation.
        thresholds: (K,) the probability, 0..1, from which on a text has a label; None if it has one class.
    """

    weight: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    strength: float
    loss: float
    thresholds: Array | None = None

    @classmethod
    def of(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> "Regression":
        """Returns the regression that `tensors` gave."""
        # Runs of earlier versions have only weight and bias.
        strength, loss = tensors.get("strength", np.array([OLD_STRENGTH, np.nan])).tolist()
        return cls(tensors["weight"].astype(np.float64), tensors["bias"], strength, loss, tensors.get("thresholds"))

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Returns it as tensors, to save them."""
        found = {"weight": self.weight, "bias": self.bias, "strength": np.array([self.strength, self.loss])}
        return found if self.thresholds is None else found | {"thresholds": self.thresholds}

    def logits(self, features: Any) -> Array:
        """Returns calibrated logits (B, K) for features (B, F), dense or sparse."""
        return np.asarray(features @ self.weight.T + self.bias)


def fit_regression(
    features: Any, y_true: Labels, classes: int, strengths: Sequence[float], seed: int, weights: Weights = None
) -> Regression | None:
    """Fits softmax regression. Returns None if there is a single class.

    Five folds choose C: from the smallest on, C is raised as long as the log loss of the held-out rows falls. The same
    rows give the temperature, so no validation row is used. If no class has two rows, the middle C is taken.

    Args:
        features: (N, F), dense or sparse.
        y_true: (N,) class of each row, 0..K-1.
        classes: K.
        strengths: values of C, ascending.
        seed: the same seed gives the same folds.
        weights: (N,) how much each row counts in a fit; held-out rows count equally.
    """
    if len(np.unique(y_true)) < 2:
        return None
    return _cross_validated(features, y_true, classes, strengths, seed, weights)[0]


def fit_labels(
    features: Any, y_true: Marks, strengths: Sequence[float], seed: int, weights: Weights = None
) -> Regression | None:
    """Fits a regression for each label, as `fit_regression` does for two classes: has a row the label or not?

    The rows that the folds held out also choose the thresholds. A label that no row has, or every row, has its share of
    the rows as its probability. Returns None if there is no other label.

    Args:
        features: (N, F), dense or sparse.
        y_true: (N, K) which labels each row has.
        strengths: values of C, ascending.
        seed: the same seed gives the same folds.
        weights: (N,) how much each row counts in a fit; held-out rows count equally.
    """
    rows, labels = y_true.shape
    weight, bias = np.zeros((labels, features.shape[1])), np.zeros(labels)
    held_out = np.full((rows, labels), np.nan)
    found = []
    for k in range(labels):
        has = y_true[:, k].astype(np.int64)
        if len(np.unique(has)) < 2:
            bias[k] = np.log((has.sum() + 1) / (rows - has.sum() + 1))
            continue
        fitted, logits = _cross_validated(features, has, 2, strengths, seed, weights)
        weight[k], bias[k] = fitted.weight[1] - fitted.weight[0], fitted.bias[1] - fitted.bias[0]
        held_out[:, k] = logits[:, 1] - logits[:, 0]
        found.append(fitted)
    if not found:
        return None
    known = np.isfinite(held_out).all(axis=1)
    thresholds = choose_thresholds(expit(held_out[known]), y_true[known])
    strength = float(np.median([one.strength for one in found]))
    return Regression(weight, bias, strength, float(np.nanmean([one.loss for one in found])), thresholds)


def fit_labels_fixed(
    features: Array, y_true: Marks, strength: float, weights: Weights = None
) -> npt.NDArray[np.float64]:
    """Returns the weights (K, F) of a regression for each label with a given C; 0 for a label of no or every row."""
    weight = np.zeros((y_true.shape[1], features.shape[1]))
    for k in np.flatnonzero(y_true.any(axis=0) & ~y_true.all(axis=0)):
        fitted = fit_fixed(features, y_true[:, k].astype(np.int64), 2, strength, weights)
        weight[k] = fitted.weight[1] - fitted.weight[0]
    return weight


def _cross_validated(
    features: Any, y_true: Labels, classes: int, strengths: Sequence[float], seed: int, weights: Weights
) -> tuple[Regression, Array]:
    """Returns the regression, and the calibrated logits (N, K) of the held-out rows; NaN for rows without any."""
    strength, temperature, loss = strengths[len(strengths) // 2], 1.0, float("nan")
    held_out = np.full((len(y_true), classes), np.nan)
    for c, logits, known in _out_of_fold(features, y_true, classes, strengths, seed, weights):
        calibration = Calibration.fit(logits[known], y_true[known])
        scaled = calibration.scaled(logits[known])
        found = cross_entropy(scaled, y_true[known])
        if found >= loss:
            break
        strength, temperature, loss = c, calibration.temperature, found
        held_out[known] = scaled
    fitted = fit_fixed(features, y_true, classes, strength, weights)
    return Regression(fitted.weight / temperature, fitted.bias / temperature, strength, loss), held_out


def fit_fixed(features: Any, y_true: Labels, classes: int, strength: float, weights: Weights = None) -> Regression:
    """Fits softmax regression with a given C, without calibration. There are two classes or more."""
    weight, bias = _coefficients(_fitted(_regression(strength), features, y_true, weights), classes)
    return Regression(weight, bias, strength, float("nan"))


def _out_of_fold(
    features: Any, y_true: Labels, classes: int, strengths: Sequence[float], seed: int, weights: Weights
) -> Iterator[tuple[float, Array, npt.NDArray[np.bool_]]]:
    """Yields each C with the held-out rows' logits (N, K), and which rows have a class that their fold has learned."""
    fold = deal(y_true, seed)
    parts = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(FOLDS)]
    parts = [part for part in parts if len(np.unique(y_true[part[0]])) > 1 and len(part[1])]
    known = np.zeros(len(y_true), np.bool_)
    for learned, held_out in parts:
        known[held_out] = np.isin(y_true[held_out], y_true[learned])
    if not known.any():
        return
    # Each fold goes on from its last solution, which a slightly larger C changes little.
    models = [_regression(strengths[0], warm_start=True) for _ in parts]
    logits = np.zeros((len(y_true), classes))
    for strength in strengths:
        for model, (learned, held_out) in zip(models, parts, strict=True):
            model.C = strength
            fitted = _fitted(model, features[learned], y_true[learned], _some(weights, learned))
            weight, bias = _coefficients(fitted, classes)
            logits[held_out] = features[held_out] @ weight.T + bias
        yield strength, logits, known


def deal(y_true: Labels, seed: int) -> Labels:
    """Returns the fold of each row, (N,); each class is dealt evenly."""
    order = np.random.default_rng(seed).permutation(len(y_true))
    order = order[np.argsort(y_true[order], kind="stable")]
    fold = np.empty(len(y_true), np.int64)
    fold[order] = np.arange(len(y_true)) % FOLDS
    return fold


def _regression(strength: float, warm_start: bool = False) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=MAX_ITERATIONS, warm_start=warm_start)


def _some(weights: Weights, rows: Labels) -> Weights:
    return None if weights is None else weights[rows]


def _fitted(model: Any, features: Any, y_true: Labels, weights: Weights) -> Any:
    # The products are small. BLAS threads compete with torch's, and the fit would take six times as long.
    with threadpool_limits(limits=1, user_api="blas"):
        return model.fit(features, y_true, sample_weight=weights)


def _coefficients(fitted: Any, classes: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns weight (K, F) and bias (K,), with one row for each of K classes, seen or not."""
    coefficients, intercepts = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:  # scikit-learn keeps the second class's row only
        coefficients = np.vstack([-coefficients, coefficients]) / 2
        intercepts = np.hstack([-intercepts, intercepts]) / 2
    weight: npt.NDArray[np.float64] = np.zeros((classes, coefficients.shape[1]))
    bias: npt.NDArray[np.float64] = np.full(classes, NEVER)
    weight[fitted.classes_], bias[fitted.classes_] = coefficients, intercepts
    return weight, bias


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

    # As in `_fitted`.
    with threadpool_limits(limits=1, user_api="blas"):
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
            fitted = fit_ridge_fixed(features[learned], targets[learned], alpha, weights=_some(weights, learned))
            found[fold == k] = fitted.logits(features[fold == k])[:, 0]
        yield alpha, float(np.mean((found - targets) ** 2))
