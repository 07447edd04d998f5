"""Training on several labels: transformers' own loss, learning, the best evaluation, and an interrupted training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import GOOD, TEXTS, run_all, same, small_recipe, state

from bertlora.confidence.thresholds import Thresholds
from bertlora.data.reader import Examples
from bertlora.errors import RecipeError
from bertlora.model.adapted import Adapted
from bertlora.recipe import Recipe
from bertlora.training.events import Step
from bertlora.training.loop import Training

Tiny = Callable[[str], Path]
# A text is good or not, short or not, and has the letter v or not: any number of the three.
MARKS = np.array([[text in GOOD, len(text) < 11, "v" in text] for text in TEXTS])


def training_of(recipe: Recipe, **options: Any) -> Training:
    adapted = Adapted.fresh(recipe.replace(task="multilabel"), ["good", "short", "v"])
    rows = Examples(adapted.reader.read(TEXTS), MARKS)
    return Training(adapted, recipe, rows, rows, **options)


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "modernbert"])
def test_the_first_loss_is_transformers_own(tiny: Tiny, architecture: str) -> None:
    training = training_of(small_recipe(tiny(architecture), batch_size=16, head_start="random"))
    adapted = training.adapted
    device = adapted.model.device
    tokens = adapted.base.tokenizer()(TEXTS, padding=True, return_tensors="pt").to(device)
    with torch.no_grad():
        theirs = adapted.model.eval()(**tokens, labels=torch.from_numpy(MARKS).float().to(device))
    assert theirs.logits.shape == MARKS.shape
    assert adapted.model.config.problem_type == "multi_label_classification"
    steps, _ = run_all(training)
    assert steps[0].loss == pytest.approx(float(theirs.loss), abs=1e-5)


def test_it_memorises_the_labels_of_sixteen_texts(tiny: Tiny) -> None:
    training = training_of(small_recipe(tiny("bert"), epochs=40, rank=8))
    steps, evaluations = run_all(training)
    assert steps[-1].loss < 0.2 < steps[0].loss
    logits = training.adapted.logits(training.adapted.reader.read(TEXTS))
    learned = training.learned()
    assert isinstance(learned, Thresholds)
    assert np.array_equal(learned.chosen(logits), MARKS)
    assert learned.logits == pytest.approx(logits, abs=1e-3)
    best = next(e for e in reversed(evaluations) if e.best)
    assert best.figures == dict.fromkeys(best.figures, 1.0)
    assert set(best.figures) == {"macro_f1", "micro_f1", "subset_accuracy", "average_precision"}


def test_an_interrupted_training_goes_on_to_the_same_end(tiny: Tiny, tmp_path: Path) -> None:
    recipe = small_recipe(tiny("bert"), epochs=3, lora_dropout=0.2, average_weights=0.4)
    whole = training_of(recipe)
    run_all(whole)
    for event in training_of(recipe, checkpoints=tmp_path).run():
        if isinstance(event, Step) and event.step == 6:
            break
    resumed = training_of(recipe, checkpoints=tmp_path, resume=True)
    assert resumed.progress.step == 4
    run_all(resumed)
    assert same(state(resumed), state(whole))
    assert np.array_equal(resumed.trace.predicted, whole.trace.predicted)
    ours, theirs = resumed.learned(), whole.learned()
    assert isinstance(ours, Thresholds)
    assert isinstance(theirs, Thresholds)
    assert np.array_equal(ours.thresholds, theirs.thresholds)


def test_options_are_resolved_or_refused(tiny: Tiny) -> None:
    recipe = training_of(small_recipe(tiny("bert"))).recipe
    chosen = (recipe.task, recipe.loss, recipe.best_metric, recipe.class_weights)
    assert chosen == ("multilabel", "binary-cross-entropy", "average_precision", "none")
    with pytest.raises(RecipeError, match="loss: got cross-entropy, which does not fit task = multilabel"):
        training_of(small_recipe(tiny("bert"), loss="cross-entropy"))
