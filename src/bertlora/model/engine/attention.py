"""Attention over packed rows, through transformers' attention interface.

    S = q k' / sqrt(d)      P = softmax(S)      o = P v

text by text, in the buckets of `Packing`. On a GPU in half precision it is torch's variable-length attention; elsewhere
`PackedAttention`, written as batched matrix products, which on a CPU are several times as fast as its fused kernel.

How (T, T) passes are kept few and exact in bf16, whose numbers have eight bits: everything that is added to the scores
before the exponential rides along in the matrix product, as further columns of q and k, so that it is added in fp32:

    forward     [q/sqrt(d), -m, 1] [k, 1, c]'  =  S - m + c   m: near the row's maximum; c: far below 0 at padding
                exp(that) v                    =  o r         r: the sum of the row's exponentials
    backward    exp(the same)                  =  P r         recomputed: no (T, T) matrix is kept; 0 at padding
                [g/r, -D] [v, 1]'              =  dS / (P r)  D: g'o/r

after Dao et al. 2022, "FlashAttention", for what is recomputed; q, k, v, o, g (a gradient) are (tokens, heads, d).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from bertlora.model.engine.packing import FAR_BELOW, SHORT, Bucket, Packing, Places

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # an older torch
    varlen_attn: Any = None  # type: ignore[no-redef]

NAME = "bertlora_packed"
# Exponentials are powers of 2: torch's exp is several times as slow where its argument is far below 0, exp2 is not.
LOG2_E = math.log2(math.e)
# Scores a block: two of them in bf16 stay within a core complex's cache, and memory is bounded.
BLOCK_SCORES = 1 << 22
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
    with torch.autocast(q.device.type, enabled=False):
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
        out = _outputs(q, packing)
        ctx.shifts, ctx.totals = [], []
        for block in _blocks(packing, q, k, window):
            left, right = block.asking(q, scale), block.asked(k)
            weights, sums = _exponentials(block, left, right)
            block.put(out, torch.bmm(weights, block.keys(v)), sums)
            ctx.shifts.append(block.shift(left))
            ctx.totals.append(sums)
        ctx.save_for_backward(q, k, v, out)
        ctx.packing, ctx.scale, ctx.window = packing, scale, window
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out = ctx.saved_tensors
        given = grads[0].to(q.dtype)
        due = (given * out).sum(-1, keepdim=True)
        needed = zip((q, k, v), ctx.needs_input_grad[:3], strict=True)
        gq, gk, gv = (_outputs(x, ctx.packing) if needs else None for x, needs in needed)
        blocks = _blocks(ctx.packing, q, k, ctx.window)
        for block, shift, total in zip(blocks, ctx.shifts, ctx.totals, strict=True):
            left, right = block.asking(q, ctx.scale, shift), block.asked(k)
            change = block.queries(given, total, 0.0)
            change[..., -1:] = block.queries(due, -total)
            # Transposed, (keys, queries): two of the three products below then read it by rows.
            weights = block.masked_by_key(torch.bmm(right, left.mT)).exp2_()
            if gv is not None:
                block.put_keys(gv, torch.bmm(weights, change[..., :-1]))
            slopes = torch.bmm(block.keys(v, 1.0), change.mT).mul_(weights)
            if gk is not None:
                block.put_keys(gk, torch.bmm(slopes, left[..., :-2]), LOG2_E)
            if gq is not None:
                block.put(gq, torch.bmm(slopes.mT, right[..., :-2]), 1 / ctx.scale)
        return gq, gk, gv, None, None, None


@dataclass(frozen=True)
class Block:
    """Some heads of a bucket: N texts × h heads as one batch of matrices. What is (tokens, H, d) goes in and out."""

    bucket: Bucket
    heads: slice
    one_query: bool
    window: int | None

    def asking(self, q: Tensor, scale: float, shift: Tensor | None = None) -> Tensor:
        """Returns [q scale log2(e), -m, 1], (h N, queries, d + 2); without a shift 0 in its place."""
        left = self.queries(q, 1 / (scale * LOG2_E), 0.0, 1.0)
        if shift is not None:
            left[..., -2:-1] = shift
        return left

    def asked(self, k: Tensor) -> Tensor:
        """Returns [k, 1, c], (h N, L, d + 2)."""
        right = self.keys(k, 1.0, 0.0)
        if (places := self.bucket.keys) is not None:
            self._by_text(right)[..., -1].masked_fill_(places.idle, FAR_BELOW)
        return right

    def shift(self, left: Tensor) -> Tensor:
        """Returns -m of `left`, (h N, queries, 1), far below 0 at padding: what stands there gets no gradient."""
        shift = left[..., -2:-1].clone()
        if (places := self._places()) is not None:
            self._by_text(shift)[..., 0].masked_fill_(places.idle, FAR_BELOW)
        return shift

    def keys(self, x: Tensor, *columns: float) -> Tensor:
        """Returns what stands at each place, (h N, L, d + C), of x (T, H, d), with C further columns filled.

        At padding there is some row of the bucket, of which nothing is made.
        """
        return self._taken(x, self.bucket.tokens, self.bucket.keys, 1.0, columns)

    def queries(self, x: Tensor, by: Tensor | float, *columns: float) -> Tensor:
        """Returns x / by of what has one row a query, (h N, queries, d + C)."""
        rows = self.bucket.texts if self.one_query else self.bucket.tokens
        return self._taken(x, rows, self._places(), by, columns)

    def put(self, out: Tensor, block: Tensor, by: Tensor | float) -> None:
        """Writes block / by, (h N, queries, d), to the rows of these queries in (Q, H, d)."""
        rows = self.bucket.texts if self.one_query else self.bucket.tokens
        self._put(out, block, rows, self._places(), by)

    def put_keys(self, out: Tensor, block: Tensor, by: float = 1.0) -> None:
        """Writes block / by, (h N, L, d), to the rows of these tokens in (T, H, d)."""
        self._put(out, block, self.bucket.tokens, self.bucket.keys, by)

    def masked(self, scores: Tensor) -> Tensor:
        """Puts scores (h N, queries, L) of what a query may not see far below 0, in place."""
        mask = self.bucket.mask(self.one_query, self.window, scores)
        if mask is not None:
            self._by_text(scores).add_(mask)
        return scores

    def masked_by_key(self, scores: Tensor, stride: int = 1) -> Tensor:
        """Does the same for scores (h N, L, queries), of which every so manieth key may be there alone."""
        mask = self.bucket.mask(self.one_query, self.window, scores, by_key=True)
        if mask is not None:
            self._by_text(scores).add_(mask[:, ::stride])
        return scores

    def _places(self) -> Places | None:
        """Returns where the queries stand."""
        return self.bucket.asked if self.one_query else self.bucket.keys

    def _by_text(self, x: Tensor) -> Tensor:
        """Returns (h, N, ...) of (h N, ...)."""
        return x.view(-1, self.bucket.count, *x.shape[1:])

    def _taken(
        self, x: Tensor, rows: slice, places: Places | None, by: Tensor | float, columns: tuple[float, ...]
    ) -> Tensor:
        found = (x[rows] if places is None else places.spread(x))[:, self.heads]
        found = found.view(self.bucket.count, -1, *found.shape[1:]).permute(2, 0, 1, 3)
        room = x.new_empty(*found.shape[:-1], x.shape[-1] + len(columns))
        within = room[..., : x.shape[-1]]
        if isinstance(by, Tensor):
            torch.div(found, self._by_text(by), out=within)
        elif by != 1.0:
            torch.mul(found, 1 / by, out=within)
        else:
            within.copy_(found)
        for place, value in enumerate(columns, x.shape[-1]):
            room[..., place] = value
        return room.flatten(0, 1)

    def _put(self, out: Tensor, block: Tensor, rows: slice, places: Places | None, by: Tensor | float) -> None:
        block = self._by_text(block).permute(1, 2, 0, 3)
        if isinstance(by, Tensor):
            by = self._by_text(by).permute(1, 2, 0, 3)
        if places is None:
            torch.div(block, by, out=out[rows, self.heads].view(block.shape))
        else:
            dense = torch.div(block, by, out=out.new_empty(block.shape))
            out[rows, self.heads] = places.gathered(dense.flatten(0, 1))


def _blocks(packing: Packing, q: Tensor, k: Tensor, window: int | None) -> Iterator[Block]:
    """Yields the blocks of a packed row: all heads of a bucket, or as many as `BLOCK_SCORES` allows."""
    total, one_query = q.shape[1], len(q) != len(k)
    for bucket in packing.buckets:
        scores = bucket.count * bucket.longest * (1 if one_query else bucket.longest)
        # As many heads in each, not ten and then two.
        heads = -(-total // min(total, -(-total * scores // BLOCK_SCORES)))
        for first in range(0, total, heads):
            yield Block(bucket, slice(first, min(total, first + heads)), one_query, window)


def _outputs(x: Tensor, packing: Packing) -> Tensor:
    """Returns room for what is like x (tokens, H, d), 0 at the row's filler."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    out[packing.tokens :] = 0
    return out


