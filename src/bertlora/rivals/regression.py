"""Linear models with their strength chosen by cross-validation, and calibrated: softmax regression; see also `ridge`.

Both rivals are fitted by `fit_linear`: softmax regression to classes, one for each of several labels, ridge regression
to numbers and to many classes. A rival that is regularised badly, or that is not calibrated, would flatter LoRA.

Letters: N rows, F features, K classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from threadpoolctl import ThreadpoolController

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
# With more classes than this, ridge regression takes the place of softmax regression, which would take hours.
MANY_CLASSES = 100
# C of the softmax regression that only gives the head its direction.
HEAD_STRENGTH = 0.1


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
            fitted = _fitted(model, features[learned], y_true[learned], some(weights, learned))
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


def some(weights: Weights, rows: Labels) -> Weights:
    return None if weights is None else weights[rows]


def _fitted(model: Any, features: Any, y_true: Labels, weights: Weights) -> Any:
    with one_blas_thread():
        return model.fit(features, y_true, sample_weight=weights)


def one_blas_thread() -> AbstractContextManager[Any]:
    """Keeps BLAS to one thread; call it when scikit-learn is loaded, and so BLAS.

    The products are small. BLAS threads compete with torch's, and a fit would take six times as long.
    """
    limited: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return limited


@cache
def _libraries() -> ThreadpoolController:
    # Finding the libraries of a process takes longer than fitting some dozen rows.
    return ThreadpoolController()


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
    if targets.ndim == 2:
        return fit_labels(features, targets, strengths, seed, weights)
    if targets.dtype.kind == "f" or classes > MANY_CLASSES:
        from bertlora.rivals import ridge  # builds on this module

        if targets.dtype.kind == "f":
            return ridge.fit_ridge(features, targets, seed, weights)
        return ridge.fit_indicators(features, targets, classes, seed, weights)
    return fit_regression(features, targets, classes, strengths, seed, weights)


def refit(features: Any, y_true: Any, classes: int, strength: float) -> Regression:
    """Fits classes with the strength that `fit_linear` chose, without calibration."""
    if classes > MANY_CLASSES:
        from bertlora.rivals.ridge import fit_indicators_fixed  # builds on this module

        return fit_indicators_fixed(features, y_true, classes, strength)
    return fit_fixed(features, y_true, classes, strength)


def fit_direction(features: Array, targets: Any, classes: int, weights: Weights = None) -> Array:
    """Returns the weights (K, F) of a linear model for any number of rows; only their direction counts."""
    if targets.ndim == 2:
        return fit_labels_fixed(features, targets, HEAD_STRENGTH, weights)
    if targets.dtype.kind == "f" or classes > MANY_CLASSES:
        from bertlora.rivals import ridge  # builds on this module

        alpha = ridge.head_alpha(features)
        if targets.dtype.kind == "f":
            return ridge.fit_ridge_fixed(features, targets, alpha, weights=weights).weight
        return ridge.fit_indicators_fixed(features, targets, classes, alpha, weights).weight
    return fit_fixed(features, targets, classes, HEAD_STRENGTH, weights).weight
