"""Schedules against transformers', parameter groups against PEFT's LoRA+; the average of the weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.optimizers import create_loraplus_optimizer
from small_training import run_all, same, small_recipe, small_training, state
from torch import Tensor, nn
from transformers import get_scheduler

from bertlora.confidence.probabilities import cross_entropy
from bertlora.model.adapted import Adapted
from bertlora.recipe import Recipe
from bertlora.training.events import Step
from bertlora.training.optimiser import Average, build_optimiser, rate_factor, set_rates

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


# The average of the weights


class Walk(nn.Module):
    """A weight that is trained, which takes the values it is given, and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.still = nn.Parameter(torch.zeros(3), requires_grad=False)

    def to_step(self, step: int) -> None:
        with torch.no_grad():
            self.weight.fill_(float(step**2))


def walked(share: float, steps: int, of: int) -> tuple[Walk, Average]:
    model = Walk()
    average = Average(model, Recipe(average_weights=share), of)
    for step in range(1, steps + 1):
        model.to_step(step)
        average.add()
    return model, average


@pytest.mark.parametrize(("share", "steps", "expected"), [(0.0, 5, 25.0), (0.5, 3, 14 / 3), (1.0, 4, 30 / 4)])
def test_of_the_steps_done_all_count_alike_up_to_the_share(share: float, steps: int, expected: float) -> None:
    _, average = walked(share, steps, of=6)
    assert average.state().keys() == {"weight"}
    assert average.state()["weight"].tolist() == pytest.approx([expected] * 3)


def test_from_then_on_earlier_steps_fade() -> None:
    _, average = walked(0.5, 5, of=8)
    value = (1 + 4 + 9 + 16) / 4
    assert average.state()["weight"].tolist() == pytest.approx([value + (25 - value) / 4] * 3)


def test_a_resumed_average_goes_on() -> None:
    model, whole = walked(0.5, 6, of=8)
    _, begun = walked(0.5, 2, of=8)
    resumed = Average(model, Recipe(average_weights=0.5), 8)
    resumed.resume(begun.state(), 2)
    for step in range(3, 7):
        model.to_step(step)
        resumed.add()
    assert same(resumed.state(), whole.state())


def test_the_model_shows_the_average_and_gets_its_weights_back() -> None:
    model, average = walked(1.0, 3, of=3)
    with average.shown():
        assert model.weight.tolist() == pytest.approx([14 / 3] * 3)
    assert model.weight.tolist() == [9.0] * 3


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_training_evaluates_and_keeps_the_average(tiny: Tiny, share: float) -> None:
    training = small_training(small_recipe(tiny("bert"), average_weights=share), validate=False)
    states: list[dict[str, Tensor]] = [state(training) for e in training.run() if isinstance(e, Step)]
    last, window = states[0], max(1.0, share * len(states))
    for number, weights in enumerate(states[1:], start=2):
        last = {n: last[n].lerp(weights[n], max(1 / number, 1 / window)) for n in last}
    assert same(state(training), last)
    assert same(state(training), states[-1]) == (share == 0)


def test_what_was_evaluated_is_what_is_kept(tiny: Tiny) -> None:
    training = small_training(small_recipe(tiny("bert"), average_weights=0.5, epochs=3))
    _, evaluations = run_all(training)
    best = next(e for e in reversed(evaluations) if e.best)
    scores = training.adapted.logits(training.train.inputs)
    assert cross_entropy(scores, training.train.labels) == pytest.approx(best.validation_loss, abs=1e-5)