def _exponentials(block: Block, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Returns exp(S - m + c), (h N, L or 1, L), and its row sums; puts -m into its column of `left`.

    m need not be the maximum, only near enough for the sums to stay far from what overflows, and what they divide from
    what underflows: where every sixteenth key tells it too low, all of them are asked.
    """
    # Of several texts in a matrix, few keys would leave some out.
    for stride in (FEW_KEYS, 1) if block.bucket.asked is None else (1,):
        left[..., -2] = 0.0
        # (keys, queries): a maximum over the first is quick.
        scores = block.masked_by_key(torch.bmm(right[:, ::stride].contiguous(), left.mT), stride)
        left[..., -2] = -_largest(scores)
        weights = block.masked(torch.bmm(left, right.mT)).exp2_()
        sums = weights.sum(-1, keepdim=True)
        if sums.max() < LARGEST_SUM:
            break
    return weights, sums


def _largest(scores: Tensor) -> Tensor:
    """Returns the maximum over the keys, (h N, queries) of (h N, keys, queries); torch's is slow where both are few."""
    while scores.shape[2] <= SHORT and scores.shape[1] > 1:
        half = (scores.shape[1] + 1) // 2
        scores = torch.maximum(scores[:, :half], scores[:, -half:])
    return scores.amax(1)
