"""Letters that a wrong encoding replaced by a question mark: `don?t`, `na?ve`, `caf? au lait`."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# A single such word may be a slip of the author. So is `word?` with the sentence going on, if it is not repeated.
FEWEST_ROWS, FEWEST_STEMS = 2, 3
MOST_WORDS = 200_000

_LETTERS = r"[^\W\d_]+"
# A word with a question mark inside, or at its end with the sentence going on. No parts of an address: `a.com/?b=c`.
_BROKEN = re.compile(
    rf"(?<![^\s\"'(\[*>])({_LETTERS})\?(?![A-Z])({_LETTERS})(?![\w=&/?])|(?<![^\s\"'(\[*>])({_LETTERS})\?(?=\s[a-z])"
)
_QUICK_LOOK = re.compile(r"\?\s?[^\W\d_A-Z]")
_ENDINGS = {"t", "s", "re", "ve", "ll", "d", "m"}


class LostLetters:
    """Collects words broken by a question mark: `add` each text in order, then call `rows`.

    `why?because` lacks a space, and `na?ve` lacks a letter. The difference is that `why` and `because` are words of
    other texts, and `na` is not.
    """

    def __init__(self) -> None:
        self._texts = 0
        self._known: set[str] = set()
        self._broken: list[tuple[int, str, str]] = []

    def add(self, text: str, words: Sequence[str]) -> None:
        """Adds the next text, and its words in lower case."""
        if "?" in text:
            found = _BROKEN.findall(text) if _QUICK_LOOK.search(text) else ()
            self._broken += [
                (self._texts, (before or end).casefold(), after.casefold()) for before, after, end in found
            ]
        elif len(self._known) < MOST_WORDS:
            self._known.update(words)
        self._texts += 1

    def rows(self) -> NDArray[np.bool_]:
        """Returns (N,) whether letters are lost in each text; nowhere if it looks so in one text only."""
        lost = np.zeros(self._texts, np.bool_)
        stems = Counter(stem for row, stem in {(row, stem) for row, stem, after in self._broken if not after})
        for row, before, after in self._broken:
            if after:
                lost[row] |= after in _ENDINGS or not {before, after} <= self._known
            else:
                lost[row] |= stems[before] >= FEWEST_STEMS and before not in self._known
        return lost if lost.sum() >= FEWEST_ROWS else np.zeros_like(lost)
