"""The head's last linear layer: what goes into it, and where it starts from."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from bertlora.model.engine.batches import unwrapped
from bertlora.model.engine.forwards import as_it_came, forwards


@contextmanager
def headless(model: nn.Module) -> Iterator[None]:
    """Inside, the model gives what goes into its last linear layer, (B, H), where its logits were."""
    with forwards({_last_linear(model, part): as_it_came for part in ("original_module", "modules_to_save")}):
        yield


def aim_head(model: nn.Module, weight: npt.NDArray[np.float64]) -> None:
    """Turns the last linear layer, (K, H), to the direction of `weight`, and leaves its length as it was drawn.

    Starting from the fitted head itself (Kumar et al. 2022, "LP-FT") makes large weights where features are small, and
    the encoder then hardly learns. The direction alone is enough for the first steps to go the right way. A `weight`
    of 0 has none, and changes nothing.

    Args:
        model: PEFT's model; its base's own head is left alone.
        weight: (K, H), such as a linear probe's on what goes into that layer.
    """
    layer = _last_linear(model, "modules_to_save")
    direction = torch.from_numpy(weight - weight.mean(axis=0))
    if direction.norm() > 0:
        with torch.no_grad():
            layer.weight.copy_(direction * (float(layer.weight.norm()) / float(direction.norm())))


def _last_linear(model: nn.Module, part: str) -> nn.Linear:
    """Returns the last linear layer of the head, of PEFT's copy that is trained or of the base's own."""
    heads = [m for name, m in unwrapped(model).named_modules() if isinstance(m, nn.Linear) and part in name.split(".")]
    return heads[-1]
