"""LoRA in a training on a GPU: one product with the updated weight gives the same outputs and gradients."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import small_recipe, small_training
from torch import Tensor

from bertlora.model.engine.execution import Execution
from bertlora.model.engine.layers import encoder_layers
from bertlora.model.engine.lora_linear import LoraLinear
from bertlora.model.engine.merging import merging
from bertlora.training.loop import Training

Tiny = Callable[[str], Path]
UNLIKE: dict[str, Any] = {"rank_pattern": {"key": 2, "ffn-in": 3}, "alpha_pattern": {"value": 5.0}}


def made(model: Path, **changes: Any) -> Training:
    """A training whose updates are not 0."""
    training = small_training(small_recipe(model, lora_dropout=0.0, rank=4, **changes))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in training.plain.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return training


def learned(training: Training, execution: Execution) -> dict[str, Tensor]:
    """The logits of all rows, and the gradients of all that is trained."""
    training.plain.zero_grad(set_to_none=True)
    logits = execution.logits(training.train.inputs, range(len(training.train)))
    logits.square().sum().backward()
    gradients = {n: p.grad for n, p in training.plain.named_parameters() if p.requires_grad and p.grad is not None}
    return {"logits": logits.detach()} | gradients


@pytest.mark.parametrize("changes", [{}, UNLIKE, {"targets": ("query", "ffn-out")}])
@pytest.mark.parametrize("architecture", ["albert", "bert", "distilbert", "modernbert"])
def test_an_updated_product_gives_the_logits_and_gradients_of_three(
    tiny: Tiny, architecture: str, changes: dict[str, Any]
) -> None:
    if changes is UNLIKE and architecture == "modernbert":
        pytest.skip("its query, key and value are one layer")
    training = made(tiny(architecture), **({"targets": ("all-linear",)} | changes))
    model = training.plain
    with training.adapted.execution("fp32", training=True) as execution:
        model.train()
        expected = learned(training, execution)
        with merging(model) as refresh:
            assert refresh is not None
            refresh()
            found = learned(training, execution)
        assert not any("forward" in vars(m) for m in model.modules() if isinstance(m, LoraLinear))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float((found[name] - value).norm()) <= 1e-5 * float(value.norm()) + 1e-6, name


def test_the_updates_are_those_of_the_latest_refresh(tiny: Tiny) -> None:
    training = made(tiny("bert"))
    with training.adapted.execution("fp32", training=True) as execution, merging(training.plain) as refresh:
        assert refresh is not None
        refresh()
        before = learned(training, execution)["logits"]
        with torch.no_grad():
            for module in encoder_layers(training.plain).modules():
                if isinstance(module, LoraLinear):
                    module.lora_B["default"].weight.mul_(2.0)
        assert torch.equal(learned(training, execution)["logits"], before)
        refresh()
        assert not torch.allclose(learned(training, execution)["logits"], before)


def test_updates_with_dropout_stay_as_they_are(tiny: Tiny) -> None:
    training = small_training(small_recipe(tiny("bert"), lora_dropout=0.1))
    with training.adapted.execution("fp32", training=True), merging(training.plain) as refresh:
        assert refresh is None
        assert not any("forward" in vars(m) for m in training.plain.modules() if isinstance(m, LoraLinear))
