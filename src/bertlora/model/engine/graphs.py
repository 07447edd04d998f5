"""CUDA graphs of a training's passes over packed rows.

A pass of a small encoder is a thousand short kernels. Python takes several times as long to start them as a GPU takes
to run them. A graph records the kernels of a pass once, and later starts all of them by one call.

A graph has fixed shapes, and fixed places in memory. So rows are filled up to few sizes. The filler is one more text,
whose logits are left out. It gets no gradient.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bertlora.model.engine.packing import Packing, Window, packed_row

# Rows are filled up to a multiple of this many tokens. The filler's positions are below it.
ROW_STEP = 256
OFFSETS = "offsets"
# The model's inputs and the places of the texts → logits, (texts, K).
Pass = Callable[[dict[str, Tensor], Packing], Tensor]


class Graphs:
    """The graphs of one model, one for each shape of its rows.

    A shape is recorded when it comes the second time. The first pass runs as usual, on the same rows: it makes what
    libraries set up at their first call, which cannot be recorded.

    Args:
        run: runs the model with gradients.
        config: the model's.
        pad_id: the tokenizer's padding id.
        takes_types: whether the model reads token types.
        trained: parameters that may get gradients.
    """

    def __init__(self, run: Pass, config: Any, pad_id: int, takes_types: bool, trained: Sequence[nn.Parameter]) -> None:
        self._run, self._config, self._pad_id, self._takes_types = run, config, pad_id, takes_types
        self._trained, self._device = trained, trained[0].device
        self._step = min(ROW_STEP, int(config.max_position_embeddings))
        self._recorded: dict[Any, _Recorded | None] = {}
        self._gradients: _Gradients | None = None
        self._memory = torch.cuda.graph_pool_handle()

    def logits(self, windows: Sequence[Window]) -> Tensor:
        """Returns the logits of these windows, (P, K). Their gradient must be taken before the next call.

        A backward pass adds to the parameters' gradients; it does not run for `torch.autograd.grad`.
        """
        tokens = sum(len(ids) for ids, _ in windows)
        filler = self._step - tokens % self._step
        rows = [*windows, (np.full(filler, self._pad_id, dtype=np.int32), None)]
        batch, packing = packed_row(rows, self._config, self._pad_id, self._takes_types, self._device)
        longest = max(self._step, 1 << (packing.longest - 1).bit_length())
        packing = Packing.at(packing.offsets, (longest,) * len(rows))
        shape = tokens + filler, len(rows), longest, *sorted(batch)
        if shape not in self._recorded:
            self._recorded[shape] = None
            return self._run(batch, packing)[:-1]
        recorded = self._recorded[shape] = self._recorded[shape] or _Recorded(
            self._run, batch, packing, self._trained, self._memory
        )
        self._gradients = self._gradients or _Gradients(recorded.trained)
        given = batch | {OFFSETS: packing.offsets}
        logits: Tensor = _Replay.apply(recorded, given, self._gradients, self._trained[0])  # type: ignore[no-untyped-call]
        return logits[:-1]


class _Recorded:
    """A pass of one shape, forward and backward: two graphs that read and write the same memory each time.

    Args:
        run: runs the model.
        batch: the model's inputs.
        packing: where the texts are; its lengths are upper bounds.
        trained: parameters that may get gradients.
        memory: the pool of memory that all graphs share. One pass ends before the next begins.
    """

    def __init__(
        self, run: Pass, batch: dict[str, Tensor], packing: Packing, trained: Sequence[nn.Parameter], memory: Any
    ) -> None:
        self.inputs = {name: x.clone() for name, x in (batch | {OFFSETS: packing.offsets}).items()}
        own = {name: self.inputs[name] for name in batch}
        self.forward, self.backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        state = torch.cuda.get_rng_state(packing.device)
        with torch.cuda.graph(self.forward, pool=memory):
            logits = run(own, Packing.at(self.inputs[OFFSETS], packing.lengths))
        self.logits, self.slopes = logits.detach(), torch.zeros_like(logits)
        with torch.cuda.graph(self.backward, pool=memory):
            found = torch.autograd.grad(logits, trained, self.slopes, allow_unused=True)
            self.gradients = torch.cat([gradient.flatten() for gradient in found if gradient is not None])
        torch.cuda.set_rng_state(state, packing.device)
        # The same for every shape.
        self.trained = [p for p, gradient in zip(trained, found, strict=True) if gradient is not None]


class _Gradients:
    """The gradients of the parameters that get one, in one vector: a pass adds to them by one operator."""

    def __init__(self, trained: Sequence[nn.Parameter]) -> None:
        self._trained, self._sizes = trained, [p.numel() for p in trained]
        self._all = torch.zeros(sum(self._sizes), device=trained[0].device)
        parts = torch.split(self._all, self._sizes)
        self._each = [part.view(p.shape) for p, part in zip(trained, parts, strict=True)]

    def add(self, found: Tensor) -> None:
        """Adds the gradients of a pass, one after the other."""
        kept = [p.grad for p in self._trained]
        if all(gradient is own for gradient, own in zip(kept, self._each, strict=True)):
            self._all += found
        elif not any(gradient is not None for gradient in kept):
            self._all.copy_(found)
        else:  # of a pass that was not recorded, perhaps of some parameters
            for own, gradient, part in zip(self._each, kept, torch.split(found, self._sizes), strict=True):
                new = part.view(own.shape)
                own.copy_(new if gradient is None else new + gradient)
        for p, own in zip(self._trained, self._each, strict=True):
            p.grad = own


class _Replay(torch.autograd.Function):
    """The logits of a recorded pass. Backward, it adds the gradients of all trained parameters itself."""

    @staticmethod
    def forward(
        ctx: Any, recorded: _Recorded, inputs: dict[str, Tensor], gradients: _Gradients, _: nn.Parameter
    ) -> Tensor:
        # The parameter is here because the output has a gradient only if an input has.
        for name, x in inputs.items():
            recorded.inputs[name].copy_(x)
        recorded.forward.replay()
        ctx.recorded, ctx.gradients = recorded, gradients
        return recorded.logits.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        recorded: _Recorded = ctx.recorded
        recorded.slopes.copy_(grads[0])
        recorded.backward.replay()
        ctx.gradients.add(recorded.gradients)
        return None, None, None, None
