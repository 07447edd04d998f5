"""Attention over packed rows, through transformers' attention interface.

    S = q k' / sqrt(d) + bias      P = softmax(S)      o = P v      for each text on its own

On a GPU with bf16, in half precision, this is torch's variable-length attention. On a CPU it is the native kernel, if
one serves the processor. Otherwise it is `MatrixAttention`, batched matrix products over the buckets of a `Packing`. On
a CPU these are several times as fast as torch's fused kernel, and the native kernel is tested against them.

In bf16, numbers have eight significant bits, so (T, T) matrices must be few and sums exact. So `MatrixAttention`
makes everything that is added to the scores before the exponential a part of the matrix product. It is in extra columns
of q and k, and is added in fp32:

    forward     [q/sqrt(d), -m, 1] [k, 1, c]'  =  S - m + c   m: near the row's maximum; c: far below 0 at padding
                exp(that) v                    =  o r         r: the row's sum of exponentials
    backward    exp(the same)                  =  P r         computed again, so no (T, T) matrix is kept; 0 at padding
                [g/r, -D] [v, 1]'              =  dS / (P r)  D: g'o/r

The recomputation follows Dao et al. 2022, "FlashAttention". q, k, v, o and g (the gradient of o) are
(tokens, heads, d).
"""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from bertlora.model.engine import kernels
from bertlora.model.engine.blocks import LOG2_E, Block, blocks_of
from bertlora.model.engine.gpu_attention import HAS_VARLEN, attend_on_gpu
from bertlora.model.engine.kernels.library import Call, computed, native_half
from bertlora.model.engine.packing import SHORT, Packing
from bertlora.model.machine import HALF, has_bf16

NAME = "bertlora_packed"
# The maximum of a row's scores is taken from every 16th key first.
FEW_KEYS = 16
LARGEST_SUM = 2.0**40


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    packing: Packing | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls: query, key and value (1, H, T, d) → (1, T, H, d). It has no dropout."""
    assert packing is not None, "packed attention was called without a packing"
    q, k, v = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # In transformers too, a window of n sees tokens at distances below n.
    return attend(q, k, v, packing, scale, sliding_window)[None], None


AttentionInterface.register(NAME, packed_attention)


class Given(NamedTuple):
    """What makes the scores, besides queries and keys; see `attend`.

    Attributes:
        packing: where the texts are.
        scale: factor on the scores.
        window: tokens at this distance or further are hidden.
        bias: added to the scores, by distance.
        half: what the native kernel multiplies in, as `native_half` says it; 0 is the type that it computes in.
    """

    packing: Packing
    scale: float
    window: int | None = None
    bias: Tensor | None = None
    half: int = 0


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    packing: Packing,
    scale: float,
    window: int | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Returns the attention of each text over itself, (Q, H, d).

    Args:
        q: (Q, H, d) queries: one for each token, or one for each text.
        k: (T, H, d) keys.
        v: (T, H, d) values.
        packing: where the texts are.
        scale: factor on the scores.
        window: tokens at this distance or further are hidden; None hides none.
        bias: (H, 2 N - 1) added to the scores, by the distance from query to key, from -(N - 1) to N - 1; it gets no
            gradient. N is at least the length of the longest text. None adds nothing.
    """
    assert bias is None or bias.shape[1] >= 2 * packing.longest - 1, "a text is longer than its bias"
    half = q.is_cuda and q.dtype in HALF.values() and has_bf16()
    # varlen_attn counts a window from the end of the keys, but a text's only query is at their start.
    if half and HAS_VARLEN and bias is None and (window is None or len(q) == len(k)):
        return attend_on_gpu(q, k, v, packing, scale, window)
    if kernels.serves(q, k, v):
        given = Given(packing, scale, window, bias, native_half() if q.dtype == torch.bfloat16 else 0)
        out: Tensor = NativeAttention.apply(q, k, v, given)  # type: ignore[no-untyped-call]
        return out
    # One query for each text is little work, so it runs in fp32, which needs no new code for each new shape. And fp16
    # cannot hold the sums of `MatrixAttention`.
    wide = torch.promote_types(q.dtype, torch.float32) if len(q) != len(k) or q.dtype == torch.float16 else q.dtype
    with torch.autocast(q.device.type, enabled=False):
        made = (x.to(wide) for x in (q, k, v))
        out = MatrixAttention.apply(*made, Given(packing, scale, window, bias))  # type: ignore[no-untyped-call]
    return out.to(q.dtype)


class NativeAttention(torch.autograd.Function):
    """Attention of packed rows by `kernels/attention.cpp`."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, given: Given) -> Tensor:
        q, k, v = (_by_token(x) for x in (q, k, v))
        packing, keep = given.packing, any(ctx.needs_input_grad)
        out, queries = packing.outputs(q), packing.tokens if len(q) == len(k) else len(packing)
        # The logarithms of the sums, which the backward needs.
        sums = q.new_empty(q.shape[1], queries, dtype=computed(q.dtype)) if keep else None
        _call_native("attention_forward", given, (q, k, v), (out, sums))
        ctx.save_for_backward(q, k, v, sums)
        ctx.given = given
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, sums = ctx.saved_tensors
        needed = zip((q, k, v), ctx.needs_input_grad[:3], strict=True)
        gradients = [ctx.given.packing.outputs(x) if needs else None for x, needs in needed]
        g = grads[0].to(q.dtype).contiguous()
        _call_native("attention_backward", ctx.given, (q, k, v), (g, sums), gradients)
        return (*gradients, None)


class _Shape(ctypes.Structure):
    """`Shape` in attention.cpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("offsets", "bias")),
        *((name, ctypes.c_int64) for name in ("texts", "heads", "dim", "one_query", "window", "distances")),
        *((name, ctypes.c_int64) for name in ("q_stride", "k_stride", "v_stride", "room", "threads")),
        *((name, ctypes.c_int64) for name in ("gq_stride", "gk_stride", "gv_stride", "half")),
        ("scale", ctypes.c_double),
    )


