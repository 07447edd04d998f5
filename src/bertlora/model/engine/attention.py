"""Attention over packed rows, through transformers' attention interface.

    S = q k' / sqrt(d)      P = softmax(S)      o = P v

text by text, in the buckets of `Packing`. On a GPU in half precision it is torch's variable-length attention; elsewhere
`PackedAttention`, written as batched matrix products, which on a CPU are several times as fast as its fused kernel.

How (T, T) passes are kept few and exact in bf16, whose numbers have eight bits: everything that is added to the scores
before the exponential rides along in the matrix product, as further columns of q and k, so that it is added in fp32:

    forward     [q/sqrt(d), -m, 1] [k, 1, c]'  =  S - m + c   m: near the row's maximum; c: far below 0 at padding
                exp(that) v                    =  o r         r: the sum of the row's exponentials
    backward    exp(the same)                  =  P r         recomputed: no (T, T) matrix is kept
                [g/r, -D] [v, 1]'              =  dS / (P r)  D: g'o/r

after Dao et al. 2022, "FlashAttention", for what is recomputed; q, k, v, o, g (a gradient) are (tokens, heads, d).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from bertlora.model.engine.packing import FAR_BELOW, Bucket, Packing, Places

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # an older torch
    varlen_attn: Any = None  # type: ignore[no-redef]

NAME = "bertlora_packed"
# Scores a block: two of them in bf16 stay within a core complex's cache, and memory is bounded.
BLOCK_SCORES = 1 << 22
NARROW = 16
FEW_KEYS = 8
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
    """What transformers calls: query, key and value (1, H, T, d) → (1, T, H, d). Dropout is not served."""
    assert packing is not None, "packed attention was called without a packing"
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # transformers counts the token itself in; a distance below the window is within it.
    return attend(q, k, v, packing, scale, sliding_window)[None], None


AttentionInterface.register(NAME, packed_attention)


def attend(q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, window: int | None = None) -> Tensor:
    """Returns each text's attention over itself, (Q, H, d).

    Args:
        q: (Q, H, d) queries: one for every token, or one for every text.
        k: (T, H, d) keys.
        v: (T, H, d) values.
        packing: where the texts lie.
        scale: what scores are multiplied with.
        window: tokens at this distance or further are not seen; None sees the whole text.
    """
    half = q.is_cuda and q.dtype in (torch.bfloat16, torch.float16)
    # varlen_attn counts a window from the end of the keys, and one query a text stands at their start.
    if varlen_attn is not None and half and (window is None or len(q) == len(k)):
        return _on_gpu(q, k, v, packing, scale, window)
    # One query a text is little work, and fp32 needs no code made for each shape.
    wide = torch.promote_types(q.dtype, torch.float32) if len(q) != len(k) else q.dtype
    out: Tensor = PackedAttention.apply(q.to(wide), k.to(wide), v.to(wide), packing, scale, window)  # type: ignore[no-untyped-call]
    return out.to(q.dtype)


def _on_gpu(q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, window: int | None) -> Tensor:
    longest, each = max(packing.lengths), len(q) == len(k)
    asked = packing.offsets if each else torch.arange(len(packing) + 1, device=q.device, dtype=torch.int32)
    reach = (-1, -1) if window is None else (window - 1, window - 1)
    most = longest if each else 1
    out: Any = varlen_attn(q, k, v, asked, packing.offsets, most, longest, scale=scale, window_size=reach)
    seen: Tensor = out
    return seen


class PackedAttention(torch.autograd.Function):
    """The same with a backward written out; see the head of this file."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, window: int | None
    ) -> Tensor:
        queries, keys, values = _queries(q, scale), _keys(k), _widened(v)
        out = _outputs(q, packing)
        shift, total = (q.new_ones(*out.shape[:2], 1) for _ in range(2))
        for block in _blocks(packing, q, k, window):
            left, right = block.queries(queries), block.keys(keys)
            weights, sums = _exponentials(block, left, right)
            block.put(shift, left[..., -2:-1])
            block.put(total, sums)
            block.put(out, torch.bmm(weights, block.keys(values)) / sums)
        ctx.save_for_backward(q, k, v, out, shift, total)
        ctx.packing, ctx.scale, ctx.window = packing, scale, window
        return out.transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, shift, total = ctx.saved_tensors
        queries, keys, values = _queries(q, ctx.scale, shift), _keys(k), _widened(v, 1.0)
        given = grads[0].to(q.dtype).transpose(0, 1) / total
        due = (given.float() * out.float()).sum(-1)
        changes = _widened(given.transpose(0, 1), 0.0)
        changes[:, :-1, -1] = -due
        needed = zip((q, k, v), ctx.needs_input_grad[:3], strict=True)
        gq, gk, gv = (_outputs(x, ctx.packing) if needs else None for x, needs in needed)
        for block in _blocks(ctx.packing, q, k, ctx.window):
            left, right, change = block.queries(queries), block.keys(keys), block.queries(changes)
            # Transposed, (keys, queries): two of the three products below then read it by rows.
            weights = block.masked(torch.bmm(right, left.mT)).exp_()
            if gv is not None:
                block.put_keys(gv, torch.bmm(weights, change[..., :-1]))
            slopes = torch.bmm(block.keys(values), change.mT).mul_(weights)
            if gk is not None:
                block.put_keys(gk, torch.bmm(slopes, left[..., :-2]))
            if gq is not None:
                block.put(gq, torch.bmm(slopes.mT, right[..., :-2]))
        if gq is not None:
            gq.mul_(ctx.scale)
        return *(None if x is None else x.transpose(0, 1) for x in (gq, gk, gv)), None, None, None


