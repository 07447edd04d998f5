"""What a model reads of a text: its token ids cut or in windows, framed with special tokens.

One truncation and one way with long texts, shared by training, evaluation, prediction and export.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bertlora.data.tokens import Ids
from bertlora.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Windows overlap by an eighth of their room at least, so that no sentence is torn in both that it stands in.
OVERLAP = 8
# What a text longer than these windows leaves out lies between them, evenly spread.
MAX_WINDOWS = 16


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
        long_texts: `truncate` cuts a text that is too long; `windows` reads it in several windows.
    """

    single: tuple[Ids, Ids]
    pair: tuple[Ids, Ids, Ids] | None
    pair_types: tuple[int, int]
    max_length: int
    truncation: str
    long_texts: str = "truncate"

    @classmethod
    def of(
        cls, tokenizer: "PreTrainedTokenizerBase", max_length: int, truncation: str, long_texts: str = "truncate"
    ) -> "Framing":
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
            long_texts=long_texts,
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

    def starts(self, length: int) -> npt.NDArray[np.int64]:
        """Returns the first token of each window of a text of so many tokens: evenly spread from its start to its end.

        A text that fits, or is cut, has one.
        """
        room = self.room(pair=False)
        if self.long_texts == "truncate" or length <= room:
            return np.zeros(1, dtype=np.int64)
        needed = 1 + -(-(length - room) // (room - room // OVERLAP))
        return np.linspace(0, length - room, min(needed, MAX_WINDOWS)).round().astype(np.int64)

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
