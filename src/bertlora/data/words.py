"""What a text consists of: its words as people read them, the word of each token, and what two texts are compared by.

Comparisons leave out case and punctuation (`words_of`), or nothing but white space around the text (`text_hash`).
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate

Span = tuple[int, int]

# Matches on the kinds of a text's characters. Each kind is one letter, white space is a space.
# l: letter or digit. m: mark (a combining accent, a joiner). i: letter of a script without spaces.
# j: apostrophe or hyphen. y: emoji and similar. p: other punctuation and signs.
_WORDS = re.compile(r"l[lm]*(?:jl[lm]*)*|im*|y[ym]*|[pjm]+")
_JOINING = "'’-‐"
_KINDS = {"L": "l", "N": "l", "Pc": "l", "M": "m", "C": "m", "Sk": "y", "So": "y", "S": "p", "P": "p", "Z": " "}
_HANGUL = range(0xAC00, 0xD7A4)  # wide characters, but written with spaces

# Scripts that put no spaces between words (kana, Han, Thai): each character counts as a word.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_COMPARED = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['’][^\W{_UNSPACED}]+)*")


def word_spans(text: str) -> list[Span]:
    """Returns where the words of a text start and end. Between words there is only white space.

    `don't` and `well-made` are one word. Punctuation is a word, and so is each letter of Chinese and Japanese.
    """
    return [found.span() for found in _WORDS.finditer("".join(map(_kind, text)))]


def words_of_tokens(text: str, offsets: Sequence[Span]) -> tuple[list[Span], list[int]]:
    """Returns the words of a text, and for each token the index of its word.

    Words that share a token are joined into one. A token of white space belongs to the word after it.

    Args:
        text: the text.
        offsets: the first character of each token, and the character after its last.
    """
    spans = word_spans(text) or ([(0, len(text))] if offsets else [])
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    reached = [_reached(starts, ends, *offset) for offset in offsets]
    glued = {i for first, last in reached for i in range(first + 1, last + 1)}
    numbers = [n - 1 for n in accumulate(int(i not in glued) for i in range(len(spans)))]
    words: list[Span] = []
    for i, (start, end) in enumerate(spans):
        if i in glued:
            words[-1] = (words[-1][0], end)
        else:
            words.append((start, end))
    return words, [numbers[first] for first, _ in reached]


def _reached(starts: Sequence[int], ends: Sequence[int], start: int, end: int) -> Span:
    """Returns the first and the last word that these characters touch."""
    first = min(bisect_right(ends, start), len(ends) - 1)
    return first, max(first, bisect_left(starts, end) - 1)


def _kind(character: str) -> str:
    """Returns the letter for a character's kind, for `_WORDS`."""
    if character.isspace():
        return " "
    if character in _JOINING:
        return "j"
    category = unicodedata.category(character)
    if category == "Lo" and unicodedata.east_asian_width(character) == "W" and ord(character) not in _HANGUL:
        return "i"
    return _KINDS.get(category) or _KINDS[category[0]]


def words_of(text: str) -> list[str]:
    """Returns the words by which texts are compared: in lower case, without punctuation."""
    return _COMPARED.findall(text.casefold())


def text_hash(text: str, pair: str = "") -> int:
    """Returns a 64-bit hash of a text or pair. Two of ten million texts share a hash with odds of 1 to 400,000."""
    parts = f"{text.strip()}\0{pair.strip()}".encode()
    return int.from_bytes(blake2b(parts, digest_size=8).digest())
