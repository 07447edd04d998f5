"""Model inputs of many texts: the windows of each text, and batches of texts of similar length.

Letters: B texts, P windows (P = B if long texts are cut), T tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bertlora.data.template import InputTemplate
from bertlora.data.tokens import Ids, TokenTable
from bertlora.errors import InputError


class Windows(NamedTuple):
    """The windows of texts, end to end in the order of the texts.

    Attributes:
        offsets: (B + 1,) int64, text i has the windows `offsets[i]` to `offsets[i + 1]`.
        texts: (P,) int64, the text of each window.
        starts: (P,) int64, the window's first token in the text.
        lengths: (P,) int64, tokens of the window's input, special tokens included.
    """

    offsets: npt.NDArray[np.int64]
    texts: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Inputs:
    """Texts as model inputs. The template is applied on access, so a table that is mapped from disk stays there.

    Attributes:
        template: how texts are cut and where special tokens go.
        first: the texts.
        second: the second texts of pairs, or None.

    Raises:
        InputError: the template reads windows and the texts are pairs.
    """

    template: InputTemplate
    first: TokenTable
    second: TokenTable | None = None

    def __post_init__(self) -> None:
        if self.second is not None and self.template.long_texts == "windows":
            raise InputError("long_texts: windows work only for single texts; use truncate for pairs")

    def __len__(self) -> int:
        return len(self.first)

    @cached_property
    def windows(self) -> Windows:
        """The windows of all texts."""
        template = self.template
        starts = [template.starts(length) for length in self.first.lengths.tolist()]
        counts = np.array([len(found) for found in starts], dtype=np.int64)
        texts = np.repeat(np.arange(len(self)), counts)
        room = template.room(self.second is not None)
        return Windows(
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            texts=texts,
            starts=np.concatenate([np.zeros(0, dtype=np.int64), *starts]),
            lengths=(np.minimum(self.whole, room) + template.max_length - room)[texts],
        )

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(B,) tokens of each text's inputs, all its windows together."""
        ends = np.concatenate([[0], np.cumsum(self.windows.lengths)])
        return np.asarray(np.diff(ends[self.windows.offsets]))

    @property
    def whole(self) -> npt.NDArray[np.int64]:
        """(B,) tokens of each text or pair before it is cut, without special tokens."""
        return np.asarray(self.first.lengths + (0 if self.second is None else self.second.lengths))

    @property
    def unread(self) -> npt.NDArray[np.int64]:
        """(B,) tokens of each text or pair that the model does not read."""
        windows, room = self.windows, self.template.room(self.second is not None)
        read = np.minimum(self.whole, room)
        later = np.flatnonzero(np.diff(windows.texts) == 0) + 1  # windows after the first of a text
        steps = windows.starts[later] - windows.starts[later - 1]
        np.add.at(read, windows.texts[later], np.minimum(steps, room))
        return np.asarray(self.whole - np.minimum(read, self.whole))

    def window(self, p: int) -> tuple[Ids, Ids | None]:
        """Returns the input of window `p`: ids (T,) and, for a pair, token types (T,)."""
        text, start = int(self.windows.texts[p]), int(self.windows.starts[p])
        ids = self.first[text]
        if self.template.long_texts == "windows":
            ids = ids[start : start + self.template.room(pair=False)]
        return self.template(ids, None if self.second is None else self.second[text])

    def windows_of(self, rows: Sequence[int]) -> tuple[list[int], npt.NDArray[np.int64]]:
        """Returns the windows of these texts, longest first, and for each window the index of its text in `rows`."""
        offsets, lengths = self.windows.offsets, self.windows.lengths
        if self.template.long_texts == "truncate":
            found, owners = np.asarray(rows), np.arange(len(rows))
        else:
            found = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in rows])
            owners = np.repeat(np.arange(len(rows)), np.diff(offsets)[rows])
        order = np.argsort(-lengths[found], kind="stable")
        return found[order].tolist(), owners[order]

    def take(self, rows: Sequence[int]) -> "Inputs":
        """Returns the inputs of these texts only."""
        second = None if self.second is None else TokenTable.of([self.second[i] for i in rows])
        return Inputs(self.template, TokenTable.of([self.first[i] for i in rows]), second)


@dataclass(frozen=True)
class Unread:
    """What a model does not read of some texts.

    Attributes:
        share: of their tokens, 0..1.
        cut: the share of the texts that lose a token, 0..1.
        changes: what would let the model read more, of what is not set yet.
    """

    share: float = 0.0
    cut: float = 0.0
    changes: tuple[str, ...] = ()

    @classmethod
    def of(cls, inputs: Inputs, longest: int) -> "Unread":
        """Returns what is not read of these inputs.

        Args:
            inputs: of the model.
            longest: the longest input in tokens that its base reads.
        """
        template, lost = inputs.template, inputs.unread
        cut = template.long_texts == "truncate"
        changes = ["a larger max_length"] if template.max_length < longest else []
        changes += ["truncation = head-tail"] if cut and template.truncation != "head-tail" else []
        changes += ["long_texts = windows"] if cut and inputs.second is None else []
        share, texts = lost.sum() / max(inputs.whole.sum(), 1), max(len(lost), 1)
        return cls(float(share), float(np.sum(lost > 0) / texts), tuple(changes))

    @property
    def remedy(self) -> str:
        """What would let a model read more."""
        return " or ".join(self.changes) or "a base model that reads longer texts"


ALL_READ = Unread()


def token_batches(
    lengths: npt.NDArray[np.int64], batch_size: int, max_tokens: int, padding: bool = True
) -> Iterator[list[int]]:
    """Yields row numbers in batches of texts of similar length, longest first, so that there is little padding.

    Args:
        lengths: (B,) tokens of each text.
        batch_size: most texts in a batch.
        max_tokens: most tokens in a batch; a longer text gets its own batch.
        padding: whether padding counts as tokens.
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