def _call_native(
    name: str,
    given: Given,
    inputs: Sequence[Tensor],
    others: Sequence[Tensor | None],
    gradients: Sequence[Tensor | None] = (),
) -> None:
    """Calls a function of the kernel with q, k, v, the other tensors and the gradients, in its order."""
    q, k, _ = inputs
    (packing, scale, window, bias, half), (_, heads, dim), call = given, q.shape, Call(q.dtype)
    sizes = packing.longest, dim, bool(gradients)
    room, threads = call.count("attention_room", *map(ctypes.c_int64, sizes)), torch.get_num_threads()
    strides = [x.stride(0) for x in inputs]
    slopes = [0 if x is None else x.stride(0) for x in gradients or (None, None, None)]
    by_distance, distances = (None, 0) if bias is None else (bias.to(computed(q.dtype)).contiguous(), bias.shape[1])
    asked = len(packing), heads, dim, len(q) != len(k), window or 0, distances
    pointers = packing.offsets.data_ptr(), None if by_distance is None else by_distance.data_ptr()
    shape = _Shape(*pointers, *asked, *strides, room, threads, *slopes, half, scale)
    call(name, shape, room * threads, *inputs, *others, *gradients)


def _by_token(x: Tensor) -> Tensor:
    """Returns x (N, H, d) so that the numbers of a token have no gaps; the tokens may have."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()


class MatrixAttention(torch.autograd.Function):
    """Attention of packed rows with a hand-written backward; see the head of this file."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, given: Given) -> Tensor:
        out = given.packing.outputs(q)
        ctx.shifts, ctx.totals = [], []
        for block in blocks_of(given.packing.buckets, q, k, given.window, given.bias):
            left, right = block.asking(q, given.scale), block.asked(k)
            weights, sums = _exponentials(block, left, right)
            block.put(out, torch.bmm(weights, block.keys(v)), sums)
            ctx.shifts.append(block.shift(left))
            ctx.totals.append(sums)
        ctx.save_for_backward(q, k, v, out)
        ctx.given = given
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out = ctx.saved_tensors
        packing, scale, window, bias, _ = ctx.given
        g = grads[0].to(q.dtype)
        due = (g * out).sum(-1, keepdim=True)
        needed = zip((q, k, v), ctx.needs_input_grad[:3], strict=True)
        gq, gk, gv = (packing.outputs(x) if needs else None for x, needs in needed)
        blocks = blocks_of(packing.buckets, q, k, window, bias)
        for block, shift, total in zip(blocks, ctx.shifts, ctx.totals, strict=True):
            left, right = block.asking(q, scale, shift), block.asked(k)
            change = block.queries(g, total, 0.0)
            change[..., -1:] = block.queries(due, -total)
            # Transposed, (keys, queries): two of the three products below then read it by rows.
            weights = block.masked_by_key(torch.bmm(right, left.mT)).exp2_()
            if gv is not None:
                block.put_keys(gv, torch.bmm(weights, change[..., :-1]))
            slopes = torch.bmm(block.keys(v, 1.0), change.mT).mul_(weights)
            if gk is not None:
                block.put_keys(gk, torch.bmm(slopes, left[..., :-2]), LOG2_E)
            if gq is not None:
                block.put(gq, torch.bmm(slopes.mT, right[..., :-2]), 1 / scale)
        return gq, gk, gv, None


def _exponentials(block: Block, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Returns exp(S - m + c), (h N, L or 1, L), and its row sums; puts -m into its column of `left`.

    m need not be the exact maximum. It must be near enough that the sums do not overflow and the quotients do not
    underflow. It comes from every sixteenth key; if the sums then get too large, from all keys.
    """
    # If several texts share a matrix, every sixteenth key could miss a text.
    for stride in (FEW_KEYS, 1) if block.bucket.asked is None else (1,):
        left[..., -2] = 0.0
        # (keys, queries): a maximum over the first dimension is fast.
        scores = block.masked_by_key(torch.bmm(right[:, ::stride].contiguous(), left.mT), stride)
        left[..., -2] = -_largest(scores)
        weights = block.masked(torch.bmm(left, right.mT)).exp2_()
        sums = weights.sum(-1, keepdim=True)
        if sums.max() < LARGEST_SUM:
            break
    return weights, sums


def _largest(scores: Tensor) -> Tensor:
    """Returns the maximum over the keys, (h N, queries) of (h N, keys, queries); torch's is slow if both are few."""
    while scores.shape[2] <= SHORT and scores.shape[1] > 1:
        half = (scores.shape[1] + 1) // 2
        scores = torch.maximum(scores[:, :half], scores[:, -half:])
    return scores.amax(1)
