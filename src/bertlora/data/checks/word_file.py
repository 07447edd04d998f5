"""The words of texts as hashes: kept in a temporary file, and read back in batches.

Letters: N texts, W words in all of them.
"""

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import NamedTuple, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

# So much is compared at once. A longer text is a batch of its own.
WORDS_AT_ONCE = 1 << 16
BYTES = 4  # for each word


class Words(NamedTuple):
    """The words of N texts.

    Attributes:
        counts: (N,) int64, the number of words of each text.
        text: (W,) int64, the text of each word.
        places: (W,) int64, the place of each word in its text, from 0.
        hashes: (W,) uint64, the same for equal words, in every run and on every machine.
    """

    counts: NDArray[np.int64]
    text: NDArray[np.int64]
    places: NDArray[np.int64]
    hashes: Hashes

    @classmethod
    def of(cls, counts: NDArray[np.int64], hashes: NDArray[np.uint32]) -> "Words":
        """Returns words by their number in each text, (N,), and their hashes, (W,)."""
        places = np.arange(len(hashes)) - np.repeat(np.cumsum(counts) - counts, counts)
        return cls(counts, np.repeat(np.arange(len(counts)), counts), places, mixed(hashes.astype(np.uint64)))

    def without(self, chosen: NDArray[np.bool_]) -> "Words":
        """Returns the words of the other texts, which keep their numbers."""
        left = ~chosen[self.text]
        return Words(np.where(chosen, 0, self.counts), self.text[left], self.places[left], self.hashes[left])


class WordFile:
    """The words of N texts in a temporary file, 4 bytes per word, so that texts can be compared without reading them.

    Args:
        folder: where the file is; the system's folder of temporary files if None. It is gone after `with`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115  # `with` closes it
        self._counts = array("i")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def add(self, words: Sequence[str]) -> None:
        """Adds the words of the next text."""
        self._file.write(np.fromiter(map(crc32, map(str.encode, words)), np.uint32, len(words)).tobytes())
        self._counts.append(len(words))

    def batches(self, chosen: NDArray[np.bool_]) -> Iterator[Words]:
        """Yields the words of the chosen texts, (N,), in batches of bounded size. Only these texts are counted."""
        counts = np.frombuffer(self._counts, np.int32).astype(np.int64)
        ends = np.cumsum(counts)
        start = 0
        while start < len(counts):
            begun = int(ends[start] - counts[start])
            end = max(start + 1, int(np.searchsorted(ends, begun + WORDS_AT_ONCE, side="right")))
            self._file.seek(BYTES * begun)
            hashes = np.frombuffer(self._file.read(BYTES * int(ends[end - 1] - begun)), np.uint32)
            some, wanted = counts[start:end], chosen[start:end]
            yield Words.of(some[wanted], hashes[np.repeat(wanted, some)])
            start = end


def mixed(values: Hashes) -> Hashes:
    """Returns numbers whose bits each depend on all bits of `values` (splitmix64: Steele, Lea and Flood 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
