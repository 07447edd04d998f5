"""A layer of BERT in 8 bits by layer.cpp: one call forward, and one backward.

Letters: T tokens of a row, B texts, D hidden size.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from bertlora.model.engine.kernels.int8 import Int8Weight, LinearLayer
from bertlora.model.engine.kernels.library import Call, native_half
from bertlora.model.engine.kernels.low_rank import Placed, Updates, lanes, takes, updates_structure

# Masks of a pass, and parts whose time is taken.
MASKS, PARTS = 7, 3
_NO, _YES = ctypes.c_int64(0), ctypes.c_int64(1)


@dataclass(frozen=True)
class Adapted:
    """A linear layer, or several with the same input, with low-rank updates.

    Attributes:
        forward: W.
        backward: W', for gradients.
        bias: b (out,), or None.
        updates: of at most three layers.
    """

    forward: Int8Weight
    backward: Int8Weight | None
    bias: Tensor | None
    updates: tuple[Placed, ...] = ()

    @staticmethod
    def serves(weight: Tensor, updates: Sequence[Placed]) -> bool:
        """Returns whether the kernel takes a layer with a weight of this shape, and these updates."""
        whole = lanes() > 1 and all(n % lanes() == 0 for n in weight.shape)
        return whole and takes(weight.shape[1], [(a, b) for a, b, *_ in updates])

    @cached_property
    def structure(self) -> "_Adapted":
        """The layer as the kernel reads it, without a mask and gradients. A and B must stay where they are."""
        forward = self.forward.structure(self.bias)
        backward = forward if self.backward is None else self.backward.structure(None)
        return _Adapted(forward, backward, updates_structure(self.forward.inner, self.forward.out, self.updates))


class Spare:
    """Memory of passes that are over, for the next ones. Fresh pages would take a quarter of a step with long texts."""

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []

    def take(self, numbers: int) -> Tensor:
        """Returns memory for this many numbers in fp32: the smallest block that is large enough, or a new one."""
        self._blocks.sort(key=Tensor.numel)
        for place, block in enumerate(self._blocks):
            if block.numel() >= numbers:
                return self._blocks.pop(place)
        self._blocks = self._blocks[1:]
        return torch.empty(numbers, dtype=torch.float32)

    def give(self, block: Tensor) -> None:
        """Takes memory back that nobody reads any more."""
        self._blocks.append(block)


class Norm(NamedTuple):
    """A layer norm: weight and bias (D,), and what is added to the variance."""

    weight: Tensor
    bias: Tensor
    eps: float


@dataclass(frozen=True)
class Layer:
    """A layer of BERT.

    Attributes:
        asking: query, key and value of all tokens side by side; or the query, of first tokens, and key and value.
        out: the output projection of attention.
        up: the first layer of the feed-forward.
        down: the second one.
        first: the norm after attention.
        second: the norm after the feed-forward.
        heads: of attention.
        spare: memory for passes.
    """

    asking: tuple[Adapted, ...]
    out: Adapted
    up: Adapted
    down: Adapted
    first: Norm
    second: Norm
    heads: int
    spare: Spare

    @property
    def linears(self) -> tuple[Adapted, ...]:
        """All linear layers, in the order of their masks and gradients."""
        return (*self.asking, self.out, self.up, self.down)

    @cached_property
    def matrices(self) -> list[Tensor]:
        """A and B of each update, in the order of their gradients."""
        return [matrix for layer in self.linears for a, b, *_ in layer.updates for matrix in (a, b)]

    @cached_property
    def sizes(self) -> list[int]:
        """The numbers of each of them."""
        return [matrix.numel() for matrix in self.matrices]

    @cached_property
    def structure(self) -> "_Layer":
        """The layer as the kernel reads it."""
        asking = (_Adapted * 2)(*(layer.structure for layer in self.asking))
        parts = (layer.structure for layer in (self.out, self.up, self.down))
        norms = (_Norm(norm.weight.data_ptr(), norm.bias.data_ptr(), norm.eps) for norm in (self.first, self.second))
        return _Layer(asking, len(self.asking), *parts, *norms, self.heads)


class _Adapted(ctypes.Structure):
    _fields_ = (
        *((name, LinearLayer) for name in ("forward", "backward")),
        ("updates", Updates),
        ("mask", ctypes.c_void_p),
    )


class _Norm(ctypes.Structure):
    _fields_ = (*((name, ctypes.c_void_p) for name in ("weight", "bias")), ("eps", ctypes.c_double))


class _Layer(ctypes.Structure):
    _fields_ = (
        ("asking", _Adapted * 2),
        ("products", ctypes.c_int64),
        *((name, _Adapted) for name in ("out", "up", "down")),
        *((name, _Norm) for name in ("first", "second")),
        ("heads", ctypes.c_int64),
    )


class _Pass(ctypes.Structure):
    _fields_ = (
        ("offsets", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("texts", "tokens", "rows", "longest", "threads", "half", "keep")),
        ("masks", ctypes.c_void_p * MASKS),
        ("seconds", ctypes.c_double * PARTS),
    )


class Pass:
    """A layer on the texts of a row, forward and then backward.

    Args:
        layer: the layer.
        offsets: (B + 1,) int32, where each text starts, and where the last one ends.
        tokens: where the last one ends.
        longest: tokens of the longest text.
        masks: m for the input of each of `Layer.linears` or None, and the dropout masks of what `out` and `down` give.
        keep: a gradient is wanted.
    """

    def __init__(
        self, layer: Layer, offsets: Tensor, tokens: int, longest: int, masks: Sequence[Tensor | None], keep: bool
    ) -> None:
        asking, rest = masks[: len(layer.asking)], masks[len(layer.asking) :]
        placed = (*asking, *[None] * (2 - len(asking)), *rest)
        self.layer, self._keep = layer, keep
        self._held: Tensor | None = None  # what the backward needs
        self.offsets, self._masks = offsets, masks  # the structure has their addresses only
        self.structure = _Pass(
            offsets.data_ptr(),
            *(len(offsets) - 1, tokens, 0, longest, torch.get_num_threads(), native_half(), keep),
            (ctypes.c_void_p * MASKS)(*(None if mask is None else mask.data_ptr() for mask in placed)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns y, (T, D) for x (T, D), or (B, D) of first tokens."""
        self.structure.rows, apart = len(x), len(self.layer.asking) == 2
        y, call = x.new_empty(self.structure.texts if apart else len(x), x.shape[1]), Call(x.dtype)
        numbers = call.count("layer_held", *self._given)
        held = self.layer.spare.take(numbers)
        self._call(call, "layer_forward", call.count("layer_room", *self._given, _NO), x, y, held)
        if self._keep:
            self._held = held
        else:
            self.layer.spare.give(held)
        return y

    def backward(self, g: Tensor, x: Tensor, wanted: bool) -> tuple[Tensor | None, list[Tensor]]:
        """Returns the gradients of x, or None if it is not wanted, and of `Layer.matrices`. It runs once.

        Args:
            g: the gradient of y.
            x: the input of `forward`.
            wanted: whether the gradient of x is wanted.
        """
        held, self._held = self._held, None
        assert held is not None, "no gradient was wanted, or the backward ran already"
        g_x, gradients = torch.empty_like(x) if wanted else None, x.new_empty(sum(self.layer.sizes))
        call = Call(x.dtype)
        room = self.layer.spare.take(call.count("layer_room", *self._given, _YES))
        self._call(call, "layer_backward", room, g, x, held, g_x, gradients)
        self.layer.spare.give(held)
        self.layer.spare.give(room)
        pairs = zip(torch.split(gradients, self.layer.sizes), self.layer.matrices, strict=True)
        return g_x, [part.view(matrix.shape) for part, matrix in pairs]

    @property
    def _given(self) -> tuple[object, object]:
        return ctypes.byref(self.structure), ctypes.byref(self.layer.structure)

    def _call(self, call: Call, name: str, room: int | Tensor, *tensors: Tensor | None) -> None:
        assert all(x is None or (x.dtype == torch.float32 and x.is_contiguous()) for x in tensors)
        call(name, self.structure, room, self._given[1], *tensors)
