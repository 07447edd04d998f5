"""The learning curve of the linear probe."""

import numpy as np
import pytest

from bertlora.confidence.probabilities import Array, Labels
from bertlora.rivals.curve import FOLDS, CurvePoint, learning_curve
from bertlora.rivals.probe import FrozenView, fit_probe


def curve_of(features: Array, labels: Labels, seed: int = 0) -> list[CurvePoint]:
    """Returns the curve of the linear probe on features (N, F), which stand for the encoder's."""
    frozen = FrozenView(features, labels, 2)
    return learning_curve(frozen, fit_probe(frozen, seed), seed)


def test_the_learning_curve_rises_if_there_is_more_to_learn() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, size=600)
    features = random.normal(size=(600, 60)) + 0.35 * labels[:, None]
    curve = curve_of(features, labels)
    assert [point.rows for point in curve] == [112, 225, 450]
    assert all(len(point.accuracies) == FOLDS for point in curve)
    assert curve[0].accuracy == pytest.approx(sum(curve[0].accuracies) / 4)
    assert curve[0].accuracy < curve[1].accuracy < curve[2].accuracy
    # Labels that have nothing to do with the features: a curve at chance.
    flat = curve_of(features, random.permutation(labels))
    assert all(0.4 < point.accuracy < 0.6 for point in flat)


def test_a_point_of_the_curve_has_every_fold_or_is_left_out() -> None:
    """400 rows, four of them of one class: a quarter of the training rows sometimes has no row of that class."""
    features, labels = np.random.default_rng(1).normal(size=(400, 3)), (np.arange(400) < 4).astype(np.int64)
    curves = [curve_of(features, labels, seed) for seed in range(8)]
    assert {len(point.accuracies) for curve in curves for point in curve} == {FOLDS}
    assert all(curve[-1].rows == 300 for curve in curves)
    assert {len(curve) for curve in curves} > {3}


def test_no_learning_curve_without_enough_rows_of_each_class() -> None:
    features = np.random.default_rng(0).normal(size=(9, 3))
    assert curve_of(features, np.array([0] * 6 + [1] * 3)) == []
    assert curve_of(features, np.zeros(9, dtype=np.int64)) == []


def test_the_curve_shows_a_rare_class_that_more_rows_would_teach() -> None:
    """With 5 % of the rows in one class, the accuracy stays flat near 95 % while the class is learned."""
    random = np.random.default_rng(2)
    labels = (random.random(2000) < 0.05).astype(np.int64)
    features = random.normal(size=(2000, 40)) + 0.5 * labels[:, None]
    points = curve_of(features, labels)
    assert points[-1].accuracy - points[0].accuracy > 0.03
