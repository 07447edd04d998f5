"""Which weights an adapter trains, which of the base's it changes, and which its file holds.

Some adapters change the base itself: trained biases, and the part of the weights that PiSSA moves into A and B.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from torch import Tensor, nn

from bertlora.model.base import Base, quiet
from bertlora.model.build import ADAPTER


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Returns a copy of every trainable tensor by name, on the CPU."""
    return {n: p.detach().to("cpu", copy=True) for n, p in model.named_parameters() if p.requires_grad}


def load_trained_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Puts tensors from `trained_state` back."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in state.items():
            parameters[name].copy_(value)


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


def saved_state(model: PeftModel) -> dict[str, Tensor]:
    """Returns the tensors to save, by PEFT's names: the update, every module trained whole, trained biases."""
    with quiet():
        # By default PEFT asks the hub whether the vocabulary was resized.
        state: dict[str, Tensor] = get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    # With bias "all" PEFT lists the biases of modules trained whole three times.
    twice = (".modules_to_save.", ".original_module.")
    return {name: value for name, value in state.items() if not any(part in name for part in twice)}


def missing_weights(file: Path, adapted: PeftModel, base: Base, whole: Sequence[str]) -> list[str]:
    """Returns what neither the file nor the base holds, and PEFT therefore leaves as it was drawn.

    Args:
        file: adapter_model.safetensors.
        adapted: the model it was loaded into.
        base: the base model.
        whole: modules of the classifier that are new, or that are trained whole.
    """
    with safe_open(file, framework="pt") as tensors:
        stored = set(tensors.keys())
    known = [f".{name}" for name in [*stored, *base.tensor_names()]]
    return sorted(set(saved_state(adapted)) - stored) + [
        module for module in whole if not any(f".{module}." in name for name in known)
    ]


def without_pissa(
    state: dict[str, Tensor], config: LoraConfig, initial: dict[str, Tensor]
) -> tuple[dict[str, Tensor], LoraConfig]:
    """Returns the same update as plain LoRA of twice the rank, for the base as it was before PiSSA took its share.

    PiSSA (Meng et al. 2024) moves s B0 A0 out of W. What was learned is s (B A - B0 A0) = s [B, -B0] [A; A0].
    """
    first = {name.replace(f".{ADAPTER}.", "."): value for name, value in initial.items()}
    plain = {}
    for name, value in state.items():
        start = first.get(name)
        if ".lora_A." in name and start is not None:
            value = torch.cat([value.cpu(), start])
        elif ".lora_B." in name and start is not None:
            value = torch.cat([value.cpu(), -start], dim=1)
        plain[name] = value
    config.init_lora_weights = True
    # alpha / rank is kept as it was.
    config.r, config.lora_alpha = 2 * config.r, 2 * config.lora_alpha
    config.rank_pattern = {k: 2 * v for k, v in config.rank_pattern.items()}
    config.alpha_pattern = {k: 2 * v for k, v in config.alpha_pattern.items()}
    return plain, config
