"""Simple features of a text, from which a label can be guessed without reading: numbers, words, marks, ratings.

A word is a token without a space, such as `bad`. Other tokens are phrases that complete the sentence "12 % of texts
...": `start with 'Pros:'`. So the name of a feature is what people read.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from bertlora.data.checks.texts import has_html
from bertlora.data.words import words_of

SECOND = " in the second text"
SAY = "say "
_FIRST_WORD, _LAST_WORD = "start with the word ", "end with the word "

# The numbers of a text, as `numbers_of` orders them: what they count, and whether they are fractions in 0..1.
NUMBERS = (
    ("words", False),
    ("characters", False),
    ("capitals among the letters", True),
    ("digits among the characters", True),
    ("punctuation among the characters", True),
)
# Which feature names a set of rows best: a token that starts with the first of these, then a number, then the rest.
_BEST_NAMES = (SAY, "have HTML", "start with white", "end with white", "start with ", "end with ", "have two spaces")
NUMBER_RANK = len(_BEST_NAMES)

# `label: positive`, `sentiment = 1`, `[class] -> spam`.
_WRITTEN = re.compile(
    r"\b(label|class|category|sentiment|polarity|target|tag|topic|intent|verdict|ground truth)\b"
    r"[\"'\])]?\s*(?::|=|->)\s*[\"'\[(]?([\w-]{1,40})"
)
# `8/10`, `7.5 out of 10`, `4 stars`, `★★★☆☆`.
_RATING = re.compile(
    r"(?<![\d/.])(\d{1,3}(?:[.,]\d)?)\s?(?:/|out of)\s?(5|10|100)(?![\d/])"
    r"|(?<![\d/.])(\d(?:[.,]5)?)(?: out of five)?(?: stars|-stars?)\b"
    r"|(★+)(?:☆|(?!★))"
)
# A quick look spares most texts the search.
_WRITTEN_SIGNS = (":", "=", "->")
_RATING_SIGNS = ("/5", "/10", "/ 5", "/ 10", "out of 5", "out of 10", " stars", "-star", "★")
_SYMBOL = re.compile(r"[^\w ]")
_MOST_TOKEN = 30


def numbers_of(text: str) -> list[float]:
    """Returns the numbers of a text, in the order of `NUMBERS`."""
    letters = capitals = digits = spaces = 0
    for character, count in Counter(text).items():
        if character.isalpha():
            letters += count
            capitals += count * character.isupper()
        digits += count * character.isdigit()
        spaces += count * character.isspace()
    characters = max(1, len(text))
    other = len(text) - letters - digits - spaces
    return [len(text.split()), len(text), capitals / max(1, letters), digits / characters, other / characters]


def tokens_of(texts: Sequence[str]) -> set[str]:
    """Returns the different words and marks of a text, or of a pair of texts."""
    first, *second = texts
    return {*_tokens(first), *(token + SECOND for part in second for token in _tokens(part))}


def kind_of(token: str) -> str:
    """Returns the kind of a token: `word`, `mark`, or `written` for a label that is written into the text."""
    token = token.removesuffix(SECOND)
    if token.startswith(SAY):
        return "written"
    return "mark" if " " in token and not token.startswith((_FIRST_WORD, _LAST_WORD)) else "word"


def phrase_of(token: str) -> str:
    """Returns a token as the end of the sentence "12 % of texts ..."."""
    bare = token.removesuffix(SECOND)
    return token if " " in bare else f"have the word '{bare}'{token[len(bare) :]}"


def edge_word(token: str) -> str:
    """Returns the word that a token says is the first or the last of a text; empty for other tokens."""
    bare = token.removesuffix(SECOND)
    return bare.split("'", 1)[1][:-1] if bare.startswith((_FIRST_WORD, _LAST_WORD)) else ""


def rank_of(token: str) -> int:
    """Returns which of two tokens names a set of rows better: the one of lower rank. A word is after a mark."""
    if kind_of(token) == "word":
        return NUMBER_RANK + (3 if edge_word(token) else 2)
    return next((rank for rank, start in enumerate(_BEST_NAMES) if token.startswith(start)), NUMBER_RANK + 1)


def number_phrase(column: int, limit: float, above: bool) -> str:
    """Returns "the number is above the limit", or not above it, as the end of the sentence "12 % of texts ...".

    Args:
        column: the number, in the order of `NUMBERS`; those of a second text come after those of the first.
        limit: the limit.
        above: whether the number is above it.
    """
    name, is_fraction = NUMBERS[column % len(NUMBERS)]
    amount = f"{100 * limit:.3g} % {name}" if is_fraction else f"{int(limit):,} {name}"
    return f"have {'more than' if above else 'at most'} {amount}{SECOND if column >= len(NUMBERS) else ''}"


def rating_of(text: str) -> float:
    """Returns the last rating in a text, such as `8/10` or `4 stars`, in 0..1; NaN if there is none."""
    found = float("nan")
    if not any(sign in text for sign in _RATING_SIGNS):
        return found
    for value, most, stars, signs in _RATING.findall(text):
        given = float((value or stars or str(len(signs))).replace(",", "."))
        share = given / float(most or (5 if given <= 5 else 10))
        found = share if share <= 1 else found
    return found


def _tokens(text: str) -> Iterator[str]:
    words = words_of(text)
    yield from words
    if words:
        yield f"{_FIRST_WORD}'{words[0]}'"
        yield f"{_LAST_WORD}'{words[-1]}'"
    has_sign = any(sign in text for sign in _WRITTEN_SIGNS)
    for name, value in _WRITTEN.findall(text.casefold()) if has_sign else ():
        yield f"{SAY}'{name}: {value}'"
    yield from _marks(text)


def _marks(text: str) -> Iterator[str]:
    """Yields what is seen of a text without its words: symbols, HTML, white space, and symbols at start and end."""
    for symbol in set(_SYMBOL.findall(text)):
        yield f"have the character {symbol!r}"
    if has_html(text):
        yield "have HTML"
    if text[:1].isspace():
        yield "start with white space"
    if text[-1:].isspace():
        yield "end with white space"
    if "  " in text:
        yield "have two spaces in a row"
    parts = text.split()
    for edge, part in (("start", parts[0]), ("end", parts[-1])) if parts else ():
        if not part.isalnum():
            yield f"{edge} with {part[:_MOST_TOKEN]!r}"
