"""How attention sees packed texts: in batches of matrices.

A `Bucket` is one batch: some texts of a row, and their `Places` in its matrices. A `Block` is some heads of it.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

# Rows of a tensor: neighbours, or their numbers.
Rows = slice | Tensor
# Added to a score, it makes the exponential 0.
FAR_BELOW = -30_000.0
# Exponentials are powers of 2: torch's exp is several times slower for arguments far below 0, and exp2 is not.
LOG2_E = math.log2(math.e)
# Scores in a block: two blocks in bf16 fit the cache that cores share, and memory stays bounded.
BLOCK_SCORES = 1 << 22


@dataclass(frozen=True)
class Places:
    """The places of rows in N matrices with L places each.

    Attributes:
        rows: (N L,) the row at each place; at padding, the bucket's first row.
        real: the place of each row of the bucket, in order.
        owners: (N, L) the text at each place; negative at padding.
        positions: (N, L) the position in its text of the token at each place.
    """

    rows: Tensor
    real: Tensor
    owners: Tensor
    positions: Tensor

    @classmethod
    def of(cls, starts: Tensor, lengths: Tensor, shape: tuple[int, int], rows: Rows) -> "Places":
        """Returns the places of texts with these lengths and first places; `rows` are their rows, in order."""
        numbers = torch.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows.cpu()
        texts = torch.arange(len(lengths)).repeat_interleave(lengths)
        positions = torch.arange(len(texts)) - (lengths.cumsum(0) - lengths)[texts]
        real = starts[texts] + positions

        def spread(values: Tensor, elsewhere: int) -> Tensor:
            return torch.full((shape[0] * shape[1],), elsewhere).index_copy_(0, real, values)

        owners, where = spread(texts, -1).view(shape), spread(positions, 0).view(shape)
        return cls(spread(numbers, int(numbers[0])), real, owners, where)

    def spread(self, x: Tensor) -> Tensor:
        """Returns the row of x (rows, ...) for each place, (N L, ...); at padding, some row of the bucket."""
        return x.index_select(0, self.rows)

    def gathered(self, x: Tensor) -> Tensor:
        """Returns the bucket's rows, in order, from values for each place, (N L, ...)."""
        return x.index_select(0, self.real)

    @cached_property
    def idle(self) -> Tensor:
        """(N, L) True at padding."""
        return self.owners < 0

    def to(self, device: torch.device) -> "Places":
        """Returns the same on `device`."""
        return Places(*(x.to(device) for x in (self.rows, self.real, self.owners, self.positions)))


@dataclass(frozen=True)
class Bucket:
    """Texts of nearly the same length that attention processes as one batch of N matrices with L places.

    Attributes:
        texts: which texts of the row.
        tokens: which tokens of the row.
        count: N.
        longest: L.
        keys: the places of the tokens; None if neighbouring tokens fill all places in order.
        asked: the places of the queries, if each text has one; None if each matrix holds one text.
        masks: cache of `mask`.
    """

    texts: Rows
    tokens: Rows
    count: int
    longest: int
    keys: Places | None = None
    asked: Places | None = None
    masks: dict[tuple[bool, int | None, torch.dtype, bool, Tensor | None], Tensor] = field(default_factory=dict)

    def mask(
        self, one_query: bool, window: int | None, like: Tensor, by_key: bool = False, bias: Tensor | None = None
    ) -> Tensor | None:
        """Returns the mask to add to scores: far below 0 at keys that are hidden from a query, elsewhere 0 or the bias.

        Its shape is (N or 1, queries, L), or (N or 1, L, queries) with `by_key`; a bias puts H before N. It is None if
        only padding is hidden, which is done in another way; see `Block.asked`.
        """
        narrow = window if window is not None and window < self.longest else None
        if self.asked is None and narrow is None and bias is None:
            return None
        key = (one_query, narrow, like.dtype, by_key, bias)
        if key not in self.masks:
            distances = self._distances(one_query).to(like.device)
            mask = like.new_zeros(distances.shape) if bias is None else _by_distance(bias.to(like), distances)
            mask = mask.masked_fill_(self._hidden(one_query, narrow, distances), FAR_BELOW)
            self.masks[key] = mask.mT.contiguous() if by_key else mask
        return self.masks[key]

    def _distances(self, one_query: bool) -> Tensor:
        """Returns the distances from a query's position to a key's, (N or 1, queries, L)."""
        if self.asked is None or self.keys is None:
            keys = torch.arange(self.longest)[None]
            queries = keys[:, :1] if one_query else keys
        else:
            keys, queries = self.keys.positions, (self.asked if one_query else self.keys).positions
        return keys[:, None] - queries[..., None]

    def _hidden(self, one_query: bool, window: int | None, distances: Tensor) -> Tensor:
        hidden = distances.abs() >= (window or self.longest)
        if self.asked is not None and self.keys is not None:
            queries = self.asked if one_query else self.keys
            hidden |= queries.owners[..., None] != self.keys.owners[:, None]
        return hidden


