"""One tokenisation: texts whole and without special tokens, once, kept on disk beside the prepared data.

What a model reads is cut from that by `framing.py`, so that another maximum length costs no second tokenisation.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

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
