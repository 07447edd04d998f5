"""Blocks: some heads of a bucket of packed texts, as one batch of matrices."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bertlora.model.engine.packing import FAR_BELOW, Bucket, Packing
from bertlora.model.engine.places import Places

# Exponentials are powers of 2: torch's exp is several times slower for arguments far below 0, and exp2 is not.
LOG2_E = math.log2(math.e)
# Scores in a block: two blocks in bf16 fit the cache that cores share, and memory stays bounded.
BLOCK_SCORES = 1 << 22


@dataclass(frozen=True)
class Block:
    """Some heads of a bucket as one batch of matrices, N texts × h heads. Its methods take and give (tokens, H, d)."""

    bucket: Bucket
    heads: slice
    one_query: bool
    window: int | None

    def asking(self, q: Tensor, scale: float, shift: Tensor | None = None) -> Tensor:
        """Returns [q scale log2(e), -m, 1], (h N, queries, d + 2); without a shift, -m is 0."""
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
        """Returns -m of `left`, (h N, queries, 1); it is far below 0 at padding, which thus gets no gradient."""
        shift = left[..., -2:-1].clone()
        if (places := self._places()) is not None:
            self._by_text(shift)[..., 0].masked_fill_(places.idle, FAR_BELOW)
        return shift

    def keys(self, x: Tensor, *columns: float) -> Tensor:
        """Returns the rows of x (T, H, d) in matrix layout, (h N, L, d + C), with C extra columns of these values.

        Padding has the values of some row of the bucket; they are not used.
        """
        return self._taken(x, self.bucket.tokens, self.bucket.keys, 1.0, columns)

    def queries(self, x: Tensor, by: Tensor | float, *columns: float) -> Tensor:
        """Returns x / by in matrix layout, (h N, queries, d + C); x has one row for each query."""
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
        """Sets the scores (h N, queries, L) of hidden keys far below 0, in place."""
        mask = self.bucket.mask(self.one_query, self.window, scores)
        if mask is not None:
            self._by_text(scores).add_(mask)
        return scores

    def masked_by_key(self, scores: Tensor, stride: int = 1) -> Tensor:
        """Does the same for scores by key, (h N, L, queries); with a stride, for every stride-th key only."""
        mask = self.bucket.mask(self.one_query, self.window, scores, by_key=True)
        if mask is not None:
            self._by_text(scores).add_(mask[:, ::stride])
        return scores

    def _places(self) -> Places | None:
        """Returns the places of the queries."""
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


def blocks_of(packing: Packing, q: Tensor, k: Tensor, window: int | None) -> Iterator[Block]:
    """Yields the blocks of a packed row: all heads of a bucket, or as many as `BLOCK_SCORES` allows."""
    total, one_query = q.shape[1], len(q) != len(k)
    for bucket in packing.buckets:
        scores = bucket.count * bucket.longest * (1 if one_query else bucket.longest)
        # The same number of heads in each block, not ten and then two.
        heads = -(-total // min(total, -(-total * scores // BLOCK_SCORES)))
        for first in range(0, total, heads):
            yield Block(bucket, slice(first, min(total, first + heads)), one_query, window)


def empty_outputs(x: Tensor, packing: Packing) -> Tensor:
    """Returns an uninitialised tensor shaped like x (tokens, H, d), with 0 at the row's filler."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    out[packing.tokens :] = 0
    return out
