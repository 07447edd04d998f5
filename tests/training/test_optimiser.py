"""Schedules against transformers', parameter groups against PEFT's LoRA+."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.optimizers import create_loraplus_optimizer
from small_training import run_all, small_recipe, small_training
from transformers import get_scheduler

from bertlora.model.adapted import Adapted
from bertlora.recipe import Recipe
from bertlora.training.optimiser import build_optimiser, rate_factor, set_rates

Tiny = Callable[[str], Path]


def transformers_rates(schedule: str, warm_up: int, steps: int, peak: float) -> list[float]:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    scheduler = get_scheduler(name, optimiser, warm_up, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize(("warmup_fraction", "warm_up"), [(0.0, 0), (0.06, 2), (0.1, 4), (0.5, 18), (1.0, 37)])
def test_every_rate_equals_transformers(schedule: str, warmup_fraction: float, warm_up: int) -> None:
    recipe = Recipe(schedule=schedule, warmup_fraction=warmup_fraction, learning_rate=3e-4)
    ours = [3e-4 * rate_factor(recipe, step, 37) for step in range(37)]
    assert ours == pytest.approx(transformers_rates(schedule, warm_up, 37, 3e-4), rel=1e-12, abs=1e-18)


def test_a_training_uses_these_rates(tiny: Tiny) -> None:
    recipe = small_recipe(tiny("bert"), schedule="cosine", warmup_fraction=0.25, evaluate_every_steps=1)
    _, evaluations = run_all(small_training(recipe))
    expected = transformers_rates("cosine", 2, 8, 1e-2)
    assert [e.learning_rate for e in evaluations] == pytest.approx(expected)


def test_limited_steps_shorten_the_schedule(tiny: Tiny) -> None:
    recipe = small_recipe(tiny("bert"), evaluate_every_steps=1, max_steps=3)
    _, evaluations = run_all(small_training(recipe))
    assert [e.learning_rate for e in evaluations] == pytest.approx([1e-2, 2e-2 / 3, 1e-2 / 3])


def options_by_name(model: Any, optimiser: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    """Parameter → its rate and decay."""
    names = {id(p): name for name, p in model.named_parameters()}
    groups = optimiser.param_groups
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def adapted(tiny: Tiny, **changes: Any) -> tuple[Any, Recipe]:
    recipe = small_recipe(tiny("bert"), **changes)
    return Adapted.fresh(recipe, ["a", "b"]).model, recipe


def test_every_trainable_parameter_is_in_one_group(tiny: Tiny) -> None:
    model, recipe = adapted(tiny, bias="all", lora_plus_ratio=4.0, head_learning_rate=1e-4)
    optimiser = build_optimiser(model, recipe)
    trainable = sorted(name for name, p in model.named_parameters() if p.requires_grad)
    assert sorted(options_by_name(model, optimiser)) == trainable
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(trainable)


def test_head_has_its_own_rate(tiny: Tiny) -> None:
    model, recipe = adapted(tiny, head_learning_rate=1e-4)
    rates = {name: rate for name, (rate, _) in options_by_name(model, build_optimiser(model, recipe)).items()}
    assert {rate for name, rate in rates.items() if "lora_" in name} == {1e-2}
    assert {rate for name, rate in rates.items() if "classifier" in name} == {1e-4}


def test_without_a_head_rate_all_learn_alike(tiny: Tiny) -> None:
    model, recipe = adapted(tiny)
    assert {rate for rate, _ in options_by_name(model, build_optimiser(model, recipe)).values()} == {1e-2}


@pytest.mark.parametrize("targets", [("query", "value"), ("all-linear",)])
def test_lora_plus_groups_equal_pefts(tiny: Tiny, targets: tuple[str, ...]) -> None:
    model, recipe = adapted(tiny, lora_plus_ratio=16.0, weight_decay=0.03, targets=targets)
    ours = options_by_name(model, build_optimiser(model, recipe))
    theirs = options_by_name(
        model,
        create_loraplus_optimizer(
            model, torch.optim.AdamW, lr=recipe.learning_rate, loraplus_lr_ratio=16.0, loraplus_weight_decay=0.03
        ),
    )
    lora = {name for name in ours if "lora_" in name}
    assert {name: ours[name] for name in lora} == {name: theirs[name] for name in theirs if "lora_" in name}
    assert {rate for name, (rate, _) in ours.items() if "lora_B" in name} == {0.16}


@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_vectors_are_not_decayed(tiny: Tiny, variant: str) -> None:
    model, recipe = adapted(tiny, bias="all", weight_decay=0.1, variant=variant)
    found = options_by_name(model, build_optimiser(model, recipe))
    decays = {name: decay for name, (_, decay) in found.items()}
    shapes = {name: p.ndim for name, p in model.named_parameters()}
    assert {decays[name] for name in decays if shapes[name] == 1} == {0.0}
    assert {decays[name] for name in decays if shapes[name] > 1} == {0.1}


def test_set_rates_scales_every_group_from_its_own_peak(tiny: Tiny) -> None:
    model, recipe = adapted(tiny, lora_plus_ratio=4.0, head_learning_rate=1e-4)
    optimiser = build_optimiser(model, recipe)
    set_rates(optimiser, recipe, 7, 10)
    assert set_rates(optimiser, recipe, 5, 10) == pytest.approx(5e-3)
    assert {round(group["lr"], 12) for group in optimiser.param_groups} == {5e-3, 2e-2, 5e-5}
