"""Layers of BERT in 8 bits by layer.cpp, except their attention: adapted linear layers, and all that follows attention.

Letters: N rows, D hidden size, W wide size of the feed-forward, R rank.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from bertlora.model.engine.kernels.int8 import Int8Weight, LinearLayer, Work
from bertlora.model.engine.kernels.library import Call
from bertlora.model.engine.kernels.low_rank import Placed, Updates, lanes, takes, updates_structure

Gradients = Sequence[tuple[Tensor, Tensor]]


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

    @property
    def deep(self) -> int:
        """Columns of A (m ⊙ x): the ranks of all updates, up to whole vectors."""
        return -(-sum(a.shape[0] for a, *_ in self.updates) // lanes()) * lanes()

    def low(self, rows: int) -> Tensor:
        """Returns room for A (m ⊙ x), (N, deep)."""
        return self.forward.scales.new_empty(rows, self.deep)

    @cached_property
    def structure(self) -> "_Adapted":
        """The layer as the kernel reads it, without a mask and gradients. A and B must stay where they are."""
        forward = self.forward.structure(self.bias)
        backward = forward if self.backward is None else self.backward.structure(None)
        return _Adapted(forward, backward, updates_structure(self.forward.inner, self.forward.out, self.updates))

    def room(self) -> Gradients:
        """Returns room for the gradients of A and B."""
        return [(torch.empty_like(a), torch.empty_like(b)) for a, b, *_ in self.updates]


class Norm(NamedTuple):
    """A layer norm: weight and bias (D,), and what is added to the variance."""

    weight: Tensor
    bias: Tensor
    eps: float


@dataclass(frozen=True)
class Rest:
    """What follows attention: the output projection, the feed-forward, and the norm after each."""

    out: Adapted
    up: Adapted
    down: Adapted
    first: Norm
    second: Norm

    @property
    def linears(self) -> tuple[Adapted, Adapted, Adapted]:
        """The three linear layers."""
        return self.out, self.up, self.down

    @cached_property
    def structure(self) -> "_Rest":
        """All of it as the kernel reads it, without masks, gradients and what is kept."""
        norms = (_Norm(norm.weight.data_ptr(), norm.bias.data_ptr(), norm.eps) for norm in (self.first, self.second))
        return _Rest(*(layer.structure for layer in self.linears), *norms)


class Masks(NamedTuple):
    """Dropout masks of a `Rest`: m for the input of each linear layer, and those of two outputs, (N, D)."""

    out: Tensor | None = None
    up: Tensor | None = None
    down: Tensor | None = None
    after_out: Tensor | None = None
    after_down: Tensor | None = None


class Kept(NamedTuple):
    """What the backward of a `Rest` needs; see layer.cpp."""

    first: Tensor
    first_scale: Tensor
    slope: Tensor
    active: Tensor | None
    second: Tensor
    second_scale: Tensor
    low_out: Tensor
    low_up: Tensor
    low_down: Tensor

    @classmethod
    def room(cls, x: Tensor, rest: Rest) -> "Kept":
        """Returns room for it, for an input like x, (N, D)."""
        rows, lows = len(x), (layer.low(len(x)) for layer in rest.linears)
        slope = x.new_empty(rows, rest.up.forward.out, dtype=torch.float16)
        active = torch.empty_like(slope) if rest.down.updates else None
        norms = [(torch.empty_like(x), x.new_empty(rows)) for _ in range(2)]
        return cls(*norms[0], slope, active, *norms[1], *lows)


class _Adapted(ctypes.Structure):
    _fields_ = (
        *((name, LinearLayer) for name in ("forward", "backward")),
        ("updates", Updates),
        ("mask", ctypes.c_void_p),
    )


class _Norm(ctypes.Structure):
    _fields_ = (*((name, ctypes.c_void_p) for name in ("weight", "bias")), ("eps", ctypes.c_double))


class _Kept(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name in Kept._fields)


class _Rest(ctypes.Structure):
    _fields_ = (
        *((name, _Adapted) for name in ("out", "up", "down")),
        *((name, _Norm) for name in ("first", "second")),
        *((name, ctypes.c_void_p) for name in ("after_out", "after_down")),
        ("kept", _Kept),
    )


def linear(x: Tensor, layer: Adapted, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns y = W x + b + s B A (m ⊙ x), (N, out) for x (N, in), and A (m ⊙ x), for `linear_gradients`."""
    y, low = x.new_empty(len(x), layer.forward.out), layer.low(len(x))
    _call("layer_linear", x, y, low, layer=_with(layer.structure, mask))
    return y, low


