"""Tables in memory as sources: pandas.DataFrame, pyarrow.Table, datasets.Dataset; and a table for each split."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bertlora.data.source import BATCH_ROWS, Batch, Source
from bertlora.errors import InputError

KINDS = {"pandas": "DataFrame", "pyarrow": "Table", "datasets": "Dataset"}
EXPECTED = "a path, hub:NAME, a pandas DataFrame, a pyarrow Table, a datasets Dataset, or a mapping of splits to these"


class FrameSource:
    """A pandas.DataFrame. Positions are rows, counted from 0; its index is not read.

    Args:
        frame: the table.
        name: its name in messages.
    """

    def __init__(self, frame: Any, name: str) -> None:
        self.name = name
        self.columns = [str(column) for column in frame.columns]
        self.class_names: dict[str, list[str]] = {}
        self.notes: list[str] = []
        self._frame = frame

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows in order, with None for a missing value; see `Source.batches`."""
        wanted = [self.columns.index(column) for column in columns]
        for start in range(0, len(self._frame), BATCH_ROWS):
            part = self._frame.iloc[start : start + BATCH_ROWS, wanted]
            values = {name: _plain(part.iloc[:, i]) for i, name in enumerate(columns)}
            yield Batch(values, list(range(start, start + len(part))))

    def place(self, position: int) -> str:
        """Returns the table's name and the row."""
        return f"{self.name} row {position}"


class ArrowSource:
    """A pyarrow.Table. Positions are rows, counted from 0; see `FrameSource`."""

    def __init__(self, table: Any, name: str) -> None:
        self.name = name
        self.columns: list[str] = list(table.column_names)
        self.class_names: dict[str, list[str]] = {}
        self.notes: list[str] = []
        self._table = table

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows in order; see `Source.batches`."""
        table = self._table.select(list(columns))
        for start in range(0, len(table), BATCH_ROWS):
            part = table.slice(start, BATCH_ROWS)
            yield Batch(part.to_pydict(), list(range(start, start + len(part))))

    def place(self, position: int) -> str:
        """Returns the table's name and the row."""
        return f"{self.name} row {position}"


class TableSpec(str):
    """A table in memory. It is a string, its name in messages, so that it can be wherever a spec such as a path is.

    Attributes:
        source: the table.
        part: the split that it is; empty for one table.
    """

    source: Source
    part: str

    def __new__(cls, table: object, split: str = "") -> "TableSpec":
        """Makes the spec of a table."""
        name = f"{split} {type(table).__name__}".strip()
        spec = super().__new__(cls, name)
        spec.source, spec.part = _source_of(table, name), split
        return spec


def is_table(value: object) -> bool:
    """Returns whether a value is a table of one of these libraries. It imports none of them."""
    return _library(value) != ""


def table_specs(value: object) -> list[TableSpec]:
    """Returns the specs of a table, or of a mapping such as `{"train": frame}` or a datasets.DatasetDict.

    Raises:
        InputError: it is neither.
    """
    tables = value if isinstance(value, Mapping) else {"": value}
    for split, table in tables.items():
        if not is_table(table):
            where = f"the {split} split is" if split else "the source is"
            raise InputError(f"{where} of type {type(table).__name__}, expected {EXPECTED}")
    return [TableSpec(table, str(split)) for split, table in tables.items()]


def _library(value: object) -> str:
    """Returns the library of a table; empty if it is something else."""
    kinds = ((kind.__module__.partition(".")[0], kind.__name__) for kind in type(value).__mro__)
    return next((library for library, kind in kinds if KINDS.get(library) == kind), "")


def _source_of(table: Any, name: str) -> Source:
    if _library(table) == "datasets":
        from bertlora.data.hub import HubSource

        return HubSource(table.with_format(None), name)
    return FrameSource(table, name) if _library(table) == "pandas" else ArrowSource(table, name)


def _plain(column: Any) -> list[object]:
    """Returns the values of a pandas.Series as Python's own, with None for NA, NaN and NaT."""
    values = column.astype(object).where(column.notna(), None).tolist()
    return [value.item() if isinstance(value, np.generic) else value for value in values]
