"""The input template: how the token ids of a text become what a model reads.

The template cuts a text, or splits it into windows, and adds the special tokens. Training, evaluation, prediction and
export share it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bertlora.data.tokens import Ids
from bertlora.errors import ModelError

if TYPE_CHECKING:
    from bertlora.data.tokenizer import AnyTokenizer

# Two neighbouring windows share at least 1/8 of their tokens, so most sentences are whole in one of them.
OVERLAP = 8
# A text that needs more windows than this loses tokens between them, evenly spread.
MAX_WINDOWS = 16


@dataclass(frozen=True)
class InputTemplate:
    """Turns token ids into model input: cuts them to a maximum length and adds the special tokens.

    Attributes:
        single: special ids before and after a single text.
        pair: special ids before, between and after the texts of a pair; None if the tokenizer has no pair template.
        pair_types: token type of the first and of the second text of a pair.
        max_length: longest input in tokens, special tokens included.
        truncation: `right` cuts the end, `left` cuts the start, `head-tail` cuts the middle: a quarter of the tokens
            kept are from the head, the rest from the tail (Sun et al. 2019, "How to Fine-Tune BERT for Text
            Classification?").
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
        cls, tokenizer: "AnyTokenizer", max_length: int, truncation: str, long_texts: str = "truncate"
    ) -> "InputTemplate":
        """Returns the template of a tokenizer. It finds the special tokens by encoding a short text and a pair.

        Raises:
            ModelError: the tokenizer's special tokens cannot be found, or `max_length` leaves no room for text.
        """
        text = tokenizer.ids(["a"])[0]
        single = _around(tokenizer.with_special("a")[0], [text])
        both, types = tokenizer.with_special("a", "a")
        pair = _around(both, [text, text])
        if not text or single is None:
            raise ModelError(
                "the tokenizer does not put special tokens around a text; name a model with its own tokenizer"
            )
        template = cls(
            single=(single[0], single[1]),
            pair=None if pair is None else (pair[0], pair[1], pair[2]),
            pair_types=(types[0], types[-1]),
            max_length=max_length,
            truncation=truncation,
            long_texts=long_texts,
        )
        if template.room(pair=pair is not None) < 2:
            raise ModelError(f"max_length {max_length} leaves no room for text next to the special tokens; give more")
        return template

    def room(self, pair: bool) -> int:
        """Returns how many tokens of text fit, special tokens not counted."""
        special = self.pair if pair and self.pair else self.single
        return self.max_length - sum(len(part) for part in special)

    def __call__(self, first: Ids, second: Ids | None = None) -> tuple[Ids, Ids | None]:
        """Returns the model input: ids (T,) and, for a pair, token types (T,)."""
        if second is None:
            return np.concatenate([self.single[0], self._cut(first, self.room(False)), self.single[1]]), None
        if self.pair is None:
            raise ModelError("the tokenizer has no template for a pair of texts; name a model whose tokenizer has one")
        kept_first, kept_second = _longest_first(len(first), len(second), self.room(True))
        before, between, after = self.pair
        left = np.concatenate([before, self._cut(first, kept_first), between])
        right = np.concatenate([self._cut(second, kept_second), after])
        types = np.repeat(np.array(self.pair_types, dtype=np.int32), [len(left), len(right)])
        return np.concatenate([left, right]), types

    def starts(self, length: int) -> npt.NDArray[np.int64]:
        """Returns the first token of each window of a text of `length` tokens.

        The windows are evenly spread from the start of the text to its end. A text that fits, or that is cut, has one.
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


def _around(encoded: list[int], texts: list[list[int]]) -> list[Ids] | None:
    """Returns the ids before, between and after `texts` in the encoded sequence, or None if it does not hold them."""
    rest, parts = encoded, []
    for text in texts:
        starts = [i for i in range(len(rest) - len(text) + 1) if rest[i : i + len(text)] == text]
        if not starts:
            return None
        parts.append(np.array(rest[: starts[0]], dtype=np.int32))
        rest = rest[starts[0] + len(text) :]
    return [*parts, np.array(rest, dtype=np.int32)]


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Returns how many tokens of each text of a pair are kept: the longer is cut first, as `tokenizers` does."""
    if first + second <= room:
        return first, second
    short, long = sorted((first, second))
    long = max(short, room - short) if short <= room else short
    if short + long > room:
        short = room // 2
        long = short + room % 2
    return (short, long) if first <= second else (long, short)
