"""Ridge regression on indicators, which takes the place of softmax regression for many classes."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.linear_model import RidgeClassifier

from bertlora.confidence.probabilities import cross_entropy, softmax
from bertlora.rivals.regression import MANY_CLASSES, fit_direction, fit_linear, refit
from bertlora.rivals.ridge import fit_indicators, fit_indicators_fixed

CLASSES = MANY_CLASSES + 20


def rows_of(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 40) around a centre for each of 120 classes, and the classes."""
    random = np.random.default_rng(seed)
    y_true = random.permutation(np.arange(rows) % CLASSES)
    centres = np.random.default_rng(0).normal(size=(CLASSES, 40))
    return centres[y_true] + 1.2 * random.normal(size=(rows, 40)), y_true


def test_it_predicts_as_scikit_learns_ridge_classifier_and_its_probabilities_are_calibrated() -> None:
    (x, y), (new, truth) = rows_of(1800, 1), rows_of(1800, 2)
    found = fit_linear(x, y, CLASSES, (0.1,), seed=0)
    assert found is not None
    expected = RidgeClassifier(alpha=found.strength).fit(x, y)
    logits = found.logits(new)
    assert np.mean(logits.argmax(axis=1) == expected.predict(new)) > 0.995
    right = np.mean(logits.argmax(axis=1) == truth)
    assert right > 0.5
    assert np.mean(softmax(logits).max(axis=1)) == pytest.approx(right, abs=0.1)
    assert cross_entropy(logits, truth) == pytest.approx(found.loss, abs=0.15)
    sparse = fit_indicators(csr_array(x), y, CLASSES, seed=0)
    assert sparse is not None
    assert np.mean(sparse.logits(new).argmax(axis=1) == logits.argmax(axis=1)) > 0.98


def test_weights_count_copies_and_a_class_without_rows_is_never_named() -> None:
    x, y = rows_of(400, 3)
    y = np.where(y == 5, 6, y)
    times = np.random.default_rng(0).integers(1, 4, 400)
    weighted = fit_indicators_fixed(x, y, CLASSES, 2.0, times.astype(np.float64))
    copied = fit_indicators_fixed(np.repeat(x, times, axis=0), np.repeat(y, times), CLASSES, 2.0)
    assert weighted.weight == pytest.approx(copied.weight, abs=1e-8)
    assert softmax(weighted.logits(x))[:, 5].max() == 0
    assert refit(x, y, CLASSES, 2.0).weight == pytest.approx(fit_indicators_fixed(x, y, CLASSES, 2.0).weight)
    assert np.isfinite(fit_direction(x, y, CLASSES)).all()
    assert fit_indicators(x, np.zeros(400, np.int64), CLASSES, 0) is None
