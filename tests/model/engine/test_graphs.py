"""CUDA graphs of a training's passes: the same logits, gradients and draws as without them. All need a GPU."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_training import losses, same, small_recipe, small_training, state
from torch import Tensor

from bertlora.model.engine.execution import Execution
from bertlora.training.loop import Training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
Tiny = Callable[[str], Path]
# Steps of several shapes, and each shape twice. The texts of the second are longer than one step of the filler.
STEPS = [range(4), range(7, 16), range(4, 8), range(8, 12), range(2, 11)]
LONG = [" ".join(["it was a joy to see"] * n) for n in range(1, 17)]


def passed(training: Training, execution: Execution, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The logits of these rows, and all gradients, one after the other."""
    logits = execution.logits(training.train.inputs, rows)
    logits.float().square().sum().backward()
    learning = [p for p in training.plain.parameters() if p.requires_grad]
    gradients = torch.cat([p.grad.flatten() for p in learning if p.grad is not None])
    training.plain.zero_grad(set_to_none=True)
    return logits.detach().float(), gradients


def near(found: Tensor, expected: Tensor) -> bool:
    return float((found - expected).norm()) <= 2e-2 * float(expected.norm())


@pytest.mark.parametrize("architecture", ["albert", "bert", "roberta", "electra", "distilbert"])
def test_a_recorded_pass_gives_the_logits_and_gradients_of_a_plain_one(tiny: Tiny, architecture: str) -> None:
    recipe = small_recipe(
        tiny(architecture), precision="bf16", lora_dropout=0.0, targets=("all-linear",), max_length=60
    )
    training = small_training(recipe, texts=LONG)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in training.plain.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    with training.adapted.execution("bf16", training=True) as execution:
        assert execution.graphs is not None
        training.plain.train()
        for rows in STEPS:
            found = passed(training, execution, rows)
            expected = passed(training, replace(execution, graphs=None), rows)
            assert all(map(near, found, expected))


def test_the_gradients_of_two_passes_add_up(tiny: Tiny) -> None:
    training = small_training(small_recipe(tiny("bert"), precision="bf16", lora_dropout=0.0))
    with training.adapted.execution("bf16", training=True) as execution:
        training.plain.train()
        head = next(p for name, p in training.plain.named_parameters() if p.requires_grad and "classifier" in name)
        each = []
        for rows in ([0, 1, 2], [3, 4, 5]):
            execution.logits(training.train.inputs, rows).float().square().sum().backward()
            each.append(head.grad.clone())
            head.grad = None
        for rows in ([0, 1, 2], [3, 4, 5]):
            execution.logits(training.train.inputs, rows).float().square().sum().backward()
        assert torch.equal(head.grad, each[0] + each[1])


def test_the_same_seed_gives_the_same_adapter_and_graphs_learn_what_plain_passes_learn(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe(tiny("bert"), precision="bf16", lora_dropout=0.1)
    first, second = small_training(recipe), small_training(recipe)
    learned = losses(first)
    assert losses(second) == learned
    assert same(state(first), state(second))
    monkeypatch.setattr("bertlora.model.engine.execution.HAS_VARLEN", False)
    assert losses(small_training(recipe)) == pytest.approx(learned, rel=0.05)
