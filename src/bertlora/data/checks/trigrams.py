"""Trigrams (three neighbouring words) of a batch of texts, and short texts that differ in one word.

Letters: N texts, W words in all of them, T trigrams.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from bertlora.data.checks.word_file import Hashes, Words, mixed

# A text of fewer words has no trigrams; it is compared as a whole.
TRIGRAM_WORDS = 3
# In texts of this many words (from, to), one word may differ.
ONE_CHANGED = (5, 20)
HALF = np.uint64(32)
LOW_HALF = np.uint64(0xFFFFFFFF)
_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)


def trigram_keys(words: Words) -> Hashes:
    """Returns the trigrams of each text, each once.

    Returns:
        (T,) uint64, ascending: the number of the text in the upper 32 bits, a hash of the trigram in the lower. A text
        of one or two words has one hash, of the whole text.
    """
    short = words.counts < TRIGRAM_WORDS
    brief, longer = words.without(~short), words.without(short)
    whole = (np.flatnonzero(short).astype(np.uint64) << HALF) | (_totals(brief, _terms(brief))[short] >> HALF)
    text, hashes = longer.text, longer.hashes
    inside = text[:-2] == text[2:]
    trigrams = mixed(hashes[:-2] * _ODD[0] + hashes[1:-1] * _ODD[1] + hashes[2:] * _ODD[2])[inside]
    keys = np.concatenate([whole, (text[2:][inside].astype(np.uint64) << HALF) | (trigrams >> HALF)])
    keys.sort()  # np.unique takes twice the time
    first: Hashes = keys[np.diff(keys, prepend=~keys[:1]) != 0]
    return first


class OneChanged:
    """Finds texts of 5 to 20 words that have the same number of words and differ in one of them.

    Equal hashes of two texts without the word in one place mean that the texts agree in all other places.
    """

    def __init__(self) -> None:
        self._hashes, self._texts = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        self._read = 0

    def watched(self, batches: Iterable[Words]) -> Iterator[Words]:
        """Yields the batches unchanged, and remembers what the comparison needs: 12 bytes a word of these texts."""
        for words in batches:
            chosen = words.without((words.counts < ONE_CHANGED[0]) | (words.counts > ONE_CHANGED[1]))
            terms = _terms(chosen)
            gaps = mixed(chosen.places.astype(np.uint64) * _ODD[1] + chosen.counts[chosen.text].astype(np.uint64))
            self._hashes.append(_totals(chosen, terms)[chosen.text] - terms + gaps)
            self._texts.append((chosen.text + self._read).astype(np.int32))
            self._read += len(words.counts)
            yield words

    def pairs(self) -> NDArray[np.int64]:
        """Returns pairs, (pairs, 2), of texts that differ in one word, as numbers in the order of the batches.

        Of many texts that differ in the same place, each is paired with the next one only.
        """
        hashes, texts = np.concatenate(self._hashes), np.concatenate(self._texts)
        order = np.argsort(hashes, kind="stable")
        same = np.flatnonzero(np.diff(hashes[order]) == 0)
        return np.stack([texts[order[same]], texts[order[same + 1]]], axis=1).astype(np.int64)


def _terms(words: Words) -> Hashes:
    """Returns (W,) a hash of each word and its place."""
    return mixed(words.hashes + words.places.astype(np.uint64) * _ODD[0])


def _totals(words: Words, terms: Hashes) -> Hashes:
    """Returns (N,) the sum of the terms of each text."""
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms)])
    ends = np.cumsum(words.counts)
    totals: Hashes = sums[ends] - sums[ends - words.counts]
    return totals
