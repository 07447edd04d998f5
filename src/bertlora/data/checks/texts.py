"""What the checks need to know of each text, collected while the texts are streamed: about 280 bytes a row.

Letters: N rows, S texts in a row (2 for pairs of texts, else 1), P hashes of a text.
"""

import re
import unicodedata
from array import array
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from bertlora.data.checks.language import language_of, script_of
from bertlora.data.checks.near import Signatures, Signer, words_of
from bertlora.data.scan import text_hash

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
        mojibake: bool, whether it looks decoded with the wrong encoding.
        empty: bool, whether it holds no letter, digit or symbol.
        scripts: int16, index in `names` of the script; 0 if it is unknown.
        languages: int16, index in `names` of the language; 0 if it is unknown.
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
    names: list[str]

    def take(self, rows: NDArray[np.int64]) -> "TextFacts":
        """Returns the facts of these rows."""
        arrays = {field.name: getattr(self, field.name)[rows] for field in fields(self) if field.name != "names"}
        return TextFacts(**arrays, names=self.names)


class Examiner:
    """Collects facts: `add` each text in order, then call `facts`.

    Args:
        pairs: whether each row has a second text.
    """

    def __init__(self, pairs: bool) -> None:
        self._signers = [Signer() for _ in range(2 if pairs else 1)]
        self._hashes, self._words = array("Q"), array("i")
        self._html, self._mojibake, self._empty = array("b"), array("b"), array("b")
        self._scripts, self._languages = array("h"), array("h")
        self._names = {"": 0}

    def add(self, text: str, pair: str | None) -> None:
        """Adds the next row."""
        both = text if pair is None else f"{text}\n{pair}"
        self._hashes.append(text_hash(text, pair or ""))
        words = [words_of(part) for part in (text, pair) if part is not None]
        for signer, found, part in zip(self._signers, words, (text, pair), strict=False):
            signer.add(found or [(part or "").strip()])
        self._words.append(sum(map(len, words)))
        self._html.append(has_html(both))
        self._mojibake.append(is_mojibake(both))
        self._empty.append(is_empty(both))
        self._scripts.append(self._index(script_of(both)))
        self._languages.append(self._index(language_of(both)))

    def facts(self) -> TextFacts:
        """Returns the facts of all rows added."""
        return TextFacts(
            hashes=np.frombuffer(self._hashes, np.uint64),
            signatures=np.stack([signer.signatures() for signer in self._signers], axis=1),
            words=np.frombuffer(self._words, np.int32),
            html=np.frombuffer(self._html, np.bool_),
            mojibake=np.frombuffer(self._mojibake, np.bool_),
            empty=np.frombuffer(self._empty, np.bool_),
            scripts=np.frombuffer(self._scripts, np.int16),
            languages=np.frombuffer(self._languages, np.int16),
            names=list(self._names),
        )

    def _index(self, name: str) -> int:
        return self._names.setdefault(name, len(self._names))


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
