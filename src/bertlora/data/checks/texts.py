"""What the checks need to know of each text, collected while the texts are streamed: about 280 bytes a row.

Letters: N rows, S texts in a row (2 for pairs of texts, else 1), P hashes of a text.
"""

import re
import unicodedata
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from bertlora.data.checks.language import foreign_part, language_of, script_of
from bertlora.data.checks.lost import LostLetters
from bertlora.data.checks.near import Signatures, Signer
from bertlora.data.checks.word_file import WordFile
from bertlora.data.words import text_hash, words_of

_TAG_NAMES = (
    "a|abbr|b|big|blockquote|body|br|center|code|dd|div|dl|dt|em|font|form|h[1-6]|head|hr|html|i|iframe|img|input|"
    "label|li|link|meta|ol|option|p|pre|s|script|select|small|span|strike|strong|style|sub|sup|table|tbody|td|th|"
    "thead|title|tr|tt|u|ul"
)
_HTML = re.compile(
    rf"</?(?:{_TAG_NAMES})(?:\s[^<>]*|\s*/)?>|&(?:amp|lt|gt|quot|apos|nbsp|#\d{{1,7}}|#x[0-9a-f]{{1,6}});",
    re.IGNORECASE,
)
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")


@dataclass(frozen=True)
class TextFacts:
    """Arrays of length N, one value for each row. The two texts of a pair count as one.

    Attributes:
        hashes: uint64, equal for equal texts.
        signatures: (N, S, P) uint16, MinHash of the words of each text.
        words: int32, number of words.
        html: bool, whether it holds a tag or an entity such as `<br />` or `&amp;`.
        mojibake: bool, whether it looks decoded with the wrong encoding, or has letters that became `?`.
        empty: bool, whether it holds no letter, digit or symbol.
        scripts: int16, index in `names` of the script; 0 if it is unknown.
        languages: int16, index in `names` of the language; 0 if it is unknown.
        parts: int16, index in `names` of the language or script of a foreign part of an English text; 0 if it has none.
        names: names of scripts and languages; the first is empty.
    """

    hashes: NDArray[np.uint64]
    signatures: Signatures
    words: NDArray[np.int32]
    html: NDArray[np.bool_]
    mojibake: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    scripts: NDArray[np.int16]
    languages: NDArray[np.int16]
    parts: NDArray[np.int16]
    names: list[str]

    def take(self, rows: NDArray[np.int64]) -> "TextFacts":
        """Returns the facts of these rows."""
        arrays = {field.name: getattr(self, field.name)[rows] for field in fields(self) if field.name != "names"}
        return TextFacts(**arrays, names=self.names)

    def without_signatures(self) -> "TextFacts":
        """Returns the other facts. The signatures take most of the memory, and only one comparison needs them."""
        return replace(self, signatures=np.zeros((*self.signatures.shape[:2], 0), np.uint16))


class Examiner:
    """Collects facts: `add` each text in order, then call `facts`.

    Args:
        pairs: whether each row has a second text.
        word_files: get the words of each column of texts, for `Similar`.
    """

    def __init__(self, pairs: bool, word_files: Sequence[WordFile] = ()) -> None:
        self._word_files = word_files
        self._signers = [Signer() for _ in range(2 if pairs else 1)]
        self._hashes, self._words = array("Q"), array("i")
        self._html, self._mojibake, self._empty = array("b"), array("b"), array("b")
        self._lost = LostLetters()
        self._scripts, self._languages, self._parts = array("h"), array("h"), array("h")
        self._names = {"": 0}

    def add(self, text: str, pair: str | None) -> None:
        """Adds the next row."""
        both = text if pair is None else f"{text}\n{pair}"
        self._hashes.append(text_hash(text, pair or ""))
        words = [words_of(part) for part in (text, pair) if part is not None]
        self._words.append(sum(map(len, words)))
        # A text without a letter or digit counts as one word.
        words = [found or [part.strip()] for found, part in zip(words, (text, pair or ""), strict=False)]
        for signer, found in zip(self._signers, words, strict=True):
            signer.add(found)
        for file, found in zip(self._word_files, words, strict=False):
            file.add(found)
        self._html.append(has_html(both))
        self._mojibake.append(is_mojibake(both))
        self._empty.append(is_empty(both))
        every_word = [word for found in words for word in found]
        self._lost.add(both, every_word)
        language = language_of(both)
        self._scripts.append(self._index(script_of(both)))
        self._languages.append(self._index(language))
        self._parts.append(self._index(foreign_part(both, every_word) if language in ("en", "") else ""))

    def facts(self) -> TextFacts:
        """Returns the facts of all rows added. The examiner forgets their signatures, which take most of the memory."""
        signers, self._signers = self._signers, []
        return TextFacts(
            hashes=np.frombuffer(self._hashes, np.uint64),
            signatures=_side_by_side([signer.signatures() for signer in signers]),
            words=np.frombuffer(self._words, np.int32),
            html=np.frombuffer(self._html, np.bool_),
            mojibake=np.frombuffer(self._mojibake, np.bool_) | self._lost.rows(),
            empty=np.frombuffer(self._empty, np.bool_),
            scripts=np.frombuffer(self._scripts, np.int16),
            languages=np.frombuffer(self._languages, np.int16),
            parts=np.frombuffer(self._parts, np.int16),
            names=list(self._names),
        )

    def _index(self, name: str) -> int:
        return self._names.setdefault(name, len(self._names))


def _side_by_side(columns: list[Signatures]) -> NDArray[np.uint16]:
    """Returns (N, S, P); a single column is not copied."""
    return columns[0][:, None] if len(columns) == 1 else np.stack(columns, axis=1)


def has_html(text: str) -> bool:
    """Returns whether a text holds an HTML tag or entity, such as `<br />` or `&amp;`."""
    return ("<" in text or "&" in text) and _HTML.search(text) is not None


def is_mojibake(text: str) -> bool:
    """Returns whether a text looks decoded with the wrong encoding, or has replaced characters (U+FFFD)."""
    from ftfy.badness import is_bad

    return not text.isascii() and ("\ufffd" in text or is_bad(text))


def is_empty(text: str) -> bool:
    """Returns whether a text has no letter, digit or symbol: only punctuation or invisible characters."""
    if _LETTER_OR_DIGIT.search(text):
        return False
    return not any(unicodedata.category(character)[0] in "LNS" for character in text)
