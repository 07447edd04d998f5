"""Training in several processes: the accelerator, and what the main process decides for all."""

from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import broadcast, broadcast_object_list
from torch import nn

T = TypeVar("T")


def new_accelerator() -> Accelerator:
    """Returns an accelerator that leaves precision and gradient accumulation to the recipe.

    By default, Accelerate takes both from the environment (`ACCELERATE_...`) or from an accelerator that the program
    made before, and replaces the model's forward for good.
    """
    before = AcceleratorState().mixed_precision if is_initialized() else "no"
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=before)
    accelerator.native_amp = False
    accelerator.gradient_accumulation_steps = 1
    return accelerator


def agreed(value: T) -> T:
    """Returns the main process's value, in every process."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


def share_trained(model: nn.Module) -> None:
    """Copies the main process's trainable parameters to every process."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            broadcast(parameter.data)
