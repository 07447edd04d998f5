"""Texts that contain others: a phrase of a sentence, a quoted mail, half of a text, a copy with some words replaced.

    samples = Samples.of(words.batches(chosen))
    found = samples.overlaps(words.batches(chosen))
    found.parts[0], found.wholes[0]         # text 17 is part of text 3

A text is part of another if all of its trigrams (three neighbouring words) are in the other, or those of half of its
words: at least four trigrams if the two have about the same length, otherwise eight. Of each text at most 32 trigrams
are kept, a sample by the smallest hashes (Broder 1997, "On the resemblance and containment of documents"). The words
are read twice: first to sample them, then to look up the trigrams of each text among the samples. So time is linear in
the words, and no text stays in memory.

A trigram in the samples of more than 100 texts is common: texts are not compared because they share it. A text that is
part of more than 100 others is common too. So "one of the best", in many reviews, is not part of any.

Letters: N texts, S trigrams in all samples, T trigrams in a batch, C pairs compared.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bertlora.data.checks.trigrams import HALF, LOW_HALF, trigram_keys
from bertlora.data.checks.word_file import Hashes, Words

SAMPLE = 32
COMMON = 100
# How many trigrams must be shared: by texts of about the same length, and by others, where it may be a stock phrase.
ENOUGH = (4, 8)
AT_ONCE = 1 << 20
# Two texts have about the same length if the shorter one has nine tenths of the words of the longer one.
SAME_LENGTH = 0.9

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Overlaps:
    """Pairs of texts, where one is part of the other.

    Attributes:
        parts, wholes: (pairs,) int64, the number of the shorter and of the longer text, in the order of the batches.
        words: (N,) int64, number of words of each text.
    """

    parts: Numbers
    wholes: Numbers
    words: Numbers

    @property
    def near(self) -> NDArray[np.bool_]:
        """(pairs,) whether the two texts have about the same length, so that one is a copy of the other."""
        return _same_length(self.words[self.parts], self.words[self.wholes])

    def both(self, other: "Overlaps") -> "Overlaps":
        """Returns the pairs that `other`, which compared the second texts of the same rows, has too."""
        rows = len(self.words)
        ours, theirs = (np.minimum(o.parts, o.wholes) * rows + np.maximum(o.parts, o.wholes) for o in (self, other))
        shared = np.isin(ours, theirs)
        return Overlaps(self.parts[shared], self.wholes[shared], self.words)


@dataclass(frozen=True)
class Samples:
    """The sampled trigrams of N texts.

    Attributes:
        words: (N,) int64, number of words of each text.
        counts: (N,) int64, number of sampled trigrams of each text, 32 at most.
        trigrams: (S,) uint32, those of the first text, then those of the second...
        index: (S,) uint64, ascending: the upper 32 bits are a trigram, the lower its text.
        rare: (N,) int64, number of sampled trigrams that are not common.
    """

    words: Numbers
    counts: Numbers
    trigrams: NDArray[np.uint32]
    index: Hashes
    rare: Numbers

    @classmethod
    def of(cls, batches: Iterable[Words]) -> "Samples":
        """Returns the samples of all texts. No text should come twice."""
        words, counts, first = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
        trigrams, entries = bytearray(), bytearray()  # they grow in place, so that nothing large is copied
        for batch in batches:
            sample = _sampled(trigram_keys(batch))
            text, trigram = (sample >> HALF).astype(np.int64), sample & LOW_HALF
            words.append(batch.counts)
            counts.append(np.bincount(text, minlength=len(batch.counts)))
            trigrams += trigram.astype(np.uint32).tobytes()
            entries += ((trigram << HALF) | (text + first).astype(np.uint64)).tobytes()
            first += len(batch.counts)
        index = np.frombuffer(entries, np.uint64)
        index.sort()
        count = np.concatenate(counts)
        common = np.bincount(_texts_of_common(index), minlength=len(count))
        return cls(np.concatenate(words), count, np.frombuffer(trigrams, np.uint32), index, count - common)

    def overlaps(self, batches: Iterable[Words]) -> Overlaps:
        """Returns the pairs of texts where one is part of the other; `batches` are the same as for `of`."""
        parts, wholes, first = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
        found = np.zeros(len(self.words), np.int32)
        for words in batches:
            part, whole = self._parts_of(trigram_keys(words), first)
            np.add.at(found, part, 1)
            parts.append(part[found[part] <= COMMON])
            wholes.append(whole[found[part] <= COMMON])
            first += len(words.counts)
        part, whole = np.concatenate(parts), np.concatenate(wholes)
        rare = found[part] <= COMMON
        return Overlaps(part[rare], whole[rare], self.words)

    def _parts_of(self, keys: Hashes, first: int) -> tuple[Numbers, Numbers]:
        """Returns the texts that are part of a text of the batch, (pairs,), and those texts of the batch, (pairs,).

        Args:
            keys: (T,) the trigrams of the batch; see `trigram_keys`.
            first: the number of the first text of the batch.
        """
        whole, part = self._candidates(keys, first)
        counts = self.counts[part]
        pair = np.repeat(np.arange(len(part)), counts)
        trigrams = self.trigrams[_ranges((np.cumsum(self.counts) - self.counts)[part], counts)]
        wanted = ((whole - first).astype(np.uint64)[pair] << HALF) | trigrams
        there = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted
        shared = np.bincount(pair[there], minlength=len(part))
        enough = np.where(_same_length(self.words[part], self.words[whole]), *ENOUGH)
        found = (shared == counts) | (_is_half(shared, counts) & (shared >= enough))
        return part[found], whole[found]

    def _candidates(self, keys: Hashes, first: int) -> tuple[Numbers, Numbers]:
        """Returns pairs (C,), (C,): a text of the batch, and one, not longer, with half of its rare trigrams in it."""
        trigrams = (keys & LOW_HALF) << HALF
        low = np.searchsorted(self.index, trigrams)
        sizes = np.searchsorted(self.index, trigrams | LOW_HALF, side="right") - low
        sizes[sizes > COMMON] = 0
        part = (self.index[_ranges(low, sizes)] & LOW_HALF).astype(np.int64)
        whole = np.repeat((keys >> HALF).astype(np.int64) + first, sizes)
        fits = (self.words[part] <= self.words[whole]) & (part != whole)
        pairs, shared = np.unique(whole[fits] * len(self.words) + part[fits], return_counts=True)
        whole, part = np.divmod(pairs, len(self.words))
        enough = _is_half(shared, self.rare[part])
        return whole[enough], part[enough]


def _same_length(shorter: Numbers, longer: Numbers) -> NDArray[np.bool_]:
    return shorter >= SAME_LENGTH * longer


def _is_half(shared: Numbers, trigrams: Numbers) -> NDArray[np.bool_]:
    """Returns whether texts that share trigrams share half of their words; a run of n words has n - 2 trigrams."""
    return 2 * (shared + 2) >= trigrams + 2


def _sampled(keys: Hashes) -> Hashes:
    """Returns the keys of the 32 smallest trigrams of each text."""
    text = keys >> HALF
    starts = np.flatnonzero(np.diff(text, prepend=~text[:1]))
    rank = np.arange(len(keys)) - np.repeat(starts, np.diff(starts, append=len(keys)))
    return keys[rank < SAMPLE]


def _texts_of_common(index: Hashes) -> Numbers:
    """Returns the texts of an index whose trigrams are common; a text with several of them comes several times."""
    found = [np.zeros(0, np.uint64)]
    for start in range(0, len(index) - COMMON, AT_ONCE):
        some = index[start : start + AT_ONCE + COMMON]
        found.append(np.unique(some[:-COMMON][(some[:-COMMON] ^ some[COMMON:]) >> HALF == 0] >> HALF) << HALF)
    trigrams = np.unique(np.concatenate(found))
    low = np.searchsorted(index, trigrams)
    high = np.searchsorted(index, trigrams | LOW_HALF, side="right")
    return (index[_ranges(low, high - low)] & LOW_HALF).astype(np.int64)


def _ranges(starts: Numbers, sizes: Numbers) -> Numbers:
    """Returns `starts[0], starts[0] + 1, ...` (`sizes[0]` numbers), then those from each other start."""
    return np.repeat(starts - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))
