"""The low-rank part of a LoRA linear layer by low_rank.cpp.

    down    h = (m ⊙ x) A'           backward    gA = gh' (m ⊙ x)      gx += (gh A) ⊙ m
    up      y += s h B'              backward    gB = s g' h            gh = s g B

x (N, in), y and g (N, out), and m like x or None, are of one type; columns of a wider tensor serve for x, y and g. A
(R, in), B (out, R), h (N, R) and their gradients are of the type that the kernels compute in; columns of a wider h
serve.
"""

import ctypes

import torch
from torch import Tensor

from bertlora.model.engine.kernels.library import Call, computed


class _Sizes(ctypes.Structure):
    """`Sizes` in low_rank.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("tokens", "width", "rank", "stride", "low_stride", "threads")),
        ("scale", ctypes.c_double),
    )


def down(x: Tensor, mask: Tensor | None, a: Tensor) -> Tensor:
    """Returns h."""
    h = torch.empty(len(x), len(a), dtype=computed(x.dtype))
    _call("low_rank_down", _sizes(x, h), x, x, mask, a.contiguous(), h)
    return h


def up(h: Tensor, b: Tensor, scale: float, y: Tensor) -> None:
    """Adds s h B' to y."""
    _call("low_rank_up", _sizes(y, h, scale), y, h, b.contiguous(), y)


def up_backward(g: Tensor, h: Tensor, b: Tensor, scale: float, gh: Tensor, needed: bool) -> Tensor | None:
    """Writes gh, which is laid out as h is, and returns gB if it is needed."""
    gb = torch.empty_like(b, memory_format=torch.contiguous_format) if needed else None
    _call("low_rank_up_backward", _sizes(g, h, scale), g, g, h, b.contiguous(), gh, gb)
    return gb


def down_backward(
    x: Tensor, mask: Tensor | None, a: Tensor, gh: Tensor, gx: Tensor | None, needed: bool
) -> Tensor | None:
    """Adds (gh A) ⊙ m to gx, (N, in) without gaps, and returns gA if it is needed."""
    ga = torch.empty_like(a, memory_format=torch.contiguous_format) if needed else None
    _call("low_rank_down_backward", _sizes(x, gh), x, x, mask, a.contiguous(), gh, gx, ga)
    return ga


def _sizes(rows: Tensor, low: Tensor, scale: float = 1.0) -> _Sizes:
    """Returns the sizes of a call: `rows` is x, y or g, `low` is h or gh."""
    return _Sizes(
        tokens=len(rows),
        width=rows.shape[1],
        rank=low.shape[1],
        stride=rows.stride(0),
        low_stride=low.stride(0),
        threads=torch.get_num_threads(),
        scale=scale,
    )


def _call(name: str, sizes: _Sizes, like: Tensor, *tensors: Tensor | None) -> None:
    call = Call(like.dtype)
    call(name, sizes, call.count("low_rank_room", ctypes.byref(sizes)), *tensors)
