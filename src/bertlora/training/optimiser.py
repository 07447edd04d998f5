"""AdamW with a rate for each kind of parameter, and the schedules of these rates."""

import math
from typing import Any

import torch
from torch import nn

from bertlora.recipe import Recipe


def build_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """Returns AdamW over the trainable parameters.

    LoRA's A learns at `learning_rate`, B at `lora_plus_ratio` times that (Hayou et al. 2024, "LoRA+"), everything else
    at `head_learning_rate`. Biases, norms and other vectors are not decayed, as in transformers' Trainer.
    """
    head_rate = recipe.head_learning_rate or recipe.learning_rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if "lora_B" in name:
            rate = recipe.learning_rate * recipe.lora_plus_ratio
        else:
            rate = recipe.learning_rate if "lora_" in name else head_rate
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": found, "lr": rate, "peak_lr": rate, "weight_decay": decay}
            for (rate, decay), found in groups.items()
        ]
    )


def set_rates(optimiser: Any, recipe: Recipe, step: int, steps: int) -> float:
    """Sets every group's rate for step `step` (from 0) of `steps`, and returns the adapter's."""
    factor = rate_factor(recipe, step, steps)
    for group in optimiser.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return recipe.learning_rate * factor


def rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """Returns the share of the peak rate at step `step` (from 0) of `steps`: a linear warm-up, then the schedule.

    As transformers' schedules of these names, but a function of the step alone, so that resuming needs no state.
    """
    warm_up = round(recipe.warmup_fraction * steps)
    if step < warm_up:
        return step / warm_up
    if recipe.schedule == "constant":
        return 1.0
    done = (step - warm_up) / max(1, steps - warm_up)
    return max(0.0, 1 - done) if recipe.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
