"""The frozen prefix: what the layers below the lowest adapter make of each text, computed once and kept.

With adapters on the last K layers alone (`adapt_last_layers`), those below give the same for a text in every epoch.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bertlora.data.inputs import Inputs
from bertlora.model.engine.batches import unwrapped
from bertlora.model.engine.layers import encoder_layers, served

# Bytes: up to the first in memory, up to the second in a file that is mapped into memory, beyond not kept at all.
IN_MEMORY, IN_FILE = 1 << 30, 16 << 30


@dataclass(frozen=True)
class Prefix:
    """Hidden states of the windows of many texts, end to end.

    Attributes:
        inputs: the texts.
        begin: the layer that the states go into.
        states: (tokens, D).
        offsets: (P + 1,) where each window's begin.
    """

    inputs: Inputs
    begin: int
    states: Tensor
    offsets: npt.NDArray[np.int64]

    @classmethod
    def room(cls, inputs: Inputs, begin: int, width: int, dtype: torch.dtype, folder: Path | None) -> "Prefix | None":
        """Returns room for these texts; None where they are too many to keep.

        Args:
            inputs: the texts.
            begin: the layer that the states go into.
            width: D.
            dtype: of the states.
            folder: where the file goes, if there must be one; None is the system's temporary folder.
        """
        offsets = np.concatenate([[0], np.cumsum(inputs.windows.lengths)]).astype(np.int64)
        shape = (int(offsets[-1]), width)
        size = shape[0] * width * dtype.itemsize
        if size > IN_FILE:
            return None
        if size <= IN_MEMORY:
            return cls(inputs, begin, torch.empty(shape, dtype=dtype), offsets)
        # The file has no name once it is mapped, and is gone when the process ends, however it ends.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".prefix-") as file:
            flat = torch.from_file(file.name, shared=True, size=shape[0] * width, dtype=dtype)
        return cls(inputs, begin, flat.view(shape), offsets)

    def tokens(self, windows: Sequence[int]) -> Tensor:
        """Returns the place of every token of these windows, in their order."""
        return torch.from_numpy(np.concatenate([np.arange(self.offsets[p], self.offsets[p + 1]) for p in windows]))

    def put(self, windows: Sequence[int], hidden: Tensor) -> None:
        """Keeps hidden states (T, D) of these windows; what comes after their tokens is filler."""
        places = self.tokens(windows)
        self.states.index_copy_(0, places, hidden[: len(places)].to(self.states))

    def get(self, windows: Sequence[int], length: int, device: torch.device) -> Tensor:
        """Returns the states of these windows as a packed row (length, D), 0 at its filler."""
        places = self.tokens(windows)
        row = self.states.new_zeros(length, self.states.shape[1])
        torch.index_select(self.states, 0, places, out=row[: len(places)])
        return row.to(device)


def frozen_modules(model: Any) -> list[nn.Module]:
    """Returns the modules below the lowest adapter; they drop nothing, whether what they give is kept or not."""
    depth = frozen_depth(model)
    if not depth:
        return []
    inner = unwrapped(model)
    above = {module for layer in encoder_layers(model)[depth:] for module in layer.modules()}
    return [module for module in getattr(inner, inner.base_model_prefix).modules() if module not in above]


def frozen_depth(model: Any) -> int:
    """Returns how many layers, from the lowest, give the same in every epoch: neither they nor what is below learns.

    The last layer always runs; its output is the head's.
    """
    if not served(model):
        return 0
    inner, layers = unwrapped(model), encoder_layers(model)
    numbers = {id(p): number for number, layer in enumerate(layers) for p in layer.parameters()}
    top = len(layers) - 1
    encoder = getattr(inner, inner.base_model_prefix).named_parameters()
    # What is in no layer stands below them all, but for a pooler or a last norm.
    below = {id(p) for name, p in encoder if id(p) not in numbers and "embedding" in name}
    learning = [0 if id(p) in below else numbers.get(id(p), top) for p in inner.parameters() if p.requires_grad]
    return min([top, *learning])
