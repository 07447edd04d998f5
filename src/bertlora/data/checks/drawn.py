"""Rows drawn at random from each split, with the features of their texts: what the checks of a whole split look at.

The texts are streamed. Only their features are kept: about 2 kB for a review of 230 words.

Letters: S rows drawn from a split, F numbers of a row, V tokens that any row has.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertlora.data.checks.features import numbers_of, rating_of, tokens_of
from bertlora.data.checks.kept import KeptRows
from bertlora.data.folder import Prepared
from bertlora.data.source import SPLITS

ROWS_DRAWN = 3000


@dataclass(frozen=True)
class Drawn:
    """Rows drawn from one split.

    Attributes:
        split: the split.
        of: how many rows the split has.
        numbers: (S, F) float64, the numbers of each text; those of a second text after those of the first.
        ratings: (S,) float64 in 0..1, the rating that a text holds, such as 0.8 for `8/10`; NaN if it holds none.
        tokens: (S, V) sparse int8, 1 if the row has the token.
        names: the V tokens.
        labels: (S,) int32, index of the label.
        rows: (S,) int64, the row in its source, from 0.
        groups: (S,) int64, the same number for rows that are near each other; see `near_groups`.
    """

    split: str
    of: int
    numbers: NDArray[np.float64]
    ratings: NDArray[np.float64]
    tokens: Any
    names: Sequence[str]
    labels: NDArray[np.int32]
    rows: NDArray[np.int64]
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> "Drawn":
        """Returns these of the rows drawn."""
        arrays = {n: getattr(self, n)[rows] for n in ("numbers", "ratings", "tokens", "labels", "rows", "groups")}
        return replace(self, **arrays)


def draw_rows(data: Prepared, kept: KeptRows, most: int = ROWS_DRAWN) -> dict[str, Drawn]:
    """Returns rows of each split, by split.

    Args:
        data: the prepared data.
        kept: the same rows, in the same order.
        most: how many rows are drawn from each split.
    """
    draw = np.random.default_rng(data.seed)
    chosen = {split: np.sort(draw.permutation(rows)[:most]) for split, rows in data.rows.items()}
    places = np.concatenate(
        [np.flatnonzero(kept.splits == SPLITS.index(split))[rows] for split, rows in chosen.items()]
    )
    texts = (parts for split, rows in chosen.items() for parts in _texts(data, split, rows))
    every = drawn_of(texts, kept.labels[places], kept.rows[places], kept.groups[places])
    ends = np.cumsum([len(rows) for rows in chosen.values()])
    return {
        split: replace(every.take(np.arange(end - len(rows), end)), split=split, of=data.rows[split])
        for (split, rows), end in zip(chosen.items(), ends, strict=True)
    }


def drawn_of(
    texts: Iterable[Sequence[str]], labels: NDArray[np.int32], rows: NDArray[np.int64], groups: NDArray[np.int64]
) -> Drawn:
    """Returns rows with the features of their texts, as one split: so their columns are the same in all parts of it.

    Args:
        texts: the text, or the pair of texts, of each row.
        labels: (S,) index of the label.
        rows: (S,) the row in its source.
        groups: (S,) the same number for rows that are near each other.
    """
    from scipy.sparse import csr_array
    from sklearn.feature_extraction.text import CountVectorizer

    numbers: list[list[float]] = []
    ratings: list[float] = []

    def counted() -> Iterator[Sequence[str]]:
        for parts in texts:
            numbers.append([number for part in parts for number in numbers_of(part)])
            ratings.append(rating_of(parts[0]))
            yield parts

    vectorizer = CountVectorizer(analyzer=tokens_of, binary=True, dtype=np.int8)
    tokens = csr_array(vectorizer.fit_transform(counted()))
    return Drawn(
        split="train",
        of=len(rows),
        numbers=np.array(numbers, np.float64),
        ratings=np.array(ratings, np.float64),
        tokens=tokens,
        names=vectorizer.get_feature_names_out().tolist(),
        labels=labels,
        rows=rows,
        groups=groups,
    )


def _texts(data: Prepared, split: str, rows: NDArray[np.int64]) -> Iterator[Sequence[str]]:
    """Yields the text, or the pair of texts, of these rows of a split."""
    columns = ["text", "text_pair"] if data.has_pairs else ["text"]
    wanted = np.zeros(data.rows[split], np.bool_)
    wanted[rows] = True
    for is_wanted, *parts in zip(wanted, *(data.stream(split, column) for column in columns), strict=True):
        if is_wanted:
            yield parts