@dataclass(frozen=True)
class Block:
    """Some heads of a bucket: N texts × h heads as one batch of matrices. What is (H, tokens, d) goes in and out."""

    bucket: Bucket
    heads: slice
    one_query: bool
    window: int | None

    def keys(self, x: Tensor) -> Tensor:
        """Returns what stands at each place, (h N, L, d), of x (H, T + 1, d), the last row for padding."""
        return self._taken(x, self.bucket.tokens, self.bucket.keys, self.bucket.longest)

    def queries(self, x: Tensor) -> Tensor:
        """Returns the same of what has one row a query, (h N, queries, d)."""
        if not self.one_query:
            return self.keys(x)
        asked = self.bucket.asked
        return self._taken(x, self.bucket.texts, asked, 1 if asked is None else asked.owners.shape[1])

    def put(self, out: Tensor, block: Tensor) -> None:
        """Writes (h N, queries, d) to the rows of these queries in (H, Q, d)."""
        if self.one_query:
            self._put(out, block, self.bucket.texts, self.bucket.asked)
        else:
            self.put_keys(out, block)

    def put_keys(self, out: Tensor, block: Tensor) -> None:
        """Writes (h N, L, d) to the rows of these tokens in (H, T, d)."""
        self._put(out, block, self.bucket.tokens, self.bucket.keys)

    def masked(self, scores: Tensor, stride: int = 1) -> Tensor:
        """Puts scores (h N, queries, L) of what a query may not see far below 0, in place.

        With a stride, only every so manieth key is there; for the transposed, (h N, L, queries), the mask is.
        """
        mask = self.bucket.mask(self.one_query, self.window, scores)
        if mask is not None:
            _, rows, columns = scores.shape
            mask = mask[..., ::stride]
            fits = mask if mask.shape[1:] == (rows, columns) else mask.mT
            scores.view(-1, self.bucket.count, rows, columns).add_(fits)
        return scores

    def _taken(self, x: Tensor, rows: slice, places: Places | None, width: int) -> Tensor:
        part = x[self.heads]
        taken = part[:, rows] if places is None else part.index_select(1, places.rows)
        return taken.reshape(-1, width, x.shape[-1]).contiguous()

    def _put(self, out: Tensor, block: Tensor, rows: slice, places: Places | None) -> None:
        flat = block.reshape(out[self.heads].shape[0], -1, block.shape[-1])
        out[self.heads, rows] = flat if places is None else flat.index_select(1, places.real)


def _blocks(packing: Packing, q: Tensor, k: Tensor, window: int | None) -> Iterator[Block]:
    """Yields the blocks of a packed row: all heads of a bucket, or as many as `BLOCK_SCORES` allows."""
    total, one_query = q.shape[1], len(q) != len(k)
    for bucket in packing.buckets:
        scores = bucket.count * bucket.longest * (1 if one_query else bucket.longest)
        heads = min(total, max(1, BLOCK_SCORES // scores))
        for first in range(0, total, heads):
            yield Block(bucket, slice(first, min(total, first + heads)), one_query, window)


def _outputs(x: Tensor, packing: Packing) -> Tensor:
    """Returns room for what is like x (tokens, H, d) as (H, tokens, d), 0 at the row's filler."""
    out = x.new_empty(x.shape[1], len(x), x.shape[2])
    out[:, packing.tokens :] = 0
    return out


def _queries(q: Tensor, scale: float, shift: Tensor | None = None) -> Tensor:
    """Returns [q scale, -m, 1], (H, Q + 1, d + 2); without a shift 0 in its place."""
    wide = _widened(q, 0.0, 1.0)
    wide[..., :-2] *= scale
    if shift is not None:
        wide[:, :-1, -2:-1] = shift
    return wide


def _keys(k: Tensor) -> Tensor:
    """Returns [k, 1, c], (H, T + 1, d + 2)."""
    wide = _widened(k, 1.0, 0.0)
    wide[:, -1, -1] = FAR_BELOW
    return wide


def _widened(x: Tensor, *columns: float) -> Tensor:
    """Returns x (T, H, d) as (H, T + 1, d + C), C further columns filled, and below it a row of zeros for padding."""
    tokens, heads, d = x.shape
    wide = x.new_empty(heads, tokens + 1, d + len(columns))
    wide[:, :-1, :d] = x.transpose(0, 1)
    wide[:, -1, :d] = 0
    for place, value in enumerate(columns, d):
        wide[..., place] = value
    return wide


def _exponentials(block: Block, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Returns exp(S - m + c), (h N, L or 1, L), and its row sums; puts -m into its column of `left`.

    m need not be the maximum, only near enough for the sums to stay far from what overflows, and what they divide from
    what underflows: where every eighth key tells it too low, all of them are asked.
    """
    # Of several texts in a matrix, few keys would leave some out.
    for stride in (FEW_KEYS, 1) if block.bucket.asked is None else (1,):
        left[..., -2] = 0.0
        scores = block.masked(torch.bmm(left, right[:, ::stride].contiguous().mT), stride)
        left[..., -2] = -_row_maximum(scores)
        weights = block.masked(torch.bmm(left, right.mT)).exp_()
        sums = weights.sum(-1, keepdim=True)
        if sums.max() < LARGEST_SUM:
            break
    return weights, sums


def _row_maximum(scores: Tensor) -> Tensor:
    """Returns the maximum over the last dimension, halving it: torch's own reduction is slow in bf16 on a CPU."""
    while scores.shape[-1] > NARROW:
        half = (scores.shape[-1] + 1) // 2
        scores = torch.maximum(scores[..., :half], scores[..., -half:])
    return scores.amax(-1)
