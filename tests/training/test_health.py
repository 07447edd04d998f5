"""What stops a run that cannot succeed, and what halves a micro-batch that does not fit."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import LABELS, largest_difference, losses, run_all, small_recipe, small_training, state

from bertlora.errors import HealthError, ModelError
from bertlora.model.adapted import Adapted
from bertlora.model.engine import Execution
from bertlora.training import loop
from bertlora.training.health import CollapseWatch, check_base, check_finite, check_moved
from bertlora.training.loop import Training

Tiny = Callable[[str], Path]

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    MemoryError(),
]


def limit_memory(monkeypatch: pytest.MonkeyPatch, texts: int, error: BaseException) -> list[int]:
    """Lets the loss fail for more than `texts` texts at once; returns the sizes that were tried."""
    tried: list[int] = []
    loss = Training._summed_loss

    def limited(self: Training, rows: list[int]) -> Any:
        tried.append(len(rows))
        if len(rows) > texts:
            raise error
        return loss(self, rows)

    monkeypatch.setattr(Training, "_summed_loss", limited)
    return tried


# Memory


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "cpu", "windows", "python"])
def test_micro_batch_is_halved_until_it_fits(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    recipe = small_recipe(tiny("bert"), batch_size=2, gradient_accumulation=4, learning_rate=1e-3)
    small = small_training(recipe)
    small.progress.micro_batch = 2
    expected = losses(small)
    tried = limit_memory(monkeypatch, 2, error)
    training = small_training(recipe)
    assert losses(training) == expected
    assert training.progress.micro_batch == 2
    assert tried[:3] == [8, 4, 2]
    assert max(tried[3:]) == 2  # it does not try the large ones again
    assert largest_difference(state(training), state(small)) == 0


def test_memory_that_runs_out_half_way_counts_no_gradient_twice(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe(tiny("bert"), batch_size=8, learning_rate=1e-3, epochs=1)
    expected = small_training(recipe)
    expected.progress.micro_batch = 2
    losses(expected)
    loss, calls = Training._summed_loss, []

    def second_fails(self: Training, rows: list[int]) -> Any:
        calls.append(len(rows))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(self, rows)

    monkeypatch.setattr(Training, "_summed_loss", second_fails)
    training = small_training(recipe)
    training.progress.micro_batch = 4
    losses(training)
    assert calls[:4] == [4, 4, 2, 2]
    assert largest_difference(state(training), state(expected)) < 1e-6


def test_memory_for_no_text_at_all_is_a_health_error(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, 0, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(HealthError, match="single text; lower max_length"):
        run_all(small_training(small_recipe(tiny("bert"))))


def test_other_faults_are_not_taken_for_memory(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run_all(small_training(small_recipe(tiny("bert"))))


# Losses and weights


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_rate(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    loss = Training._summed_loss
    training = small_training(small_recipe(tiny("bert"), learning_rate=0.25))
    monkeypatch.setattr(
        Training, "_summed_loss", lambda self, rows: loss(self, rows) * (value if self.progress.step == 2 else 1.0)
    )
    with pytest.raises(HealthError, match=r"step 3: the loss is (nan|inf); the learning rate of 0\.1875 "):
        run_all(training)
    assert len(training.trace.step_losses) == 2
    assert all(torch.isfinite(value).all() for value in state(training).values())


def test_check_finite_lets_numbers_pass() -> None:
    assert check_finite("loss", 12.5, 1, 0.1) is None


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_stops_the_run_before_the_step(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, max_grad_norm: float
) -> None:
    """The loss is finite; its gradient overflows."""
    loss = Training._summed_loss
    training = small_training(small_recipe(tiny("bert"), max_grad_norm=max_grad_norm))

    def steep(self: Training, rows: list[int]) -> Any:
        found = loss(self, rows)
        return found + (found - found.detach()) * (float("inf") if self.progress.step == 2 else 0.0)

    monkeypatch.setattr(Training, "_summed_loss", steep)
    with pytest.raises(HealthError, match=r"step 3: the (loss|gradient) is (nan|inf)"):
        run_all(training)
    assert all(torch.isfinite(value).all() for value in state(training).values())


def test_a_step_that_leaves_the_numbers_stops_the_run(tiny: Tiny) -> None:
    training = small_training(small_recipe(tiny("bert"), learning_rate=1.0))
    training.optimiser.param_groups[0]["peak_lr"] = float("inf")
    with pytest.raises(HealthError, match=r"step 1: the norm of the adapter's weights is (nan|inf)"):
        run_all(training)


def test_a_base_with_a_weight_that_is_not_finite_is_refused(tiny: Tiny) -> None:
    adapted = Adapted.fresh(small_recipe(tiny("bert")), LABELS)
    name, weight = [(n, p) for n, p in adapted.model.named_parameters() if not p.requires_grad][-1]
    weight[..., -1] = float("nan")
    with pytest.raises(ModelError, match=f"its weight {re.escape(name)} has values that are not finite"):
        check_base(adapted.model, "base")


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_an_adapter_that_does_not_move_stops_the_run(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, weight_decay: float
) -> None:
    """Weight decay shrinks A even where no gradient comes."""
    loss = Training._summed_loss
    monkeypatch.setattr(Training, "_summed_loss", lambda self, rows: loss(self, rows) * 0.0)
    with pytest.raises(HealthError, match="step 4: no adapter weight has moved"):
        run_all(small_training(small_recipe(tiny("bert"), weight_decay=weight_decay)))


def test_check_moved_wants_any_b_to_differ() -> None:
    before = {"q.lora_A": torch.ones(1), "q.lora_B": torch.zeros(1), "v.lora_B": torch.zeros(1)}
    assert check_moved(before, before | {"v.lora_B": torch.ones(1)}, 1) is None
    with pytest.raises(HealthError):
        check_moved(before, before | {"q.lora_A": torch.zeros(1), "classifier": torch.ones(1)}, 1)


def test_the_first_step_of_a_warm_up_may_move_nothing(tiny: Tiny) -> None:
    """Its rate is 0, and with few texts the first evaluation comes right after it."""
    recipe = small_recipe(tiny("bert"), batch_size=16, epochs=4, warmup_fraction=0.5)
    _, evaluations = run_all(small_training(recipe))
    assert [e.learning_rate for e in evaluations] == pytest.approx([0, 5e-3, 1e-2, 5e-3])


# Collapse to one class


def one_class(monkeypatch: pytest.MonkeyPatch, when: Callable[[int], bool] = lambda call: True) -> None:
    """Lets validation see one class predicted for everything, in the evaluations that `when` says."""
    logits, calls = Execution.predict, []

    def collapsed(execution: Any, inputs: Any, *args: Any) -> Any:
        calls.append(None)
        if not when(len(calls)):
            return np.eye(2)[np.arange(len(inputs)) % 2]
        return np.tile([1.0, 0.0], (len(logits(execution, inputs, *args)), 1))

    monkeypatch.setattr(Execution, "predict", collapsed)


def test_collapse_warns_first_and_stops_after_100_steps(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    one_class(monkeypatch)
    recipe = small_recipe(tiny("bert"), epochs=50, evaluate_every_steps=40, max_steps=200)
    training = small_training(recipe)
    with pytest.raises(HealthError, match=r"step 120: 'negative' is predicted .* 3 evaluations in a row; .*balanced"):
        run_all(training)
    warnings = [line["warning"] for line in training.progress.history]
    assert warnings == ["'negative' is predicted for every validation text"] * 2


def test_collapse_once_after_100_steps_is_a_warning(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    one_class(monkeypatch, when=lambda call: call == 2)
    recipe = small_recipe(tiny("bert"), epochs=50, evaluate_every_steps=60, max_steps=180)
    _, evaluations = run_all(small_training(recipe))
    assert [bool(e.warning) for e in evaluations] == [False, True, False]


def test_collapse_is_counted_on_when_a_run_is_resumed(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one_class(monkeypatch)
    recipe = small_recipe(tiny("bert"), epochs=50, evaluate_every_steps=60, max_steps=180)
    for event in small_training(recipe, checkpoints=tmp_path).run():
        if isinstance(event, loop.Evaluation):
            break
    with pytest.raises(HealthError, match=r"step 120: .* 2 evaluations in a row"):
        run_all(small_training(recipe, checkpoints=tmp_path, resume=True))


def test_one_class_in_the_validation_texts_is_no_collapse() -> None:
    watch = CollapseWatch(["a", "b"], balanced=False)
    ones = np.ones(4, dtype=np.int64)
    assert watch.check(ones, ones, 500) == ""
    assert watch.check(ones, ones, 600) == ""
    assert watch.check(ones, np.array([0, 1, 1, 1]), 700) == "'b' is predicted for every validation text"
    assert watch.check(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 1]), 800) == ""
    assert watch.check(ones, np.array([0, 1, 1, 1]), 900) != ""


def test_imbalanced_classes_are_only_warned_of() -> None:
    watch, rare = CollapseWatch(["a", "b"], balanced=True), np.array([1] + [0] * 19)
    warnings = [watch.check(np.zeros(20, np.int64), rare, step) for step in (200, 300, 400)]
    assert warnings == ["'a' is predicted for every validation text"] * 3
