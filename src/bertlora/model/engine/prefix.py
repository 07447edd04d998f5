"""The frozen prefix: the output of the layers below the lowest adapter, computed once for each text and kept.

If only the last K layers have adapters (`adapt_last_layers`), the layers below give the same output in every epoch.
A run folder keeps it in a file until the run is finished: to read it takes a fraction of the time to compute it.
"""

import os
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
from bertlora.model.engine.changes import unwrapped
from bertlora.model.engine.layers import encoder_layers, first_calls, served
from bertlora.sealed import Kept

# Bytes. Up to the first: kept in memory. Up to the second: in a file that is mapped into memory. More: not kept.
IN_MEMORY, IN_FILE = 1 << 30, 16 << 30
STATES = "states"


@dataclass(frozen=True)
class Prefix:
    """Hidden states of the windows of many texts, one after the other.

    Attributes:
        inputs: the texts.
        begin: the layer whose input the states are.
        states: (tokens, D).
        offsets: (P + 1,) where the states of each window begin.
    """

    inputs: Inputs
    begin: int
    states: Tensor
    offsets: npt.NDArray[np.int64]

    @classmethod
    def room(
        cls,
        inputs: Inputs,
        begin: int,
        width: int,
        dtype: torch.dtype,
        folder: Path | None,
        kept: Path | None = None,
    ) -> "Prefix | None":
        """Returns an empty prefix for these texts, or None if they are too many, or if the disk has no room.

        Args:
            inputs: the texts.
            begin: the layer whose input the states are.
            width: D.
            dtype: dtype of the states.
            folder: the folder of the file, if one is needed; None takes the system's temporary folder.
            kept: an existing folder in which the file stays. It is used for few states too, if the disk has room.
        """
        offsets = _offsets(inputs)
        count = int(offsets[-1]) * width
        if count * dtype.itemsize > IN_FILE:
            return None
        few = count * dtype.itemsize <= IN_MEMORY
        if kept is not None:
            flat = _mapped(kept / STATES, count, dtype)
            if flat is None:
                (kept / STATES).unlink(missing_ok=True)
        else:
            flat = None if few else _nameless(count, dtype, folder)
        if flat is None and few:
            flat = torch.empty(count, dtype=dtype)
        return None if flat is None else cls(inputs, begin, flat.view(-1, width), offsets)

    @classmethod
    def kept(cls, inputs: Inputs, begin: int, width: int, dtype: torch.dtype, kept: Kept) -> "Prefix | None":
        """Returns the prefix that an earlier process kept for these texts; None if it is not there or not whole."""
        offsets, file = _offsets(inputs), kept.folder / STATES
        count = int(offsets[-1]) * width
        if not file.is_file() or file.stat().st_size != count * dtype.itemsize or not kept.whole():
            return None
        states = torch.from_file(str(file), shared=False, size=count, dtype=dtype)
        return cls(inputs, begin, states.view(-1, width), offsets)

    def tokens(self, windows: Sequence[int]) -> Tensor:
        """Returns the row in `states` of every token of these windows, in their order."""
        return torch.from_numpy(np.concatenate([np.arange(self.offsets[p], self.offsets[p + 1]) for p in windows]))

    def put(self, windows: Sequence[int], hidden: Tensor) -> None:
        """Stores hidden states (T, D) of these windows; rows after their tokens are filler."""
        places = self.tokens(windows)
        self.states.index_copy_(0, places, hidden[: len(places)].to(self.states))

    def get(self, windows: Sequence[int], length: int, device: torch.device) -> Tensor:
        """Returns the states of these windows as a packed row (length, D), with 0 as filler."""
        places = self.tokens(windows)
        row = self.states.new_zeros(length, self.states.shape[1])
        torch.index_select(self.states, 0, places, out=row[: len(places)])
        return row.to(device)


def _offsets(inputs: Inputs) -> npt.NDArray[np.int64]:
    """Returns where the states of each window begin, (P + 1,)."""
    return np.concatenate([[0], np.cumsum(inputs.windows.lengths)]).astype(np.int64)


def _nameless(count: int, dtype: torch.dtype, folder: Path | None) -> Tensor | None:
    """Returns `count` numbers in a file that has lost its name: it goes when the process ends, in whatever way."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".prefix-") as file:
        return _mapped(Path(file.name), count, dtype)


def _mapped(path: Path, count: int, dtype: torch.dtype) -> Tensor | None:
    """Returns `count` numbers in a file that is mapped into memory, or None if the disk has no room for them.

    The space is reserved before: a write to a mapped page that the disk has no room for ends the process (SIGBUS).
    """
    reserve = getattr(os, "posix_fallocate", None)  # macOS has none
    try:
        with path.open("ab") as file:
            if reserve is not None:
                reserve(file.fileno(), 0, count * dtype.itemsize)
    except OSError:
        return None
    return torch.from_file(str(path), shared=True, size=count, dtype=dtype)


def frozen_modules(model: Any) -> list[nn.Module]:
    """Returns the modules below the lowest adapter. They have no dropout, whether their output is kept or not."""
    depth = frozen_depth(model)
    if not depth:
        return []
    inner = unwrapped(model)
    above = {module for layer in encoder_layers(model)[depth:] for module in layer.modules()}
    return [module for module in getattr(inner, inner.base_model_prefix).modules() if module not in above]


def frozen_share(model: Any, pack: bool) -> float:
    """Returns the fraction of the layers that need not run again in later epochs; 0 in padded batches (not `pack`)."""
    depth = frozen_depth(model) if pack else 0
    return depth / len(encoder_layers(model)) if depth else 0.0


def frozen_depth(model: Any) -> int:
    """Returns how many of the first layers give the same output in every epoch, since nothing up to them is trained.

    The last layer is never counted, since it always runs. In an ALBERT, its earlier calls are not counted either.
    """
    if not served(model):
        return 0
    inner, layers = unwrapped(model), encoder_layers(model)
    calls = first_calls(layers)
    numbers = {id(p): number for layer, number in calls.items() for p in layer.parameters()}
    top = calls[layers[-1]]
    encoder = getattr(inner, inner.base_model_prefix).named_parameters()
    # Modules outside the layers come before them, except for a pooler or a final norm.
    outside = [(name, p) for name, p in encoder if id(p) not in numbers]
    below = {id(p) for name, p in outside if "embedding" in name or name.startswith("encoder.")}
    learning = [0 if id(p) in below else numbers.get(id(p), top) for p in inner.parameters() if p.requires_grad]
    return min([top, *learning])
