"""The linear probe: scikit-learn's regression on the frozen encoder, with its standardisation; its learning curve."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_training import TEXTS, examples, run_all, small_recipe

from bertlora.confidence.probabilities import Array, Labels
from bertlora.model.adapted import Adapted
from bertlora.rivals import probe as module
from bertlora.rivals.probe import (
    CURVE_FOLDS,
    CurvePoint,
    FrozenView,
    fit_probe,
    frozen_views,
    learning_curve,
    mean_direction,
)
from bertlora.training.loop import Training

Tiny = Callable[[str], Path]
pytestmark = pytest.mark.usefixtures("every_strength")


@pytest.mark.parametrize(
    ("ids", "classes"),
    [([1, 0] * 8, 2), ([0, 1, 2, 1] * 4, 3), ([3, 1] * 8, 4), ([0, 2, 3, 2] * 4, 5)],
    ids=["two", "three", "two of four", "three of five"],
)
def test_the_linear_probe_is_scikit_learns_regression_on_its_features(tiny: Tiny, ids: list[int], classes: int) -> None:
    adapted = Adapted.fresh(small_recipe(tiny("bert")), [f"class {i}" for i in range(classes)])
    train = examples(adapted, TEXTS, ids)
    probe = fit_probe(frozen_views(adapted, train, seed=0)[1], seed=0)
    assert probe is not None
    _, features = adapted.base_features(train.inputs)
    ours = softmax(probe.logits(features), axis=1)
    read = mean_direction(features) if probe.only_mean else features
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=probe.regression.strength, max_iter=1000))
    theirs = pipeline.fit(read, ids).predict_proba(read)
    assert probe.regression.weight.shape == (classes, read.shape[1])
    seen = sorted(set(ids))
    # So few rows give no temperature.
    assert ours[:, seen] == pytest.approx(theirs, abs=1e-9)
    assert ours[:, [i for i in range(classes) if i not in seen]].sum() == 0


def test_the_kind_of_features_with_the_lower_held_out_loss_is_read() -> None:
    """The class is the direction of the mean over tokens in the first case, the first token in the second."""
    random = np.random.default_rng(0)
    labels = np.arange(200) % 2
    first, mean = random.normal(size=(200, 8)), random.normal(size=(200, 8)) * random.uniform(0.1, 10, size=(200, 1))
    for in_mean in (True, False):
        told = 4.0 * labels - 2
        features = np.hstack([first + (not in_mean) * told[:, None], mean])
        if in_mean:
            features[:, 8] = np.linalg.norm(features[:, 8:], axis=1) * told / 2
        probe = fit_probe(FrozenView(features, labels, 2), seed=0)
        assert probe is not None
        assert probe.only_mean == in_mean
        assert (probe.logits(features).argmax(axis=1) == labels).mean() > 0.95


def test_no_linear_probe_for_a_single_class(tiny: Tiny) -> None:
    adapted = Adapted.fresh(small_recipe(tiny("bert")), ["a", "b"])
    assert fit_probe(frozen_views(adapted, examples(adapted, TEXTS[:3], [1, 1, 1]), seed=0)[1], seed=0) is None


@pytest.mark.parametrize(("bias", "variant"), [("none", "lora"), ("all", "lora"), ("none", "pissa"), ("none", "dora")])
def test_the_linear_probe_does_not_depend_on_the_adapter(tiny: Tiny, bias: str, variant: str) -> None:
    recipe = small_recipe(tiny("bert"), bias=bias, variant=variant)
    adapted = Adapted.fresh(recipe, ["a", "b"])
    train = examples(adapted, TEXTS, [1, 0] * 8)
    before = fit_probe(frozen_views(adapted, train, seed=0)[1], seed=0)
    run_all(Training(adapted, recipe, train, train))
    after = fit_probe(frozen_views(adapted, train, seed=0)[1], seed=0)
    assert before is not None
    assert after is not None
    assert np.array_equal(before.regression.weight, after.regression.weight)


def test_many_rows_are_sampled_by_the_seed(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = Adapted.fresh(small_recipe(tiny("bert")), ["a", "b"])
    train = examples(adapted, TEXTS, [1, 0] * 8)
    whole = fit_probe(frozen_views(adapted, train, seed=0)[1], seed=0)
    monkeypatch.setattr(module, "MAX_ROWS", 10)
    first, again, other = (fit_probe(frozen_views(adapted, train, seed=seed)[1], seed=0) for seed in (0, 0, 1))
    assert whole is not None
    assert first is not None
    assert again is not None
    assert other is not None
    assert np.array_equal(first.regression.weight, again.regression.weight)
    assert not np.array_equal(first.regression.weight, other.regression.weight)
    assert not np.array_equal(first.regression.weight, whole.regression.weight)


# The learning curve


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
    assert all(len(point.accuracies) == CURVE_FOLDS for point in curve)
    assert curve[0].accuracy == pytest.approx(sum(curve[0].accuracies) / 4)
    assert curve[0].accuracy < curve[1].accuracy < curve[2].accuracy
    # Labels that have nothing to do with the features: a curve at chance.
    flat = curve_of(features, random.permutation(labels))
    assert all(0.4 < point.accuracy < 0.6 for point in flat)


def test_a_point_of_the_curve_has_every_fold_or_is_left_out() -> None:
    """400 rows, four of them of one class: a quarter of the training rows sometimes has no row of that class."""
    features, labels = np.random.default_rng(1).normal(size=(400, 3)), (np.arange(400) < 4).astype(np.int64)
    frozen = FrozenView(features, labels, 2)
    probe = fit_probe(frozen, seed=0)
    curves = [learning_curve(frozen, probe, seed) for seed in range(8)]
    assert {len(point.accuracies) for curve in curves for point in curve} == {CURVE_FOLDS}
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
