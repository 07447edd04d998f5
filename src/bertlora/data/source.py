"""Source: what every reader returns. It streams columns in batches, and says where a row is in the file.

source = open_sources(["reviews.csv"])[""]
source.columns                                  # ["review", "sentiment"]
for columns, positions in source.batches(["review"]):
    columns["review"]                           # list of values, one for each row
    source.place(positions[0])                  # "reviews.csv line 2"
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

SPLITS = ("train", "validation", "test")
BATCH_ROWS = 1024
BATCH_CHARACTERS = 8_000_000


class Batch(NamedTuple):
    """Some rows: the values of each column, and the position of each row for `Source.place`."""

    columns: dict[str, list[object]]
    positions: list[int]


class Source(Protocol):
    """A table of texts on disk or from the hub. It is read in batches of bounded size, and can be read again.

    Attributes:
        name: its name in messages.
        columns: names of its columns.
        class_names: for a column of class numbers, the names that the source gives them, in order; `batches` yields
            the names, not the numbers.
        notes: what the user should know, such as rows left out; complete after a whole pass.
    """

    name: str
    columns: list[str]
    class_names: dict[str, list[str]]
    notes: list[str]

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows in order, with only these columns.

        Raises:
            DataError: the data are broken; the message names the place.
        """
        ...

    def place(self, position: int) -> str:
        """Returns where a row is: `reviews.csv line 17` (from 1, as editors count) or `x.parquet row 4` (from 0)."""
        ...


def in_batches(rows: Iterable[tuple[int, Sequence[object]]], columns: Sequence[str]) -> Iterator[Batch]:
    """Yields (position, values) pairs as batches, bounded in rows and in characters."""
    batch, characters = Batch({column: [] for column in columns}, []), 0
    for position, values in rows:
        for column, value in zip(columns, values, strict=True):
            batch.columns[column].append(value)
            characters += len(value) if isinstance(value, str) else 1
        batch.positions.append(position)
        if len(batch.positions) == BATCH_ROWS or characters > BATCH_CHARACTERS:
            yield batch
            batch, characters = Batch({column: [] for column in columns}, []), 0
    if batch.positions:
        yield batch


def repeated(columns: Sequence[str]) -> str:
    """Returns the first name that a header has twice; empty if there is none. A column may have no name."""
    return next((name for name, count in Counter(columns).items() if name and count > 1), "")


def class_name(value: object, names: Sequence[str]) -> object:
    """Returns the name of a class number; other values (None, GLUE's -1 for "no label") stay as they are.

    Of a list, each item is named.
    """
    if isinstance(value, list):
        return [class_name(one, names) for one in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value
