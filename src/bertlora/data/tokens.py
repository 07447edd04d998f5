"""One tokenisation and one truncation, shared by training, evaluation, prediction and export.

Texts are tokenised whole and without special tokens, once, and kept on disk beside the prepared data. What a model
reads is cut from that and framed with special tokens by `Framing`, so that another maximum length, or another side to
cut, costs no second tokenisation.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bertlora.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = npt.NDArray[np.int32]

CHUNK_TEXTS = 4096


@dataclass(frozen=True)
class TokenTable:
    """The token ids of many texts, end to end in one array, which may be mapped from disk.

    Attributes:
        ids: (T,) int32, the texts' ids in order.
        offsets: (B + 1,) int64, text i is `ids[offsets[i]:offsets[i + 1]]`.
    """

    ids: Ids
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> Ids:
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(B,) tokens of each text."""
        return np.diff(self.offsets)

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "TokenTable":
        """Returns the table of these rows of ids."""
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        ids = np.fromiter((token for row in rows for token in row), dtype=np.int32, count=int(offsets[-1]))
        return cls(ids, offsets)

    @classmethod
    def joined(cls, tables: Iterable["TokenTable"]) -> "TokenTable":
        """Returns the texts of all these tables in one."""
        parts = list(tables)
        ids = np.concatenate([part.ids for part in parts]) if parts else np.zeros(0, dtype=np.int32)
        lengths = np.concatenate([part.lengths for part in parts]) if parts else np.zeros(0, dtype=np.int64)
        return cls(ids, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def tokenize(tokenizer: "PreTrainedTokenizerBase", texts: Iterable[str]) -> TokenTable:
    """Returns the ids of whole texts, without special tokens. Fast tokenizers use every core."""
    return TokenTable.joined(token_chunks(tokenizer, texts))


def token_chunks(tokenizer: "PreTrainedTokenizerBase", texts: Iterable[str]) -> Iterator[TokenTable]:
    """Yields the same in tables of up to 4,096 texts, for more texts than should be in memory at once."""
    waiting = iter(texts)
    while chunk := list(itertools.islice(waiting, CHUNK_TEXTS)):
        encoded = tokenizer(
            chunk, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )
        yield TokenTable.of(encoded["input_ids"])


@dataclass(frozen=True)
class Framing:
    """How token ids become what the model reads: cut to a maximum length, special tokens around them.

    Attributes:
        single: special ids before and after a lone text.
        pair: special ids before, between and after a pair.
        pair_types: token type of the first and of the second text of a pair.
        max_length: longest input in tokens, special tokens included.
        truncation: `right` cuts the end, `left` the start, `head-tail` the middle (a quarter of the room goes to the
            head, the rest to the tail, after Sun et al. 2019, "How to Fine-Tune BERT for Text Classification?").
    """

    single: tuple[Ids, Ids]
    pair: tuple[Ids, Ids, Ids] | None
    pair_types: tuple[int, int]
    max_length: int
    truncation: str

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase", max_length: int, truncation: str) -> "Framing":
        """Reads the special tokens off two encoded probes.

        Raises:
            ModelError: the tokenizer does not frame a text with special tokens in a way that can be read off, or
                `max_length` leaves no room for text.
        """
        probe = list(tokenizer("a", add_special_tokens=False)["input_ids"])
        single = _around([list(tokenizer("a")["input_ids"])], [probe])
        both = tokenizer("a", "a", return_token_type_ids=True)
        pair = _around([list(both["input_ids"])], [probe, probe])
        if not probe or single is None:
            raise ModelError(
                "the tokenizer does not put special tokens around a text; name a model with its own tokenizer"
            )
        types = both.get("token_type_ids") or [0]
        framing = cls(
            single=(single[0], single[1]),
            pair=None if pair is None else (pair[0], pair[1], pair[2]),
            pair_types=(int(types[0]), int(types[-1])),
            max_length=max_length,
            truncation=truncation,
        )
        if framing.room(pair=pair is not None) < 2:
            raise ModelError(f"max_length {max_length} leaves no room for text beside the special tokens; give more")
        return framing

    def room(self, pair: bool) -> int:
        """Returns the text tokens that fit."""
        special = self.pair if pair and self.pair else self.single
        return self.max_length - sum(len(part) for part in special)

    def __call__(self, first: Ids, second: Ids | None = None) -> tuple[Ids, Ids | None]:
        """Returns the framed ids (T,) and, for a pair, the token types (T,)."""
        if second is None:
            return np.concatenate([self.single[0], self._cut(first, self.room(False)), self.single[1]]), None
        if self.pair is None:
            raise ModelError("the tokenizer cannot frame a pair of texts; name a model whose tokenizer can")
        kept_first, kept_second = _longest_first(len(first), len(second), self.room(True))
        before, between, after = self.pair
        left = np.concatenate([before, self._cut(first, kept_first), between])
        right = np.concatenate([self._cut(second, kept_second), after])
        types = np.repeat(np.array(self.pair_types, dtype=np.int32), [len(left), len(right)])
        return np.concatenate([left, right]), types

    def _cut(self, ids: Ids, room: int) -> Ids:
        if len(ids) <= room:
            return ids
        if self.truncation == "right":
            return ids[:room]
        if self.truncation == "left":
            return ids[len(ids) - room :]
        head = room // 4
        return np.concatenate([ids[:head], ids[len(ids) - (room - head) :]])


def _around(encoded: list[list[int]], probes: list[list[int]]) -> list[Ids] | None:
    """Returns the ids before, between and after the probes in the encoded sequence, None where they are not found."""
    rest, parts = encoded[0], []
    for probe in probes:
        starts = [i for i in range(len(rest) - len(probe) + 1) if rest[i : i + len(probe)] == probe]
        if not starts:
            return None
        parts.append(np.array(rest[: starts[0]], dtype=np.int32))
        rest = rest[starts[0] + len(probe) :]
    return [*parts, np.array(rest, dtype=np.int32)]


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Returns the tokens kept of each text of a pair: the longer one is cut first, as the tokenizers library does."""
    if first + second <= room:
        return first, second
    short, long = sorted((first, second))
    long = max(short, room - short) if short <= room else short
    if short + long > room:
        short = room // 2
        long = short + room % 2
    return (short, long) if first <= second else (long, short)


@dataclass(frozen=True)
class Inputs:
    """Framed texts, ready for batching. Framing is done on access, so that a mapped table stays on disk.

    Attributes:
        framing: how they are cut and framed.
        first: the texts.
        second: the second texts of pairs, or None.
    """

    framing: Framing
    first: TokenTable
    second: TokenTable | None = None

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, i: int) -> tuple[Ids, Ids | None]:
        return self.framing(self.first[i], None if self.second is None else self.second[i])

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(B,) tokens of each text as the model reads it."""
        whole = self.first.lengths + (0 if self.second is None else self.second.lengths)
        pair = self.second is not None
        special = self.framing.max_length - self.framing.room(pair)
        return np.asarray(np.minimum(whole, self.framing.room(pair)) + special)

    def take(self, rows: Sequence[int]) -> "Inputs":
        """Returns the inputs of these rows alone."""
        second = None if self.second is None else TokenTable.of([self.second[i].tolist() for i in rows])
        return Inputs(self.framing, TokenTable.of([self.first[i].tolist() for i in rows]), second)


def token_batches(
    lengths: npt.NDArray[np.int64], batch_size: int, max_tokens: int, padding: bool = True
) -> Iterator[list[int]]:
    """Yields row numbers in batches of texts of like length, longest first, so that little is padded.

    Args:
        lengths: (B,) tokens of each text.
        batch_size: most texts a batch.
        max_tokens: most tokens a batch; a longer text gets a batch of its own.
        padding: whether padding counts among these tokens.
    """
    batch: list[int] = []
    tokens = longest = 0
    for row in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[row])
        grown = longest * (len(batch) + 1) if padding else tokens + length
        if batch and (len(batch) == batch_size or grown > max_tokens):
            yield batch
            batch, tokens = [], 0
        longest = longest if batch else length
        tokens += length
        batch.append(row)
    if batch:
        yield batch
