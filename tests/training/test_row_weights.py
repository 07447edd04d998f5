"""Weights of rows: a weight of 2 is a second copy of the row, a weight of 0 is no row, and equal weights are none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_training import BAD, GOOD, small_recipe
from torch import Tensor

from bertlora import LoraClassifier, LoraRegressor
from bertlora.data.reader import Examples
from bertlora.errors import DataError
from bertlora.model.adapted import Adapted
from bertlora.recipe import Recipe
from bertlora.rivals.fitted import Rivals
from bertlora.training.loop import Training

Tiny = Callable[[str], Path]
TEXTS = [*GOOD, *BAD]
CLASSES = np.repeat([1, 0], 8)
NUMBERS = np.linspace(0, 5, 16)
MARKS = np.stack([CLASSES == 1, NUMBERS % 1 > 0.4], axis=1)
WEIGHTS = np.array([1, 2, 3, 1] * 4)
TASKS = pytest.mark.parametrize(
    ("options", "labels", "targets"),
    [
        ({"class_weights": "balanced"}, ["bad", "good"], CLASSES),
        ({"class_weights": {"good": 3.0}, "label_smoothing": 0.2}, ["bad", "good"], CLASSES),
        ({"task": "regression", "loss": "huber"}, ["value"], NUMBERS),
        ({"task": "multilabel"}, ["good", "odd"], MARKS),
    ],
    ids=["balanced", "table", "numbers", "labels"],
)


def training_of(recipe: Recipe, labels: list[str], targets: Any, weights: Any = None, times: Any = 1) -> Training:
    """A training on the texts, each `times` times."""
    adapted = Adapted.fresh(recipe, labels)
    texts = np.repeat(np.array(TEXTS, dtype=object), times).tolist()
    rows = Examples(adapted.reader.read(texts), np.repeat(targets, times, axis=0), weights)
    training = Training(adapted, recipe, rows, Examples(adapted.reader.read([]), rows.labels[:0]))
    training.model.train()
    return training


def gradients(training: Training) -> tuple[float, dict[str, Tensor]]:
    with training.adapted.execution("fp32", training=True) as training.execution:
        loss = float(training._gradients(list(range(len(training.train)))))
    named = training.plain.named_parameters()
    return loss, {name: p.grad.cpu().clone() for name, p in named if p.grad is not None}


@TASKS
def test_a_weight_is_a_number_of_copies(
    tiny: Tiny, options: dict[str, Any], labels: list[str], targets: np.ndarray[Any, Any]
) -> None:
    recipe = small_recipe(tiny("bert"), batch_size=64, **options)
    weighted = training_of(recipe, labels, targets, WEIGHTS / WEIGHTS.mean())
    copied = training_of(recipe, labels, targets, times=WEIGHTS)
    (loss, found), (expected_loss, expected) = gradients(weighted), gradients(copied)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert found.keys() == expected.keys()
    assert max(float(gradient.abs().max()) for gradient in found.values()) > 1e-3
    for name, gradient in found.items():
        assert gradient.numpy() == pytest.approx(expected[name].numpy(), abs=1e-6)
    plain = gradients(training_of(recipe, labels, targets))[0]
    assert abs(plain - loss) > 1e-4


@pytest.mark.parametrize("kind", [LoraClassifier, LoraRegressor])
def test_equal_weights_are_none_and_a_weight_of_0_is_no_row(tiny: Tiny, kind: Any) -> None:
    settings = {"batch_size": 4, "epochs": 1, "max_length": 32, "precision": "fp32", "head_start": "probe"}
    targets = np.array(["bad", "good"])[CLASSES] if kind is LoraClassifier else NUMBERS

    def outputs(X: list[str], y: Any, weights: Any = None) -> Any:  # noqa: N803
        return kind(model=str(tiny("bert")), **settings).fit(X, y, sample_weight=weights)._outputs(TEXTS)

    plain = outputs(TEXTS, targets)
    assert np.array_equal(outputs(TEXTS, targets, np.full(16, 0.1)), plain)
    # The first row of weight 0 has a class, or a number, that no other row has.
    others, weights = ["odd", *TEXTS], [0, *WEIGHTS]
    with_odd = np.array(["odd" if kind is LoraClassifier else 1e6, *targets])
    left_out = outputs(others, with_odd, weights)
    assert np.array_equal(left_out, outputs(TEXTS, targets, WEIGHTS * 7))
    assert not np.allclose(left_out, plain)
    for wrong, said in (
        ([1] * 3, r"sample_weight: got shape \(3,\), expected \(16,\)"),
        ([1] * 15 + [-1], "sample_weight: row 15 has -1"),
        ([float("nan")] * 16, "sample_weight: row 0 has nan"),
        (["heavy"] * 16, "sample_weight: expected numbers"),
        ([0] * 16, "sample_weight: every weight is 0"),
    ):
        with pytest.raises(DataError, match=said):
            outputs(TEXTS, targets, wrong)


@TASKS
def test_weights_move_the_answers_of_the_rivals(
    tiny: Tiny, options: dict[str, Any], labels: list[str], targets: np.ndarray[Any, Any]
) -> None:
    adapted = Adapted.fresh(small_recipe(tiny("bert"), **options), labels)
    first = targets[:, 0] if targets.ndim == 2 else targets
    heavy = np.where(first > np.median(first), 50.0, 1.0)
    answers = []
    for weights in (None, heavy):
        rows = Examples(adapted.reader.read(TEXTS), targets, weights)
        rivals = Rivals.fit(adapted, (rows, (TEXTS, None)), (rows, (TEXTS, None)), 0)
        outputs = rivals.on_validation.items()
        answers.append({name: o[:, 1] - o[:, 0] if targets is CLASSES else o[:, 0] for name, o in outputs})
    for name, plain in answers[0].items():
        assert answers[1][name].mean() > plain.mean()
