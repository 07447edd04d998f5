"""What an adapter's file holds: which tensors, PiSSA's in a form that fits any base, and whether all are there."""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from torch import Tensor

from bertlora.model.base import Base, quiet
from bertlora.model.lora import ADAPTER


def saved_state(model: PeftModel) -> dict[str, Tensor]:
    """Returns the tensors to save, by PEFT's names: the update, every module trained whole, trained biases."""
    with quiet():
        state: dict[str, Tensor] = get_peft_model_state_dict(model, adapter_name=ADAPTER)
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
