"""Which rows are similar: equal, near, or one part of the other, and which must stay in one split for that.

- `near_groups` compares texts by their pairs of words, for any length and any number of copies.
- `OneChanged` finds texts of 5 to 20 words that differ in one word.
- `Samples` finds texts that contain others, and copies with some words replaced.

Letters: N rows, S texts in a row (2 for pairs of texts, else 1), D different rows, G groups of near rows, E pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bertlora.data.checks.near import connected
from bertlora.data.checks.overlaps import Numbers, Overlaps, Samples
from bertlora.data.checks.trigrams import OneChanged
from bertlora.data.checks.word_file import WordFile

# Texts of this many clusters may share a phrase that is a row of its own, and are put into one split. A phrase of more
# is a common one: through such phrases most texts would be connected.
CLUSTERS_OF_A_PHRASE = 3
# A shorter phrase in a text more than twice as long, such as "a lot of energy", may be there by chance. It connects the
# two, since that costs nothing, and is not reported.
WORDS_REPORTED = 5


@dataclass(frozen=True)
class Similar:
    """Which of N rows are similar.

    Attributes:
        groups: (N,) int64, the same number for rows that are equal or near, or connected by a chain of near rows.
        contained: (E, 2) int64, pairs of groups: a text of the first is part of a text of the second, and not only a
            short phrase of it.
        clusters: (N,) int64, the same number for rows that are connected by any of these, or by short phrases.
    """

    groups: Numbers
    contained: NDArray[np.int64]
    clusters: Numbers

    @classmethod
    def of(cls, hashes: NDArray[np.uint64], near: Numbers, columns: Sequence[WordFile]) -> "Similar":
        """Compares all rows.

        Args:
            hashes: (N,) equal for equal rows.
            near: (N,) the groups that `near_groups` found.
            columns: (S,) the words of each column of texts.
        """
        different = np.zeros(len(hashes), np.bool_)
        different[np.unique(hashes, return_index=True)[1]] = True
        rows = np.flatnonzero(different)
        found, changed = _compared(columns, different)
        pairs = rows[np.stack([found.parts, found.wholes], axis=1)]
        groups = connected(int(near.max()) + 1, near[np.concatenate([pairs[found.near], rows[changed]])])[near]
        # The longest parts first: the texts around a short phrase are then connected before the phrase comes.
        longest = np.lexsort((found.parts, -found.words[found.parts]))
        pairs = groups[pairs[longest]]
        connects, clusters = _clusters(pairs, int(groups.max()) + 1)
        reported = connects & _is_reported(found)[longest] & (pairs[:, 0] != pairs[:, 1])
        return cls(groups, pairs[reported], clusters[groups])


def _compared(columns: Sequence[WordFile], different: NDArray[np.bool_]) -> tuple[Overlaps, NDArray[np.int64]]:
    """Returns the overlaps of the different rows, and pairs of them that differ in one word, (pairs, 2).

    Of rows with two texts, both must overlap, and none is compared by one word.
    """
    changed = OneChanged()
    if len(columns) == 1:
        samples = Samples.of(changed.watched(columns[0].batches(different)))
        return samples.overlaps(columns[0].batches(different)), changed.pairs()
    first, second = (Samples.of(words.batches(different)).overlaps(words.batches(different)) for words in columns)
    return first.both(second), changed.pairs()


def _is_reported(found: Overlaps) -> NDArray[np.bool_]:
    """Returns (pairs,) whether the part has enough words, or is half of the whole."""
    part, whole = found.words[found.parts], found.words[found.wholes]
    return (part >= WORDS_REPORTED) | (2 * part >= whole)


def _clusters(pairs: NDArray[np.int64], groups: int) -> tuple[NDArray[np.bool_], Numbers]:
    """Connects groups by pairs of part and whole, where few clusters of texts share the part.

    Args:
        pairs: (pairs, 2) groups of part and whole; the longest parts first.
        groups: G, the number of groups.

    Returns:
        Whether each pair connects, (pairs,), and the cluster of each group, (G,).
    """
    parent = list(range(groups))

    def root(group: int) -> int:
        while parent[group] != group:
            parent[group] = group = parent[parent[group]]
        return group

    connects = np.zeros(len(pairs), np.bool_)
    starts = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1)).tolist()
    for start, end in pairwise([*starts, len(pairs)]):
        roots = {root(group) for group in pairs[start:end, 1].tolist()}
        if len(roots) <= CLUSTERS_OF_A_PHRASE:
            connects[start:end] = True
            for group in roots:
                parent[root(group)] = root(int(pairs[start, 0]))
    return connects, np.array([root(group) for group in range(groups)], np.int64)
