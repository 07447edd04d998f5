"""Many texts in one row of real tokens, without padding.

    texts        [CLS] a joy [SEP]      [CLS] dull [SEP]
    input_ids    [CLS] a joy [SEP] [CLS] dull [SEP]        (1, T)
    positions      0   1  2    3     0    1     2          restart with each text

Every layer but attention works on tokens one by one and needs to know nothing of this. Attention goes through the row
in `Bucket`s, each one batch of matrices: long texts of nearly the same length, one a matrix; or short texts, as many a
matrix as fit, each of which sees itself alone.

On a CPU a matrix product of a shape that was not seen before first costs the making of its code: a third of a
millisecond, and up to a megabyte that is not given back. So rows and buckets come in few sizes there: rows end in some
tokens of filler, and lengths are rounded up.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

# Added to a score it leaves an exponential of 0.
FAR_BELOW = -30_000.0
# Sizes of the matrices that short texts share: the smallest that holds the longest of them.
ROOMS = (16, 32, 64)
SHORT = ROOMS[-1]
# A text joins a bucket of longer ones when that wastes fewer scores a head than starting a bucket of its own costs in
# overhead: measured on two cores, some 30 calls of 10 microseconds against 15 nanoseconds a token pair of all heads.
BUCKET_OVERHEAD = 20_000
# Sizes are rounded up to a power of two's multiple: the largest power that is this fraction of them, or the least.
ROW_FINENESS, ROW_LEAST = 32, 16
TEXT_FINENESS, TEXT_LEAST = 8, 8


@dataclass(frozen=True)
class Places:
    """Where rows stand in a block of N matrices with L places each.

    Attributes:
        rows: (N L,) the row at each place, at padding the first of all.
        real: the place of each row of the bucket, in their order.
        owners: (N, L) the text at each place, a number below 0 at padding.
        positions: (N, L) which of its text's tokens stands there.
    """

    rows: Tensor
    real: Tensor
    owners: Tensor
    positions: Tensor

    @classmethod
    def of(cls, starts: Tensor, lengths: Tensor, shape: tuple[int, int], rows: slice) -> "Places":
        """Returns the places of texts of these lengths that start at these places, their rows one after the other."""
        texts = torch.arange(len(lengths)).repeat_interleave(lengths)
        positions = torch.arange(len(texts)) - (lengths.cumsum(0) - lengths)[texts]
        real = starts[texts] + positions

        def spread(values: Tensor, elsewhere: int) -> Tensor:
            return torch.full((shape[0] * shape[1],), elsewhere).index_copy_(0, real, values)

        owners, where = spread(texts, -1).view(shape), spread(positions, 0).view(shape)
        return cls(spread(torch.arange(rows.start, rows.stop), rows.start), real, owners, where)

    def spread(self, x: Tensor) -> Tensor:
        """Returns what stands at each place, (N L, ...), of x (rows, ...); at padding some row of the bucket."""
        return x.index_select(0, self.rows)

    def gathered(self, x: Tensor) -> Tensor:
        """Returns the rows of the bucket, in their order, of what stands at each place, (N L, ...)."""
        return x.index_select(0, self.real)

    @cached_property
    def idle(self) -> Tensor:
        """(N, L) where padding stands."""
        return self.owners < 0

    def to(self, device: torch.device) -> "Places":
        """Returns the same on `device`."""
        return Places(*(x.to(device) for x in (self.rows, self.real, self.owners, self.positions)))


@dataclass(frozen=True)
class Bucket:
    """Neighbouring texts that attention takes as one block of N matrices with L places.

    Attributes:
        texts: which texts of the row.
        tokens: which tokens of the row.
        count: N.
        longest: L.
        keys: where the tokens stand; None where the tokens, in order, are the places.
        asked: where the texts stand when each asks one query; None where there is one a matrix.
        masks: what `mask` has made.
    """

    texts: slice
    tokens: slice
    count: int
    longest: int
    keys: Places | None = None
    asked: Places | None = None
    masks: dict[tuple[bool, int | None, torch.dtype, bool], Tensor] = field(default_factory=dict)

    def mask(self, one_query: bool, window: int | None, like: Tensor, by_key: bool = False) -> Tensor | None:
        """Returns what is added to scores, (N or 1, queries, L): 0, or far below at keys that a query may not see.

        By key it is (N or 1, L, queries).

        None where padding alone is hidden; that is done otherwise, see `attention.py`.
        """
        narrow = window if window is not None and window < self.longest else None
        if self.asked is None and narrow is None:
            return None
        key = (one_query, narrow, like.dtype, by_key)
        if key not in self.masks:
            hidden = self._hidden(one_query, narrow).to(like.device)
            hidden = hidden.mT if by_key else hidden
            self.masks[key] = like.new_zeros(hidden.shape).masked_fill_(hidden, FAR_BELOW)
        return self.masks[key]

    def _hidden(self, one_query: bool, window: int | None) -> Tensor:
        if self.asked is None or self.keys is None:
            places = torch.arange(self.longest)[None]
            asking = places[:, :1] if one_query else places
            return (asking[..., None] - places[:, None]).abs() >= (window or self.longest)
        queries = self.asked if one_query else self.keys
        hidden = queries.owners[..., None] != self.keys.owners[:, None]
        if window is not None:
            hidden |= (queries.positions[..., None] - self.keys.positions[:, None]).abs() >= window
        return hidden


@dataclass(frozen=True)
class Packing:
    """Where the texts lie in a packed row, longest first.

    Attributes:
        lengths: tokens of each text.
        device: where the row is.

    Raises:
        ValueError: a text is longer than the one before it.
    """

    lengths: tuple[int, ...]
    device: torch.device

    def __post_init__(self) -> None:
        if any(a < b for a, b in zip(self.lengths, self.lengths[1:], strict=False)):
            raise ValueError("packed texts must come longest first")

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(self.lengths)

    @cached_property
    def row(self) -> int:
        """T, tokens of the row, filler included."""
        return rounded(self.tokens, self.device, ROW_FINENESS, ROW_LEAST)

    @cached_property
    def offsets(self) -> Tensor:
        """(B + 1,) int32 where each text starts, and where the last one ends."""
        ends = torch.tensor([0, *self.lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return ends.to(self.device)

    @cached_property
    def starts(self) -> Tensor:
        """(B,) int64 the first token of each text."""
        return self.offsets[:-1].long()

    @cached_property
    def buckets(self) -> list[Bucket]:
        """The row cut into buckets, in order."""
        found, first, start = [], 0, 0
        while first < len(self):
            last = self._end(first)
            tokens = sum(self.lengths[first:last])
            found.append(self._bucket(slice(first, last), slice(start, start + tokens)))
            first, start = last, start + tokens
        return found

    def _end(self, first: int) -> int:
        """Returns the end of the bucket that starts with this text; of long texts it has 1, 2, 4, ..."""
        longest, wasted, last = self.lengths[first], 0, first + 1
        if longest <= SHORT:
            return self._end_of_short(first)
        while last < len(self) and self.lengths[last] > SHORT:
            wasted += longest**2 - self.lengths[last] ** 2
            if wasted > BUCKET_OVERHEAD:
                break
            last += 1
        return first + (1 << (last - first).bit_length() >> 1)

    def _end_of_short(self, first: int) -> int:
        """Returns where texts begin that would save more in smaller matrices of their own than these cost."""
        smaller = _room(self.lengths[first]) // 2
        split = next((i for i in range(first, len(self)) if self.lengths[i] <= smaller), len(self))
        saved = sum(self.lengths[split:]) * smaller
        return split if smaller in ROOMS and saved > BUCKET_OVERHEAD else len(self)

    def _bucket(self, texts: slice, tokens: slice) -> Bucket:
        lengths = self.lengths[texts]
        if lengths[0] <= SHORT and len(lengths) > 1:
            return self._shared(texts, tokens, _room(lengths[0]))
        longest, count = rounded(lengths[0], self.device, TEXT_FINENESS, TEXT_LEAST), len(lengths)
        if min(lengths) == longest:
            return Bucket(texts, tokens, count, longest)
        starts = torch.arange(count) * longest
        keys = Places.of(starts, torch.tensor(lengths), (count, longest), tokens)
        return Bucket(texts, tokens, count, longest, keys.to(self.device))

    def _shared(self, texts: slice, tokens: slice, room: int) -> Bucket:
        """Returns the bucket of short texts, which share matrices of this size."""
        own = self.lengths[texts]
        matrices = filled(own, room)
        count, width = len(matrices), -(-max(map(len, matrices)) // 4) * 4
        starts, slots = [0] * len(own), [0] * len(own)
        for number, members in enumerate(matrices):
            start = number * room
            for slot, text in enumerate(members, number * width):
                starts[text], slots[text] = start, slot
                start += own[text]
        keys = Places.of(torch.tensor(starts), torch.tensor(own), (count, room), tokens)
        asked = Places.of(torch.tensor(slots), torch.ones(len(own), dtype=torch.int64), (count, width), texts)
        return Bucket(texts, tokens, count, room, keys.to(self.device), asked.to(self.device))


def _room(longest: int) -> int:
    """Returns the size of the matrices that texts of up to this length share."""
    return next(room for room in ROOMS if longest <= room)


def filled(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Returns the texts, longest first, shared out to matrices of this room: a long one, then the shortest that fit."""
    result, first, last = [], 0, len(lengths) - 1
    while first <= last:
        members, left = [first], room - lengths[first]
        first += 1
        while first <= last and lengths[last] <= left:
            members.append(last)
            left -= lengths[last]
            last -= 1
        result.append(members)
    return result


def rounded(size: int, device: torch.device, fineness: int, least: int) -> int:
    """Returns a size of which there are few, at least `size`; the same on a GPU, which has no need of it."""
    if device.type != "cpu":
        return size
    step = max(least, (1 << (size // fineness).bit_length()) >> 1)
    return -(-size // step) * step