def _by_distance(bias: Tensor, distances: Tensor) -> Tensor:
    """Returns the bias of each score, as a power of 2, (H, N or 1, queries, L); padding may be at any distance."""
    furthest = bias.shape[1] // 2
    return bias[:, distances.clamp(-furthest, furthest) + furthest].mul_(LOG2_E)


@dataclass(frozen=True)
class Block:
    """Some heads of a bucket as one batch of matrices, N texts × h heads. Its methods take and give (tokens, H, d)."""

    bucket: Bucket
    heads: slice
    one_query: bool
    window: int | None
    bias: Tensor | None

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
            self.by_text(right)[..., -1].masked_fill_(places.idle, FAR_BELOW)
        return right

    def shift(self, left: Tensor) -> Tensor:
        """Returns -m of `left`, (h N, queries, 1); it is far below 0 at padding, which thus gets no gradient."""
        shift = left[..., -2:-1].clone()
        if (places := self._places()) is not None:
            self.by_text(shift)[..., 0].masked_fill_(places.idle, FAR_BELOW)
        return shift

    def cleared(self, x: Tensor) -> Tensor:
        """Sets x, (h N, queries, d), to 0 at padding, in place."""
        if (places := self._places()) is not None:
            self.by_text(x).masked_fill_(places.idle[..., None], 0.0)
        return x

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
        """Adds the bias to the scores, (h N, queries, L), and sets those of hidden keys far below 0, in place."""
        if (mask := self._mask(scores)) is not None:
            self.by_text(scores).add_(mask)
        return scores

    def masked_by_key(self, scores: Tensor, stride: int = 1) -> Tensor:
        """Does the same for scores by key, (h N, L, queries); with a stride, for every stride-th key only."""
        if (mask := self._mask(scores, by_key=True)) is not None:
            self.by_text(scores).add_(mask[..., ::stride, :])
        return scores

    def _mask(self, like: Tensor, by_key: bool = False) -> Tensor | None:
        mask = self.bucket.mask(self.one_query, self.window, like, by_key, self.bias)
        return mask if mask is None or self.bias is None else mask[self.heads]

    def _places(self) -> Places | None:
        """Returns the places of the queries."""
        return self.bucket.asked if self.one_query else self.bucket.keys

    def by_text(self, x: Tensor) -> Tensor:
        """Returns (h, N, ...) of (h N, ...)."""
        return x.view(-1, self.bucket.count, *x.shape[1:])

    def _taken(
        self, x: Tensor, rows: Rows, places: Places | None, by: Tensor | float, columns: tuple[float, ...]
    ) -> Tensor:
        found = (x[rows] if places is None else places.spread(x))[:, self.heads]
        found = found.view(self.bucket.count, -1, *found.shape[1:]).permute(2, 0, 1, 3)
        room = x.new_empty(*found.shape[:-1], x.shape[-1] + len(columns))
        within = room[..., : x.shape[-1]]
        if isinstance(by, Tensor):
            torch.div(found, self.by_text(by), out=within)
        elif by != 1.0:
            torch.mul(found, 1 / by, out=within)
        else:
            within.copy_(found)
        for place, value in enumerate(columns, x.shape[-1]):
            room[..., place] = value
        return room.flatten(0, 1)

    def _put(self, out: Tensor, block: Tensor, rows: Rows, places: Places | None, by: Tensor | float) -> None:
        block = self.by_text(block).permute(1, 2, 0, 3)
        if isinstance(by, Tensor):
            by = self.by_text(by).permute(1, 2, 0, 3)
        if places is None and isinstance(rows, slice):
            torch.div(block, by, out=out[rows, self.heads].view(block.shape))
        else:
            dense = torch.div(block, by, out=out.new_empty(block.shape)).flatten(0, 1)
            out[rows, self.heads] = dense if places is None else places.gathered(dense)


def blocks_of(
    buckets: Iterable[Bucket], q: Tensor, k: Tensor, window: int | None, bias: Tensor | None
) -> Iterator[Block]:
    """Yields the blocks of a row's buckets: all heads of a bucket, or as many as `BLOCK_SCORES` allows."""
    total, one_query = q.shape[1], len(q) != len(k)
    for bucket in buckets:
        scores = bucket.count * bucket.longest * (1 if one_query else bucket.longest)
        # The same number of heads in each block, not ten and then two.
        heads = -(-total // min(total, -(-total * scores // BLOCK_SCORES)))
        for first in range(0, total, heads):
            yield Block(bucket, slice(first, min(total, first + heads)), one_query, window, bias)
