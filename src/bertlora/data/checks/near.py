"""Near duplicates: texts that share most of their word pairs, found by MinHash in time linear in the rows.

A text is taken as the set of its pairs of neighbouring words. Two texts are near if these sets overlap by 0.8
(Jaccard): a review and its copy with a few words changed, for example. In a text of fewer than ten words, one changed
word is too much: such texts are near only if they differ in nothing but case and punctuation.

Letters: N rows, S texts in a row (2 for pairs of texts, else 1), P hashes of a text, G different rows.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Signatures = NDArray[np.uint16]

SIMILARITY = 0.8
HASHES = 126
BAND = 6
# In a bucket of very many texts, each is compared with this many neighbours, so that the work stays linear.
NEIGHBOURS = 8
PAIRS_AT_ONCE = 1 << 16
# The library allocates a table of hashes times shingles.
SHINGLES_AT_ONCE = 4096


def shingles(words: Sequence[str]) -> list[str]:
    """Returns the pairs of neighbouring words; the text's start and end count as words."""
    edged = ["", *words, ""]
    return [f"{one} {other}" for one, other in pairwise(edged)]


class Signer:
    """Collects the MinHash signatures of texts: 126 hashes of 16 bits for each text.

    The probability that two signatures agree in a place is the overlap of the texts (Broder 1997, "On the resemblance
    and containment of documents"). 16 bits of each hash are enough (Li and König 2010, "b-Bit Minwise Hashing").
    """

    def __init__(self) -> None:
        from datasketch import MinHash

        # The library mixes the bits of crc32: the estimates are as good as with its own SHA-1, in half the time.
        self._empty: Any = MinHash(HASHES, seed=1, hashfunc=crc32, scheme="affine32")
        self._signatures = bytearray()

    def add(self, words: Sequence[str]) -> None:
        """Adds the words of the next text."""
        found = self._empty.copy()
        parts = [shingle.encode() for shingle in shingles(words)]
        for start in range(0, len(parts), SHINGLES_AT_ONCE):
            found.update_batch(parts[start : start + SHINGLES_AT_ONCE])
        self._signatures += found.hashvalues.astype(np.uint16).tobytes()

    def signatures(self) -> Signatures:
        """Returns (N, P) uint16, the signatures of all texts added."""
        return np.frombuffer(self._signatures, np.uint16).reshape(-1, HASHES)


def near_groups(hashes: NDArray[np.uint64], signatures: Signatures) -> NDArray[np.int64]:
    """Returns (N,) the number of each row's group: rows that are equal, near, or connected by a chain of near rows.

    Two rows are compared if they agree in a whole band of their signatures (locality-sensitive hashing). They are near
    if the signatures of their texts agree in 0.8 of the places, which estimates the overlap to about 0.04. Bands of 6
    miss one in 500 of the pairs with an overlap of 0.8.

    Args:
        hashes: (N,) equal for equal rows.
        signatures: (N, S, P), from `Signer`.
    """
    _, first, text = np.unique(hashes, return_index=True, return_inverse=True)  # (G,), (N,)
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *_near_pairs(signatures, first)])
    return connected(len(first), pairs)[text]


def connected(size: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns (size,) the number of each item's group: items that a chain of pairs connects.

    Args:
        size: how many items there are.
        pairs: (pairs, 2) items that belong together.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def merged(groups: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns (N,) the number of each row's group, for rows that are in one group of the first or of the second kind.

    Args:
        groups, others: (N,) numbers of the groups of each kind, any whole numbers.
    """
    one, other = (np.unique(numbers, return_inverse=True)[1] for numbers in (groups, others))
    pairs = np.stack([one, other + int(one.max(initial=-1)) + 1], axis=1)
    return connected(int(pairs.max(initial=-1)) + 1, pairs)[one]


def _near_pairs(signatures: Signatures, first: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yields pairs of near rows, (pairs, 2), as indices in `first`."""
    _, texts, places = signatures.shape
    width = BAND // texts
    mixers = np.random.default_rng(0).integers(1, 1 << 63, (texts, width), dtype=np.uint64) | np.uint64(1)
    for start in range(0, places, width):
        # Equal bands have equal keys. Other bands with the same key are sorted out below.
        keys = (signatures[first, :, start : start + width] * mixers).sum(axis=(1, 2))
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        for step in range(1, NEIGHBOURS + 1):
            same = np.flatnonzero(keys[step:] == keys[:-step])
            if not len(same):
                break
            for found in np.split(same, range(PAIRS_AT_ONCE, len(same), PAIRS_AT_ONCE)):
                ones, others = order[found], order[found + step]
                agree = (signatures[first[ones]] == signatures[first[others]]).mean(axis=2)  # (pairs, S)
                near = (agree >= SIMILARITY).all(axis=1)
                yield np.stack([ones[near], others[near]], axis=1)
