"""The head's last layer: what goes into it, and where it starts from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import EVERY, LABELS, TEXTS, adapted_of
from small_training import GOOD, IDS, examples, small_recipe
from small_training import TEXTS as REVIEWS
from torch import nn

from bertlora.model.adapted import Adapted
from bertlora.model.engine.changes import unwrapped
from bertlora.pipeline.training_run import fitted_rivals
from bertlora.rivals.probe import turn_head
from bertlora.training.loop import Training

Tiny = Callable[[str], Path]


def last_layers(adapted: Adapted) -> dict[str, nn.Linear]:
    """Returns the layers that give a logit a class, the base's own and the trained one, by their names."""
    found = unwrapped(adapted.model).named_modules()
    return {name: m for name, m in found if isinstance(m, nn.Linear) and m.out_features == len(adapted.labels)}


@pytest.mark.parametrize("architecture", EVERY)
def test_the_frozen_view_times_the_last_layer_is_the_base_logits(tiny: Tiny, architecture: str) -> None:
    adapted = adapted_of(tiny(architecture))
    inputs = adapted.reader.read(TEXTS)
    before = adapted.logits(inputs)
    own, trained = last_layers(adapted).values()
    seen, features = adapted.base_features(inputs, head=False)
    with torch.no_grad():
        found = own(torch.from_numpy(seen).float()).numpy()
    assert np.allclose(found, adapted.logits(inputs, base=True), atol=1e-5)
    assert np.array_equal(features, adapted.base_features(inputs)[1])
    assert not np.allclose(own.weight.detach(), trained.weight.detach())
    assert np.array_equal(adapted.logits(inputs), before)


@pytest.mark.parametrize("architecture", EVERY)
def test_an_aimed_head_has_the_direction_asked_for_and_its_own_length(tiny: Tiny, architecture: str) -> None:
    adapted = adapted_of(tiny(architecture))
    own, trained = last_layers(adapted).values()
    kept, length = own.weight.detach().clone(), trained.weight.norm().item()
    wanted = np.random.default_rng(0).normal(size=tuple(trained.weight.shape)) * 50
    turn_head(adapted.model, wanted)
    assert trained.weight.norm().item() == pytest.approx(length, rel=1e-5)
    assert trained.weight.detach().numpy() / length == pytest.approx(wanted / np.linalg.norm(wanted), abs=1e-6)
    assert torch.equal(own.weight, kept)
    turn_head(adapted.model, np.zeros_like(wanted))
    assert trained.weight.norm().item() == pytest.approx(length, rel=1e-5)


@pytest.mark.parametrize("head_start", ["random", "probe"])
def test_the_recipe_says_where_the_head_starts(tiny: Tiny, head_start: str) -> None:
    recipe = small_recipe(tiny("bert"), head_start=head_start)
    adapted = Adapted.fresh(recipe, ["a", "b"])
    drawn = {name: m.weight.detach().clone() for name, m in last_layers(adapted).items()}
    train = examples(adapted, REVIEWS, IDS)
    fitted_rivals(adapted, Training(adapted, recipe, train, train), (REVIEWS, None), (REVIEWS, None))
    moved = [name for name, m in last_layers(adapted).items() if not torch.equal(m.weight, drawn[name])]
    assert [name.split(".")[1] for name in moved] == (["modules_to_save"] if head_start == "probe" else [])
    scores = adapted.logits(train.inputs)
    lean = np.corrcoef(np.diff(scores)[:, 0], train.labels)[0, 1]
    assert (lean > 0.5) == (head_start == "probe")


def test_a_single_class_gives_no_direction(tiny: Tiny) -> None:
    recipe = small_recipe(tiny("bert"), head_start="probe")
    adapted = Adapted.fresh(recipe, LABELS)
    before = [m.weight.detach().clone() for m in last_layers(adapted).values()]
    train = examples(adapted, GOOD, [1] * len(GOOD))
    fitted_rivals(adapted, Training(adapted, recipe, train, train), (GOOD, None), (GOOD, None))
    assert all(torch.equal(m.weight, kept) for m, kept in zip(last_layers(adapted).values(), before, strict=True))
