"""The rows that are kept: what is known of their texts, their labels, and which of them belong together.

Letters: N rows kept, in the order of the sources; E pairs of groups.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bertlora.data.assignment import Assigned
from bertlora.data.checks.near import merged
from bertlora.data.checks.overlaps import Numbers
from bertlora.data.checks.similar import Similar
from bertlora.data.checks.texts import TextFacts
from bertlora.data.splits import LEFT_OUT, Ids, Splits


@dataclass(frozen=True)
class KeptRows:
    """The rows that are kept, as arrays of length N.

    Attributes:
        facts: what is known of their texts.
        groups: int64, the same number for texts that are equal or nearly equal; see `Similar`.
        contained: (E, 2) int64, pairs of groups: a text of the first is part of a text of the second.
        clusters: int64, the same number for rows that must stay in one split.
        named: int64, the same number for rows of one group of `--group-column`; None without it.
        labels: int32, index of the label.
        splits: int8, index in train, validation, test.
        home: int8, the split that the source gives the row; rows with the same one may be split again.
        sources: int8, number of the source.
        rows: int64, the row in its source, from 0.
    """

    facts: TextFacts
    groups: Numbers
    contained: NDArray[np.int64]
    clusters: Numbers
    named: Numbers | None
    labels: NDArray[np.int32]
    splits: NDArray[np.int8]
    home: NDArray[np.int8]
    sources: NDArray[np.int8]
    rows: Numbers

    @classmethod
    def of(cls, ids: Ids, assigned: Assigned, facts: TextFacts, similar: Similar) -> "KeptRows":
        """Returns the rows that have a split.

        Args:
            ids: by source, the label of each row.
            assigned: by source, the split of each row.
            facts: the facts of the rows that have a split.
            similar: which of these rows are similar.
        """
        kept = {name: np.flatnonzero(split != LEFT_OUT) for name, split in assigned.splits.items()}

        def of_all(arrays: Mapping[str, NDArray[np.generic]]) -> NDArray[np.generic]:
            return np.concatenate([arrays[name][rows] for name, rows in kept.items()])

        named = of_all(assigned.groups).astype(np.int64) if assigned.groups else None
        return cls(
            facts=facts,
            groups=similar.groups,
            contained=similar.contained,
            clusters=similar.clusters if named is None else merged(similar.clusters, named),
            named=named,
            labels=of_all(ids).astype(np.int32),
            splits=of_all(assigned.splits).astype(np.int8),
            home=of_all(assigned.home).astype(np.int8),
            sources=np.repeat(np.arange(len(kept), dtype=np.int8), [len(rows) for rows in kept.values()]),
            rows=np.concatenate(list(kept.values())),
        )

    def by_source(self, ids: Ids) -> Splits:
        """Returns the split of each row of each source, as `assign_splits` does; `ids` gives names and sizes."""
        splits = {name: np.full(len(found), LEFT_OUT, np.int8) for name, found in ids.items()}
        for number, split in enumerate(splits.values()):
            here = self.sources == number
            split[self.rows[here]] = self.splits[here]
        return splits

    def take(self, rows: Numbers, splits: NDArray[np.int8]) -> "KeptRows":
        """Returns these rows, in these splits."""
        names = ("groups", "clusters", "labels", "home", "sources", "rows")
        arrays = {name: getattr(self, name)[rows] for name in names}
        named = None if self.named is None else self.named[rows]
        return replace(self, **arrays, named=named, facts=self.facts.take(rows), splits=splits)

    def near(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Returns (N,) whether a row is equal or near to a chosen one."""
        return self._in_group(chosen)[self.groups]

    def overlapping(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Returns (N,) whether a row's text is part of a chosen one's text, or the reverse."""
        there = self._in_group(chosen)
        parts, wholes = self.contained[:, 0], self.contained[:, 1]
        found = np.zeros_like(there)
        found[parts[there[wholes]]] = True
        found[wholes[there[parts]]] = True
        return found[self.groups]

    def same_group(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Returns (N,) whether a row is of the same group of `--group-column` as a chosen one."""
        if self.named is None:
            return np.zeros(len(self.rows), np.bool_)
        return np.isin(self.named, self.named[chosen])

    def _in_group(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Returns (groups,) whether a group has a chosen row."""
        last = max(self.groups.max(initial=-1), self.contained.max(initial=-1))
        there = np.zeros(int(last) + 1, np.bool_)
        there[self.groups[chosen]] = True
        return there
