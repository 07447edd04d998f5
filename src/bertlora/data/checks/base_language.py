"""The check whether the base's vocabulary covers the language of the texts, measured against English reviews."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from bertlora.data.checks.find import Check, a_check, percent
from bertlora.data.checks.language import language_of, script_of
from bertlora.data.folder import Prepared
from bertlora.data.reviews import embedded_specs
from bertlora.data.rows import iter_texts
from bertlora.data.tokenizer import AnyTokenizer

TEXTS_READ = 300
# Languages are named from the starts of ten texts together, since one text may be too short.
TOGETHER = 10
START_CHARACTERS = 80
# The vocabulary does not cover a language that is not English if its figures are this many times those of English
# reviews. docs/data.md has the figures of 16 languages.
ODD_RATIO = 2.0
WORD_RATIO = 1.3
# A vocabulary of more pieces is one of many languages, or a large English one: in both, words are cut less.
LARGE_VOCABULARY = 100_000
# In a script without spaces, such as Chinese, a word is longer than this, and tokens per word say nothing.
LONGEST_WORD = 15
MULTILINGUAL = ("intfloat/multilingual-e5-small", "distilbert-base-multilingual-cased")


class Cover(NamedTuple):
    """How a vocabulary covers some texts.

    Attributes:
        odd: fraction of tokens that are unknown, or one letter; 0..1.
        per_word: tokens per word.
        word: characters per word.
    """

    odd: float
    per_word: float
    word: float


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, and for each id whether the token is unknown or one letter."""

    tokenizer: AnyTokenizer
    odd: np.ndarray[tuple[int], np.dtype[np.bool_]]

    @classmethod
    def of(cls, tokenizer: AnyTokenizer) -> "Vocabulary":
        """Returns the vocabulary of a tokenizer."""
        pieces = tokenizer.pieces()
        odd = np.zeros(1 + max(pieces.values()), np.bool_)
        odd[[number for piece, number in pieces.items() if _is_letter(piece)]] = True
        if tokenizer.unknown_id is not None:
            odd[tokenizer.unknown_id] = True
        return cls(tokenizer, odd)

    def cover(self, texts: Sequence[str]) -> Cover:
        """Returns how it covers texts."""
        ids = np.concatenate([np.array(found, np.int64) for found in self.tokenizer.ids(texts)])
        words = max(1, sum(len(text.split()) for text in texts))
        return Cover(float(self.odd[ids].mean()) if len(ids) else 0.0, len(ids) / words, sum(map(len, texts)) / words)


def base_language_check(data: Prepared, tokenizer: AnyTokenizer) -> Iterator[Check]:
    """Yields base_language if most texts are in a language that the vocabulary hardly covers.

    Args:
        data: the prepared data; some texts of train are read.
        tokenizer: the base's.
    """
    texts = _sample(data)
    language = main_language(texts)
    if language in ("", "en"):
        return
    vocabulary = Vocabulary.of(tokenizer)
    found, english = vocabulary.cover(texts), vocabulary.cover(_english())
    cut = found.word < LONGEST_WORD and len(vocabulary.odd) < LARGE_VOCABULARY
    if found.odd <= ODD_RATIO * english.odd and not (cut and found.per_word > WORD_RATIO * english.per_word):
        return
    advice = (
        f"most texts are in a language ({language}) that the vocabulary of the base hardly covers: "
        f"{percent(found.odd)} of the tokens are unknown or one letter (English reviews: {percent(english.odd)}), and "
        "a word takes "
        f"{found.per_word:.1f} tokens ({english.per_word:.1f}); train on a multilingual base, such as "
        f"{' or '.join(MULTILINGUAL)}"
    )
    yield from a_check("base_language", "warning", np.zeros(0, np.int64), [], advice, count=len(texts))


def main_language(texts: Sequence[str]) -> str:
    """Returns the language of most texts, or their script if it is not Latin; empty if neither is certain."""
    groups = [texts[start : start + TOGETHER] for start in range(0, len(texts), TOGETHER)]
    joined = ["\n".join(text[:START_CHARACTERS] for text in group) for group in groups]
    for names in (map(language_of, joined), map(script_of, joined)):
        ((name, count),) = Counter(names).most_common(1) or [("", 0)]
        if name not in ("", "LATIN") and 2 * count > len(joined):
            return name
    return ""


def _is_letter(piece: str) -> bool:
    """Returns whether a piece is one letter. A Chinese character is a word, and as a piece nothing unusual."""
    letter = piece.removeprefix("##").lstrip("▁Ġ")
    return len(letter) == 1 and letter.isalpha() and not "\u4e00" <= letter <= "\u9fff"


def _sample(data: Prepared) -> list[str]:
    """Returns texts of train, from all of its length if it is short."""
    step = max(1, min(data.rows["train"] // TEXTS_READ, 20))
    return list(islice(data.stream("train", "text"), 0, step * TEXTS_READ, step))


def _english() -> list[str]:
    path = embedded_specs()[0].partition("=")[2]
    return [text for batch in iter_texts(path) for text, _ in batch][:TEXTS_READ]
