"""Packed rows: many texts in one row of tokens, without padding.

    texts        [CLS] a joy [SEP]      [CLS] dull [SEP]
    input_ids    [CLS] a joy [SEP] [CLS] dull [SEP]        (1, T)
    positions      0   1  2    3     0    1     2          restart with each text

All layers except attention work on each token separately. Attention works through the row in `Bucket`s, each one batch
of matrices: long texts of nearly the same length, one in each matrix; or short texts, several in a matrix, where each
text sees only itself.

On a CPU, oneDNN generates code for each new shape of a bf16 product: a third of a millisecond, and up to a megabyte
that is never freed. So rows and buckets have few sizes there: rows end in filler tokens, and lengths are rounded up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bertlora.data.inputs import Inputs
from bertlora.data.tokens import Ids
from bertlora.model.base import OFFSET_POSITIONS
from bertlora.model.engine.blocks import Bucket, Places, Rows
from bertlora.model.machine import sent

# Sizes of the matrices that short texts share; the smallest that holds the longest text is taken.
ROOMS = (16, 32, 64)
SHORT = ROOMS[-1]
# A text joins a bucket of longer texts if that wastes fewer scores of a head than this. A new bucket costs about 30
# calls of 10 microseconds, and a score 15 nanoseconds for all heads, measured on two cores.
BUCKET_OVERHEAD = 20_000
# Sizes are rounded up to a multiple of a power of 2: at most this fraction of the size, at least ROW_LEAST. Rows with
# few tokens, which come in any size when a program predicts, have coarser sizes than full ones.
FULL_ROW = 2048
FULL_ROW_FINENESS, ROW_FINENESS, ROW_LEAST = 32, 8, 16
TEXT_FINENESS, TEXT_LEAST = 8, 8
# Ids and, for a pair, token types of a text's window, as `Inputs.window` gives them.
Window = tuple[Ids, Ids | None]


@dataclass(frozen=True)
class Packing:
    """The texts of a packed row, in any order. Its buckets take them longest first.

    Attributes:
        lengths: tokens of each text.
        device: the row's device.
    """

    lengths: tuple[int, ...]
    device: torch.device

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(self.lengths)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return max(self.lengths)

    @cached_property
    def row(self) -> int:
        """T, tokens of the row, including filler."""
        fineness = ROW_FINENESS if self.tokens < FULL_ROW else FULL_ROW_FINENESS
        return rounded(self.tokens, self.device, fineness, ROW_LEAST)

    @classmethod
    def at(cls, offsets: Tensor, bounds: tuple[int, ...]) -> "Packing":
        """Returns the packing of these offsets. It counts each text as long as its bound, which kernels accept."""
        packing = cls(bounds, offsets.device)
        vars(packing)["offsets"] = offsets
        return packing

    def outputs(self, x: Tensor) -> Tensor:
        """Returns an uninitialised tensor like x, with a row for each token or text, and 0 at the filler."""
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        if len(x) > self.tokens:
            out[self.tokens :] = 0
        return out

    @cached_property
    def offsets(self) -> Tensor:
        """(B + 1,) int32: where each text starts, and where the last one ends."""
        ends = torch.tensor([0, *self.lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return sent(ends, self.device)

    @cached_property
    def starts(self) -> Tensor:
        """(B,) int64: the first token of each text."""
        return self.offsets[:-1].long()

    @cached_property
    def longest_first(self) -> tuple[int, ...]:
        """Tokens of each text, in the order of the buckets."""
        return tuple(sorted(self.lengths, reverse=True))

    @cached_property
    def text_order(self) -> Tensor | None:
        """(B,) the texts, longest first; None if they stand in this order already."""
        if self.lengths == self.longest_first:
            return None
        return torch.tensor(sorted(range(len(self)), key=lambda text: -self.lengths[text]))

    @cached_property
    def token_order(self) -> Tensor | None:
        """(tokens,) the tokens of the texts, longest text first; None if they stand in this order already."""
        if self.text_order is None:
            return None
        own = torch.tensor(self.longest_first)
        shifts = self.offsets[:-1].cpu()[self.text_order] - (own.cumsum(0) - own)
        return torch.arange(self.tokens) + shifts.repeat_interleave(own)

    @cached_property
    def buckets(self) -> list[Bucket]:
        """The buckets of the row, in order."""
        found, first, start = [], 0, 0
        while first < len(self):
            last = self._end(first)
            tokens = sum(self.longest_first[first:last])
            found.append(self._bucket(slice(first, last), slice(start, start + tokens)))
            first, start = last, start + tokens
        return found

    def _end(self, first: int) -> int:
        """Returns the end of the bucket that starts with this text; a bucket of long texts has 1, 2, 4, ... texts."""
        lengths = self.longest_first
        longest, wasted, last = lengths[first], 0, first + 1
        if longest <= SHORT:
            return self._end_of_short(first)
        while last < len(self) and lengths[last] > SHORT:
            wasted += longest**2 - lengths[last] ** 2
            if wasted > BUCKET_OVERHEAD:
                break
            last += 1
        return first + (1 << (last - first).bit_length() >> 1)

    def _end_of_short(self, first: int) -> int:
        """Returns where texts begin for which a new bucket with smaller matrices saves more than it costs."""
        lengths = self.longest_first
        smaller = _room(lengths[first]) // 2
        split = next((i for i in range(first, len(self)) if lengths[i] <= smaller), len(self))
        saved = sum(lengths[split:]) * smaller
        return split if smaller in ROOMS and saved > BUCKET_OVERHEAD else len(self)

    def _bucket(self, among: slice, within: slice) -> Bucket:
        """Returns the bucket of these texts and tokens, counted longest text first."""
        lengths = self.longest_first[among]
        texts, tokens = self._rows(self.text_order, among), self._rows(self.token_order, within)
        if lengths[0] <= SHORT and len(lengths) > 1:
            return self._shared(lengths, texts, tokens, _room(lengths[0]))
        longest, count = rounded(lengths[0], self.device, TEXT_FINENESS, TEXT_LEAST), len(lengths)
        if min(lengths) == longest and isinstance(tokens, slice):
            return Bucket(texts, tokens, count, longest)
        starts = torch.arange(count) * longest
        keys = Places.of(starts, torch.tensor(lengths), (count, longest), tokens)
        return Bucket(texts, tokens, count, longest, keys.to(self.device))

    def _rows(self, order: Tensor | None, part: slice) -> Rows:
        return part if order is None else order[part].to(self.device)

    def _shared(self, own: tuple[int, ...], texts: Rows, tokens: Rows, room: int) -> Bucket:
        """Returns a bucket of short texts, which share matrices of this size."""
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
    """Returns the texts of each matrix of this size: a long text, then the shortest texts that fit."""
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
    """Returns `size` rounded up, so that few sizes occur; on a GPU, which has no need of this, `size` itself."""
    if device.type != "cpu":
        return size
    step = max(least, (1 << (size // fineness).bit_length()) >> 1)
    return -(-size // step) * step


def packed(
    inputs: Inputs, windows: Sequence[int], config: Any, pad_id: int, takes_types: bool, device: torch.device
) -> tuple[dict[str, Tensor], Packing]:
    """Returns the packed row of these windows, in their order, and where each lies; see `packed_row`."""
    return packed_row([inputs.window(p) for p in windows], config, pad_id, takes_types, device)


def packed_row(
    formatted: Sequence[Window], config: Any, pad_id: int, takes_types: bool, device: torch.device
) -> tuple[dict[str, Tensor], Packing]:
    """Returns the packed row of these windows, each with its ids and token types, and where each lies.

    Returns:
        input_ids and position_ids, both (1, T) int64; if one has token types, token_type_ids, (1, T), where the model
        takes them.
    """
    packing = Packing(tuple(len(ids) for ids, _ in formatted), device)
    filler = packing.row - packing.tokens
    ids = np.pad(np.concatenate([ids for ids, _ in formatted]), (0, filler), constant_values=pad_id)
    batch = {"input_ids": ids, "position_ids": positions(ids, (*packing.lengths, filler), config)}
    if takes_types and any(types is not None for _, types in formatted):
        kinds = [np.zeros(len(ids), dtype=np.int64) if types is None else types for ids, types in formatted]
        batch["token_type_ids"] = np.pad(np.concatenate(kinds), (0, filler))
    return {name: sent(torch.from_numpy(x.astype(np.int64))[None], device) for name, x in batch.items()}, packing


def positions(ids: npt.NDArray[np.int32], lengths: Sequence[int], config: Any) -> npt.NDArray[np.int64]:
    """Returns the position of each token of a packed row, (T,): counted from 0 in each text; the last is filler.

    RoBERTa and its like count from after their padding id, and leave out tokens of that id wherever they stand.
    """
    *own, filler = lengths
    # All of the filler is at the first position: it may be longer than the longest text that has positions.
    rest = np.zeros(filler, dtype=np.int64)
    if config.model_type not in OFFSET_POSITIONS:
        return np.concatenate([*(np.arange(length) for length in own), rest])
    texts = np.split(ids[: len(ids) - filler] != config.pad_token_id, np.cumsum(own)[:-1])
    return np.concatenate([*(np.cumsum(real) * real for real in texts), rest]) + int(config.pad_token_id)


def text_means(states: Tensor, lengths: Sequence[int]) -> Tensor:
    """Returns for each text the mean over its tokens, (B, D).

    Args:
        states: (T, D), text after text; rows after their tokens are filler.
        lengths: tokens of each text.
    """
    return torch.stack([own.mean(0) for own in torch.split(states[: sum(lengths)], list(lengths))])


def pooled(values: Tensor, owners: npt.NDArray[np.int64], texts: int) -> Tensor:
    """Returns for each text the mean over its windows, (B, X).

    Args:
        values: (P, X), one row for each window.
        owners: (P,) the text of each window.
        texts: B.
    """
    if np.array_equal(owners, np.arange(texts)):
        return values
    whose = torch.from_numpy(owners).to(values.device)
    sums = values.new_zeros(texts, values.shape[1]).index_add(0, whose, values)
    return sums / torch.bincount(whose, minlength=texts).unsqueeze(1)
