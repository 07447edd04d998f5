"""Draws of a seed: reproducible, different in each process, and without a trace in torch's global generator."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from helpers import LABELS, tiny_recipe
from small_training import TEXTS, examples, losses, small_recipe, small_training, state

from bertlora.classifier import LoraClassifier
from bertlora.model.adapted import Adapted
from bertlora.model.draws import Draws
from bertlora.model.plan import plan
from bertlora.training.folds import out_of_fold_logits

Tiny = Callable[[str], Path]


def test_a_stream_continues_and_the_global_generator_knows_nothing_of_it() -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    draws, found = Draws(5), []
    for _ in range(2):
        with draws.used():
            found.append(torch.rand(2))
        assert torch.get_rng_state().equal(before)
    assert torch.cat(found).equal(expected)


def test_an_exception_restores_the_global_generator() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="shape"), Draws(5).used():
        (torch.rand(1) + 1).reshape(2)
    assert torch.get_rng_state().equal(before)


def test_each_process_draws_other_numbers_also_after_it_resumes() -> None:
    def first(rank: int, step: int | None = None) -> float:
        draws = Draws(3, rank=rank)
        if step is not None:
            draws.restart(step)
        with draws.used():
            return float(torch.rand(1))

    assert first(1) == first(1)
    assert first(0) == first(0, 7)  # the main process's state is in the checkpoint
    assert len({first(0), first(1), first(2), first(1, 7), first(1, 8), first(2, 7)}) == 6


@pytest.fixture
def untouched(tiny: Tiny) -> Iterator[None]:
    """Fails if the test changes the state of torch's or NumPy's global generator."""
    tiny("bert")  # drawn from the global generator, once
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    yield
    assert torch.get_rng_state().equal(before)
    assert np.array_equal(np.random.get_state()[1], legacy)  # type: ignore[arg-type]


@pytest.mark.usefixtures("untouched")
def test_fit_leaves_the_global_generators(tiny: Tiny) -> None:
    texts, labels = TEXTS * 2, ["bad", "good"] * len(TEXTS)
    made = LoraClassifier(model=str(tiny("bert")), epochs=1, max_length=32, precision="fp32", lora_dropout=0.2)
    made.fit(texts, labels).predict(texts)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("keys", [{}, {"variant": "pissa"}, {"variant": "dora"}], ids=str)
def test_a_fresh_adapter_and_a_plan_leave_the_global_generator(keys: dict[str, str], tiny: Tiny) -> None:
    recipe = tiny_recipe(tiny("bert"), **keys)
    plan(recipe, labels=2)
    Adapted.fresh(recipe, LABELS)


@pytest.mark.usefixtures("untouched")
def test_folds_leave_the_global_generator(tiny: Tiny) -> None:
    recipe = small_recipe(tiny("bert"), epochs=1, lora_dropout=0.3)
    adapted = Adapted.fresh(recipe, ["a", "b"])
    found = out_of_fold_logits(adapted, recipe, examples(adapted, TEXTS, [1, 0] * 8), np.arange(16) % 2)
    assert found.shape == (16, 2)


def test_the_caller_may_draw_between_two_steps(tiny: Tiny) -> None:
    """The caller gets the numbers of its own seed, and training those of the recipe's."""
    recipe = small_recipe(tiny("bert"), lora_dropout=0.3, encoder_dropout=0.2)
    plain = small_training(recipe)
    expected = losses(plain)
    torch.manual_seed(1)
    numbers = torch.rand(8)
    torch.manual_seed(1)
    training, drawn, found = small_training(recipe), [], []
    for event in training.run():
        drawn.append(torch.rand(1))
        found += [event.loss] if hasattr(event, "loss") else []
    assert torch.cat(drawn)[:8].equal(numbers)
    assert found == expected
    assert losses(small_training(recipe.replace(seed=9))) != expected


@pytest.fixture
def accelerate_anew() -> Iterator[None]:
    """Lets Accelerate read the environment again: it does so once in a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("accelerate_anew")
@pytest.mark.parametrize("where", ["environment", "an accelerator of the program"])
def test_the_recipe_decides_on_precision(where: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe(tiny("bert"), max_grad_norm=1e-3)
    plain = small_training(recipe)
    expected = losses(plain)
    AcceleratorState._reset_state(reset_partial_state=True)
    if where == "environment":
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
        monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    else:
        Accelerator(cpu=True, mixed_precision="bf16")
    training = small_training(recipe)
    assert losses(training) == expected
    assert all(value.equal(state(plain)[name]) for name, value in state(training).items())
    assert "forward" not in vars(training.plain)
    assert not hasattr(training.plain, "_original_forward")


PROCESS = """
import torch
from bertlora.model.draws import Draws
from bertlora.training.accelerator import agreed, new_accelerator

accelerator = new_accelerator()
rank = accelerator.process_index
with Draws(3, accelerator.device, rank).used():
    print("FOUND", rank, agreed(f"precision of {rank}"), round(float(torch.rand(1)), 6), flush=True)
"""


@pytest.mark.slow
def test_two_processes_agree_and_draw_different_dropout(tmp_path: Path) -> None:
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(script)], capture_output=True, text=True, timeout=240, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Both write at once, perhaps on one line.
    (first, *one), (second, *two) = sorted(re.findall(r"FOUND (\d) (precision of \d) (0\.\d+)", done.stdout))
    assert (first, second) == ("0", "1")
    assert one[0] == two[0] == "precision of 0"
    assert one[1] != two[1]
