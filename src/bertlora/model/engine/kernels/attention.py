"""Attention of packed texts, by attention.cpp.

Letters: T tokens, Q queries, H heads, d dimensions of a head, B texts.
"""

import ctypes

import torch
from torch import Tensor

from bertlora.model.engine.kernels.library import Call, computed


class _Shape(ctypes.Structure):
    """`Shape` in attention.cpp."""

    _fields_ = (
        ("offsets", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("texts", "heads", "dim", "one_query", "window")),
        *((name, ctypes.c_int64) for name in ("q_stride", "k_stride", "v_stride", "room", "threads")),
        ("scale", ctypes.c_double),
    )


class PackedAttention:
    """Attention of packed texts, each over itself.

    Args:
        q: (Q, H, d) queries: one for each token, or one for each text.
        k: (T, H, d) keys.
        v: (T, H, d) values.
        offsets: (B + 1,) int32: where each text starts, and where the last one ends.
        lengths: tokens of each text.
        scale: factor on the scores.
        window: tokens at this distance or further are hidden; None hides none.
    """

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        offsets: Tensor,
        lengths: tuple[int, ...],
        scale: float,
        window: int | None,
    ) -> None:
        self.q, self.k, self.v = (_by_token(x) for x in (q, k, v))
        self.offsets, self.longest, self.tokens = offsets, max(lengths), sum(lengths)
        one_query = len(q) != len(k)
        self.queries = len(lengths) if one_query else self.tokens
        self.shape = _Shape(
            offsets=offsets.data_ptr(),
            texts=len(lengths),
            heads=q.shape[1],
            dim=q.shape[2],
            one_query=one_query,
            window=window or 0,
            q_stride=self.q.stride(0),
            k_stride=self.k.stride(0),
            v_stride=self.v.stride(0),
            scale=scale,
        )

    def forward(self, keep: bool) -> tuple[Tensor, Tensor | None]:
        """Returns the output (Q, H, d); with `keep`, also the logarithms of the sums, (H, Q), for the backward."""
        out, dtype = self._empty(self.q), computed(self.q.dtype)
        sums = torch.empty(self.q.shape[1], self.queries, dtype=dtype) if keep else None
        self._call("attention_forward", out, sums, backward=False)
        return out, sums

    def backward(self, g: Tensor, out: Tensor, sums: Tensor, needed: tuple[bool, ...]) -> list[Tensor | None]:
        """Returns the gradients of q, k and v, each if it is needed; g is the gradient of the output."""
        g = g.to(self.q.dtype).contiguous()
        mine = zip((self.q, self.k, self.v), needed, strict=True)
        gradients = [self._empty(x) if wanted else None for x, wanted in mine]
        self._call("attention_backward", g, out, sums, *gradients, backward=True)
        return gradients

    def _empty(self, x: Tensor) -> Tensor:
        """Returns an uninitialised tensor like x, with 0 at the filler."""
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        out[self.tokens :] = 0  # nothing, if each text has one query
        return out

    def _call(self, name: str, *tensors: Tensor | None, backward: bool) -> None:
        call, shape = Call(self.q.dtype), self.shape
        shape.threads = torch.get_num_threads()
        sizes = (ctypes.c_int64(n) for n in (self.longest, shape.dim, backward))
        shape.room = call.count("attention_room", *sizes)
        call(name, shape, shape.room * shape.threads, self.q, self.k, self.v, *tensors)


def _by_token(x: Tensor) -> Tensor:
    """Returns x (N, H, d) so that the numbers of a token have no gaps; the tokens may have."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()
