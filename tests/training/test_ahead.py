"""Steps that the program does not wait for, on a CPU, where they are the steps of `descend`; and training in fp16."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from small_training import run_all, same, small_recipe, small_training, state
from torch import Tensor, nn

from bertlora.errors import HealthError, RecipeError
from bertlora.model import machine
from bertlora.model.machine import choose_precision
from bertlora.recipe import Recipe
from bertlora.training.ahead import GROWTH_STEPS, Ahead
from bertlora.training.optimiser import build_optimiser, descend

Tiny = Callable[[str], Path]
CPU, RECIPE, STEPS = torch.device("cpu"), Recipe(warmup_fraction=0.0), 8
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def model() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 2)


def losses_of(model: nn.Linear, scale: float = 1.0) -> Iterator[Tensor]:
    """The losses of a few batches, whose gradients are `scale` times as large."""
    for seed in range(STEPS):
        loss = model(torch.randn(3, 4, generator=torch.Generator().manual_seed(seed))).square().sum()
        (loss * scale).backward()
        yield loss.detach()


def values(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def ahead_of(model: nn.Module, scaling: list[float] | None = None) -> Ahead:
    return Ahead(build_optimiser(model, RECIPE), RECIPE, STEPS, CPU, scaling)


@pytest.mark.parametrize("scaling", [None, [1024.0, 0.0]])
def test_the_steps_are_those_of_descend(model: nn.Linear, scaling: list[float] | None) -> None:
    start = values(model)
    optimiser = build_optimiser(model, RECIPE)
    expected = [descend(optimiser, RECIPE, n, STEPS, loss) for n, loss in enumerate(losses_of(model))]
    end = values(model)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), start, strict=True):
            parameter.copy_(value)
    ahead = ahead_of(model, scaling)
    for number, loss in enumerate(losses_of(model, 1.0 if scaling is None else scaling[0])):
        ahead.descend(number, loss, [number])
    assert [taken.rows for taken in ahead.open] == [[n] for n in range(STEPS)]
    assert [taken.read() for taken in ahead.open] == [(value, True) for value in expected]
    assert all(map(torch.equal, values(model), end))


def spoil(model: nn.Linear, losses: Iterator[Tensor], number: float) -> None:
    """Makes the next gradient, with this number in it."""
    next(losses)
    assert model.weight.grad is not None
    model.weight.grad[0, 0] = number


def test_a_step_that_is_not_finite_and_all_later_ones_change_no_weight(model: nn.Linear) -> None:
    ahead, losses = ahead_of(model), losses_of(model)
    ahead.descend(0, next(losses), [0])
    kept = values(model)
    spoil(model, losses, math.nan)
    ahead.descend(1, torch.tensor(1.0), [1])
    ahead.descend(2, next(losses), [2])
    assert all(map(torch.equal, values(model), kept))
    first, second, _ = ahead.open
    first.read()
    with pytest.raises(HealthError, match="step 2: the gradient is nan"):
        second.read()


def test_an_overflow_in_fp16_costs_one_step_and_halves_the_scale(model: nn.Linear) -> None:
    ahead, losses = ahead_of(model, [1024.0, 5.0]), losses_of(model, 1024.0)
    kept = values(model)
    spoil(model, losses, math.inf)
    ahead.descend(0, torch.tensor(1.0), [0])
    assert all(map(torch.equal, values(model), kept))
    assert ahead.open[0].read() == (1.0, False)
    assert ahead.open[0].scaling == [512.0, 0.0]
    ahead.descend(1, next(losses), [1])
    assert not any(map(torch.equal, values(model), kept))
    ahead.open[1].read()
    assert ahead.open[1].scaling == [512.0, 1.0]


def test_the_scale_grows_when_many_steps_had_no_overflow(model: nn.Linear) -> None:
    ahead = ahead_of(model, [1024.0, GROWTH_STEPS - 1.0])
    ahead.descend(0, next(losses_of(model, 1024.0)), [0])
    ahead.open[0].read()
    assert ahead.open[0].scaling == [2048.0, 0.0]


def test_a_gradient_that_overflows_at_any_scale_ends_the_training(model: nn.Linear) -> None:
    ahead, losses = ahead_of(model, [1.0, 0.0]), losses_of(model)
    kept = values(model)
    spoil(model, losses, math.inf)
    ahead.descend(0, torch.tensor(1.0), [0])
    ahead.descend(1, next(losses), [1])
    assert all(map(torch.equal, values(model), kept))
    with pytest.raises(HealthError, match="step 1: the gradient is inf"):
        ahead.open[0].read()


@pytest.fixture
def older_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU without bf16, on which fp16 is fast; a CPU in its place if there is no GPU."""
    monkeypatch.setattr(machine, "default_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    monkeypatch.setattr(machine, "_speeds", lambda: {"fp32": 1.0, "bf16": 0.1, "fp16": 8.0})


@pytest.mark.usefixtures("older_gpu")
def test_auto_takes_fp16_on_a_gpu_without_bf16() -> None:
    assert choose_precision("auto") == "fp16"
    assert choose_precision("auto", "deberta") == "fp32"
    with pytest.raises(RecipeError, match="bf16, which this GPU does not have; give auto"):
        choose_precision("bf16")


def test_fp16_runs_on_a_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "default_device", lambda: CPU)
    with pytest.raises(RecipeError, match="fp16, which runs on a GPU only"):
        choose_precision("fp16")


@GPU
@pytest.mark.usefixtures("older_gpu")
def test_a_training_in_fp16_learns_resumes_and_predicts(tiny: Tiny, tmp_path: Path) -> None:
    recipe = small_recipe(tiny("bert"), precision="auto", epochs=6)
    whole = small_training(recipe)
    assert whole.precision == "fp16"
    learned = [step.loss for step in run_all(whole)[0]]
    assert learned[-1] < learned[0]
    assert whole.summary()["skipped_steps"] == whole.progress.skipped_steps
    first = small_training(recipe, checkpoints=tmp_path)
    events = first.run()
    for _ in range(9):
        next(events)
    first.saving.save()
    events.close()
    resumed = small_training(recipe, checkpoints=tmp_path, resume=True)
    run_all(resumed)
    assert resumed.progress.scaling == whole.progress.scaling
    assert same(state(resumed), state(whole))
    expected = small_training(recipe.replace(precision="fp32"))
    run_all(expected)
    inputs = whole.train.inputs
    half, full = (whole.adapted.logits(inputs, precision=precision) for precision in ("fp16", "fp32"))
    assert abs(half - full).max() < 0.02 * abs(full).max()
