"""The base as it was before training. Some adapters change it: trained biases, PiSSA's share of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from torch import Tensor, nn

from bertlora.model.lora import adapter_off


def values_at_risk(model: nn.Module, bias: str, init_lora_weights: bool | str) -> dict[str, Tensor]:
    """Returns copies of what an adapter with these settings may change in `model`, a classifier without adapter yet."""
    moves_weights = isinstance(init_lora_weights, str) and init_lora_weights != "gaussian"
    return {
        name: value.detach().clone()
        for name, value in model.named_parameters()
        if (bias != "none" and name.endswith("bias")) or (moves_weights and name.endswith("weight") and value.ndim == 2)
    }


def changed_values(adapted: PeftModel, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns those of `values` that the adapter did change or will train, by their names in the adapted model."""
    changed = {}
    for name, value in adapted.named_parameters():
        plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        if plain in values and (value.requires_grad or not torch.equal(value.cpu(), values[plain].cpu())):
            changed[name] = values[plain]
    return changed


@contextmanager
def base_alone(model: PeftModel, changed: dict[str, Tensor]) -> Iterator[None]:
    """Inside, `model` is the base with its untrained head, `changed` values put back for as long."""
    parameters = {name: value for name, value in model.named_parameters() if name in changed}
    held = {name: value.detach().clone() for name, value in parameters.items()}
    try:
        _put(parameters, changed)
        with adapter_off(model):
            yield
    finally:
        _put(parameters, held)


def _put(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])
