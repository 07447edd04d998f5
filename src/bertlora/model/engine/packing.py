"""From texts to the tensors that a model takes: many texts in one row of tokens, without padding; or padded batches.

    texts        [CLS] a joy [SEP]      [CLS] dull [SEP]
    input_ids    [CLS] a joy [SEP] [CLS] dull [SEP]        (1, T)
    positions      0   1  2    3     0    1     2          restart with each text

All layers except attention work on each token separately. Attention works through the row in `Bucket`s, each one batch
of matrices: long texts of nearly the same length, one in each matrix; or short texts, several in a matrix, where each
text sees only itself.

On a CPU, oneDNN generates code for each new shape of a bf16 product: a third of a millisecond, and up to a megabyte
that is never freed. So rows and buckets have few sizes there: rows end in filler tokens, and lengths are rounded up.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bertlora.data.inputs import Inputs
from bertlora.model.engine.blocks import Bucket, Places
from bertlora.model.engine.changes import unwrapped

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


@dataclass(frozen=True)
class Packing:
    """The texts of a packed row, longest first.

    Attributes:
        lengths: tokens of each text.
        device: the row's device.

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
        """T, tokens of the row, including filler."""
        fineness = ROW_FINENESS if self.tokens < FULL_ROW else FULL_ROW_FINENESS
        return rounded(self.tokens, self.device, fineness, ROW_LEAST)

    @cached_property
    def offsets(self) -> Tensor:
        """(B + 1,) int32: where each text starts, and where the last one ends."""
        ends = torch.tensor([0, *self.lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return ends.to(self.device)

    @cached_property
    def starts(self) -> Tensor:
        """(B,) int64: the first token of each text."""
        return self.offsets[:-1].long()

    @cached_property
    def buckets(self) -> list[Bucket]:
        """The buckets of the row, in order."""
        found, first, start = [], 0, 0
        while first < len(self):
            last = self._end(first)
            tokens = sum(self.lengths[first:last])
            found.append(self._bucket(slice(first, last), slice(start, start + tokens)))
            first, start = last, start + tokens
        return found

    def _end(self, first: int) -> int:
        """Returns the end of the bucket that starts with this text; a bucket of long texts has 1, 2, 4, ... texts."""
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
        """Returns where texts begin for which a new bucket with smaller matrices saves more than it costs."""
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
        """Returns a bucket of short texts, which share matrices of this size."""
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
    """Returns the packed row of these windows, in their order, and where each lies.

    Returns:
        input_ids and position_ids, both (1, T) int64; for pairs token_type_ids, (1, T), where the model takes them.
    """
    formatted = [inputs.window(p) for p in windows]
    packing = Packing(tuple(len(tokens) for tokens, _ in formatted), device)
    filler = packing.row - packing.tokens
    ids = np.pad(np.concatenate([tokens for tokens, _ in formatted]), (0, filler), constant_values=pad_id)
    batch = {"input_ids": ids, "position_ids": positions(ids, (*packing.lengths, filler), config)}
    kinds = [types for _, types in formatted if types is not None]
    if kinds and takes_types:
        batch["token_type_ids"] = np.pad(np.concatenate(kinds), (0, filler))
    return {name: torch.from_numpy(x.astype(np.int64))[None].to(device) for name, x in batch.items()}, packing


def positions(ids: npt.NDArray[np.int32], lengths: Sequence[int], config: Any) -> npt.NDArray[np.int64]:
    """Returns the position of each token of a packed row, (T,): counted from 0 in each text; the last is filler.

    RoBERTa counts from after its padding id, and leaves out tokens of that id wherever they stand.
    """
    *own, filler = lengths
    # All of the filler is at the first position: it may be longer than the longest text that has positions.
    rest = np.zeros(filler, dtype=np.int64)
    if config.model_type not in ("roberta", "xlm-roberta"):
        return np.concatenate([*(np.arange(length) for length in own), rest])
    texts = np.split(ids[: len(ids) - filler] != config.pad_token_id, np.cumsum(own)[:-1])
    return np.concatenate([*(np.cumsum(real) * real for real in texts), rest]) + int(config.pad_token_id)


def padded(inputs: Inputs, windows: Sequence[int], pad_id: int, takes_types: bool) -> dict[str, Tensor]:
    """Returns the batch of these P windows, each padded on the right to the longest of them.

    Returns:
        input_ids and attention_mask, both (P, T) int64; for pairs token_type_ids, (P, T), where the model takes them.
    """
    formatted = [inputs.window(p) for p in windows]
    longest = max(len(ids) for ids, _ in formatted)
    ids = torch.full((len(formatted), longest), pad_id)
    mask = torch.zeros((len(formatted), longest), dtype=torch.int64)
    types = torch.zeros((len(formatted), longest), dtype=torch.int64)
    for row, (tokens, kinds) in enumerate(formatted):
        ids[row, : len(tokens)] = torch.from_numpy(tokens)
        mask[row, : len(tokens)] = 1
        if kinds is not None:
            types[row, : len(kinds)] = torch.from_numpy(kinds)
    batch = {"input_ids": ids, "attention_mask": mask}
    if takes_types and inputs.second is not None:
        batch["token_type_ids"] = types
    return batch


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


def takes_token_types(model: nn.Module) -> bool:
    """Returns whether the model tells the two texts of a pair apart by token types."""
    inner = unwrapped(model)
    known = "token_type_ids" in inspect.signature(inner.forward).parameters
    return known and getattr(inner.config, "type_vocab_size", 0) > 1