def linear_gradients(
    g: Tensor, x: Tensor, low: Tensor, plus: Tensor | None, layer: Adapted, mask: Tensor | None, wanted: bool
) -> tuple[Tensor | None, Gradients]:
    """Returns the gradient of x, (N, in), or None if it is not wanted, and those of each update's A and B.

    Args:
        g: the gradient of y, (N, out).
        x: the input of `linear`.
        low: what `linear` returned.
        plus: added to the gradient of x; None adds nothing.
        layer: the layer.
        mask: m, or None.
        wanted: whether the gradient of x is wanted.
    """
    g_x, gradients = torch.empty_like(x) if wanted else None, layer.room()
    _call("layer_linear_back", g, x, low, plus, g_x, layer=_with(layer.structure, mask, gradients))
    return g_x, gradients


def rest(a: Tensor, x: Tensor, layers: Rest, masks: Masks, keep: bool) -> tuple[Tensor, Kept | None]:
    """Returns a layer's output, (N, D), and with `keep` what `rest_gradients` needs.

    Args:
        a: the output of attention, (N, D).
        x: the layer's input, (N, D).
        layers: what follows attention.
        masks: see `Masks`.
        keep: a gradient is wanted.
    """
    y, kept = torch.empty_like(x), Kept.room(x, layers) if keep else None
    _call("layer_rest", a, x, y, rest=_rest(layers, masks, kept))
    return y, kept


def rest_gradients(
    g: Tensor, a: Tensor, kept: Kept, layers: Rest, masks: Masks, wanted: bool
) -> tuple[Tensor, Tensor | None, list[Gradients]]:
    """Returns the gradients of x, by the sum, of a, or None if it is not wanted, and of each layer's A and B.

    Args:
        g: the gradient of the output, (N, D).
        a: the output of attention, (N, D).
        kept: what `rest` returned.
        layers: what follows attention.
        masks: see `Masks`.
        wanted: whether the gradient of a is wanted.
    """
    g_x, g_a = torch.empty_like(a), torch.empty_like(a) if wanted else None
    gradients = [layer.room() for layer in layers.linears]
    _call("layer_rest_back", g, a, g_x, g_a, rest=_rest(layers, masks, kept, gradients))
    return g_x, g_a, gradients


def _with(structure: _Adapted, mask: Tensor | None, gradients: Gradients = ()) -> _Adapted:
    """Returns a copy of a layer's structure with these."""
    copied = _Adapted.from_buffer_copy(structure)
    _put(copied, mask, gradients)
    return copied


def _rest(layers: Rest, masks: Masks, kept: Kept | None, gradients: Sequence[Gradients] = ((),) * 3) -> _Rest:
    copied = _Rest.from_buffer_copy(layers.structure)
    copied.after_out, copied.after_down = map(_address, masks[3:])
    for name, found in zip(("out", "up", "down"), gradients, strict=True):
        _put(getattr(copied, name), getattr(masks, name), found)
    if kept:
        copied.kept = _Kept(*map(_address, kept))
    return copied


def _put(to: _Adapted, mask: Tensor | None, gradients: Gradients) -> None:
    to.mask = _address(mask)
    for part, (g_a, g_b) in zip(to.updates.part, gradients, strict=False):  # there is room for more parts
        part.ga, part.gb = g_a.data_ptr(), g_b.data_ptr()


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _call(name: str, *tensors: Tensor | None, layer: _Adapted | None = None, rest: _Rest | None = None) -> None:
    """Calls a function of the library on rows, (N, ...), with one layer or what follows attention."""
    first = tensors[0]
    assert first is not None
    assert all(x is None or (x.dtype == torch.float32 and x.is_contiguous()) for x in tensors)
    call, work = Call(first.dtype), Work(len(first), torch.get_num_threads())
    given = [None if x is None else ctypes.byref(x) for x in (layer, rest)]
    room = call.count("layer_room", ctypes.byref(work), *given)
    call(name, work, room, *tensors, next(x for x in given if x is not None))
