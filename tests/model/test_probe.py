"""The linear probe: scikit-learn's regression, its standardisation folded in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_training import TEXTS, examples, run_all, small_recipe
from threadpoolctl import threadpool_info, threadpool_limits

from bertlora.model import probe as module
from bertlora.model.adapted import Adapted
from bertlora.model.probe import FrozenView, fit_probe, frozen_views, learning_curve
from bertlora.training.loop import Training

Tiny = Callable[[str], Path]


@pytest.mark.parametrize(
    ("ids", "classes"),
    [([1, 0] * 8, 2), ([0, 1, 2, 1] * 4, 3), ([3, 1] * 8, 4), ([0, 2, 3, 2] * 4, 5)],
    ids=["two", "three", "two of four", "three of five"],
)
def test_folded_linear_probe_equals_scikit_learn(tiny: Tiny, ids: list[int], classes: int) -> None:
    adapted = Adapted.fresh(small_recipe(tiny("bert")), [f"class {i}" for i in range(classes)])
    train = examples(adapted, TEXTS, ids)
    probe = fit_probe(frozen_views(adapted, train, seed=0)[1])
    assert probe is not None
    _, features = adapted.base_features(train.inputs)
    ours = softmax(probe.logits(features), axis=1)
    pipeline = make_pipeline(
        StandardScaler(), LogisticRegression(C=module.REGULARISATION, max_iter=module.MAX_ITERATIONS)
    )
    theirs = pipeline.fit(features, ids).predict_proba(features)
    assert probe.weight.shape == (classes, features.shape[1])
    seen = sorted(set(ids))
    assert ours[:, seen] == pytest.approx(theirs, abs=1e-9)
    assert ours[:, [i for i in range(classes) if i not in seen]].sum() == 0


def test_the_fit_keeps_blas_to_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    fit = LogisticRegression.fit

    def watched(self: LogisticRegression, *data: object) -> LogisticRegression:
        threads.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return fit(self, *data)

    monkeypatch.setattr(LogisticRegression, "fit", watched)
    with threadpool_limits(limits=2, user_api="blas"):
        fit_probe(FrozenView(np.random.default_rng(0).normal(size=(8, 3)), np.arange(8) % 2, 2))
        assert set(threads) == {1}
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {2}


def test_no_linear_probe_for_a_single_class(tiny: Tiny) -> None:
    adapted = Adapted.fresh(small_recipe(tiny("bert")), ["a", "b"])
    assert fit_probe(frozen_views(adapted, examples(adapted, TEXTS[:3], [1, 1, 1]), seed=0)[1]) is None


@pytest.mark.parametrize(("bias", "variant"), [("none", "lora"), ("all", "lora"), ("none", "pissa"), ("none", "dora")])
def test_the_linear_probe_does_not_depend_on_the_adapter(tiny: Tiny, bias: str, variant: str) -> None:
    recipe = small_recipe(tiny("bert"), bias=bias, variant=variant)
    adapted = Adapted.fresh(recipe, ["a", "b"])
    train = examples(adapted, TEXTS, [1, 0] * 8)
    before = fit_probe(frozen_views(adapted, train, seed=0)[1])
    run_all(Training(adapted, recipe, train, train))
    after = fit_probe(frozen_views(adapted, train, seed=0)[1])
    assert before is not None
    assert after is not None
    assert np.array_equal(before.weight, after.weight)


def test_many_rows_are_sampled_by_the_seed(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = Adapted.fresh(small_recipe(tiny("bert")), ["a", "b"])
    train = examples(adapted, TEXTS, [1, 0] * 8)
    whole = fit_probe(frozen_views(adapted, train, seed=0)[1])
    monkeypatch.setattr(module, "MAX_ROWS", 10)
    first, again, other = (fit_probe(frozen_views(adapted, train, seed=seed)[1]) for seed in (0, 0, 1))
    assert whole is not None
    assert first is not None
    assert again is not None
    assert other is not None
    assert np.array_equal(first.weight, again.weight)
    assert not np.array_equal(first.weight, other.weight)
    assert not np.array_equal(first.weight, whole.weight)


def test_the_learning_curve_rises_if_there_is_more_to_learn() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, size=600)
    features = random.normal(size=(600, 60)) + 0.35 * labels[:, None]
    curve = learning_curve(FrozenView(features, labels, 2), seed=0)
    assert [point.rows for point in curve] == [112, 225, 450]
    assert all(len(point.accuracies) == module.FOLDS for point in curve)
    assert curve[0].accuracy == pytest.approx(sum(curve[0].accuracies) / 4)
    assert curve[0].accuracy < curve[1].accuracy < curve[2].accuracy
    # Labels that have nothing to do with the features: a curve at chance.
    flat = learning_curve(FrozenView(features, random.permutation(labels), 2), seed=0)
    assert all(0.4 < point.accuracy < 0.6 for point in flat)


def test_a_point_of_the_curve_has_every_fold_or_is_left_out() -> None:
    """400 rows, four of them of one class: a quarter of the training rows sometimes has no row of that class."""
    features, labels = np.random.default_rng(1).normal(size=(400, 3)), (np.arange(400) < 4).astype(np.int64)
    curves = [learning_curve(FrozenView(features, labels, 2), seed) for seed in range(8)]
    assert {len(point.accuracies) for curve in curves for point in curve} == {module.FOLDS}
    assert all(curve[-1].rows == 300 for curve in curves)
    assert {len(curve) for curve in curves} > {3}


def test_no_learning_curve_without_enough_rows_of_each_class() -> None:
    features = np.random.default_rng(0).normal(size=(9, 3))
    assert learning_curve(FrozenView(features, np.array([0] * 6 + [1] * 3), 2), seed=0) == []
    assert learning_curve(FrozenView(features, np.zeros(9, dtype=np.int64), 2), seed=0) == []
