"""Training on numbers: it learns them in any unit, the head gives their unit, and an interrupted training goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_training import TEXTS, losses, run_all, same, small_recipe, state

from bertlora.confidence.spread import Spread
from bertlora.data.reader import Examples
from bertlora.errors import DataError
from bertlora.model.adapted import Adapted
from bertlora.recipe import Recipe
from bertlora.training.events import Step
from bertlora.training.loop import Training

Tiny = Callable[[str], Path]
NUMBERS = np.random.default_rng(3).normal(size=len(TEXTS))


def training_of(recipe: Recipe, numbers: Any = NUMBERS, **options: Any) -> Training:
    """A training on sixteen texts and numbers, evaluated on the same."""
    adapted = Adapted.fresh(recipe.replace(task="regression"), ["score"])
    rows = Examples(adapted.reader.read(TEXTS), np.asarray(numbers, np.float64))
    return Training(adapted, recipe, rows, rows, **options)


def values_of(training: Training) -> Any:
    adapted = training.adapted
    return adapted.logits(adapted.reader.read(TEXTS))[:, 0]


def test_it_memorises_sixteen_numbers_and_answers_in_their_unit(tiny: Tiny) -> None:
    training = training_of(small_recipe(tiny("bert"), epochs=25, rank=8), 100 + 20 * NUMBERS)
    steps, evaluations = run_all(training)
    assert steps[-1].loss < 0.1 < steps[0].loss
    found = values_of(training)
    assert np.corrcoef(found, NUMBERS)[0, 1] > 0.97
    assert np.abs(found - (100 + 20 * NUMBERS)).mean() < 6
    spread = training.learned()
    assert isinstance(spread, Spread)
    assert spread.values == pytest.approx(found, abs=1e-3)
    best = next(e for e in reversed(evaluations) if e.best)
    assert best.figures["rmse"] == pytest.approx(np.sqrt(np.mean((found - spread.y_true) ** 2)), abs=1e-3)
    assert best.accuracy is None
    assert training.progress.history[-1]["r2"] == evaluations[-1].figures["r2"]


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_the_unit_changes_nothing_but_the_unit(tiny: Tiny, loss: str) -> None:
    recipe = small_recipe(tiny("bert"), loss=loss)
    plain, scaled = training_of(recipe), training_of(recipe, 1000 * NUMBERS + 5000)
    assert losses(scaled) == pytest.approx(losses(plain), rel=1e-4)
    assert values_of(scaled) == pytest.approx(1000 * values_of(plain) + 5000, rel=1e-4)


def test_huber_is_less_moved_by_an_outlier(tiny: Tiny) -> None:
    with_outlier = NUMBERS.copy()
    with_outlier[0] = 50.0
    firsts = [losses(training_of(small_recipe(tiny("bert"), loss=loss), with_outlier))[0] for loss in ("mse", "huber")]
    assert firsts[1] < firsts[0]


def test_an_interrupted_training_goes_on_to_the_same_end(tiny: Tiny, tmp_path: Path) -> None:
    recipe = small_recipe(tiny("bert"), epochs=3, lora_dropout=0.2, average_weights=0.4)
    whole = training_of(recipe, 7 * NUMBERS)
    run_all(whole)
    begun = training_of(recipe, 7 * NUMBERS, checkpoints=tmp_path)
    for event in begun.run():
        if isinstance(event, Step) and event.step == 6:
            break
    resumed = training_of(recipe, 7 * NUMBERS, checkpoints=tmp_path, resume=True)
    assert resumed.progress.step == 4
    run_all(resumed)
    assert same(state(resumed), state(whole))
    assert np.array_equal(resumed.trace.predicted, whole.trace.predicted)
    ours, theirs = resumed.learned(), whole.learned()
    assert isinstance(ours, Spread)
    assert isinstance(theirs, Spread)
    assert np.array_equal(ours.values, theirs.values)


def test_options_are_resolved_and_equal_targets_are_refused(tiny: Tiny) -> None:
    recipe = training_of(small_recipe(tiny("bert"))).recipe
    chosen = (recipe.task, recipe.loss, recipe.best_metric, recipe.class_weights)
    assert chosen == ("regression", "mse", "rmse", "none")
    with pytest.raises(DataError, match="every target of the training rows is 3"):
        training_of(small_recipe(tiny("bert")), np.full(len(TEXTS), 3.0))
    for unit in (1e200, 1e-40):
        with pytest.raises(DataError, match=r"have mean .* and standard deviation .*give them in another unit"):
            training_of(recipe, np.array(NUMBERS) * unit)


@pytest.mark.parametrize("metric", ["rmse", "pearson", "loss"])
def test_the_best_evaluation_is_kept(tiny: Tiny, metric: str) -> None:
    recipe = small_recipe(tiny("bert"), epochs=4, learning_rate=0.05, best_metric=metric)
    _, evaluations = run_all(training := training_of(recipe))
    kept = max(i for i, e in enumerate(evaluations) if e.best)
    values = [e.validation_loss if metric == "loss" else e.figures[metric] for e in evaluations]
    assert kept == int(np.argmax(values) if metric == "pearson" else np.argmin(values))
    assert values_of(training) == pytest.approx(training.trace.predicted[kept], abs=1e-4)
