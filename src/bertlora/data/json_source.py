"""Readers of JSON: an object on each line, or one list of objects. A column of an object in an object has a dot."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bertlora.data.source import Batch, Source, in_batches
from bertlora.data.text_file import OVERRIDE, TextFile, detected
from bertlora.errors import DataError

PEEK_ROWS, PEEK_BYTES = 100, 10_000
DEEPEST = 100  # objects and lists in each other; Python's parser takes about 900, and then nothing else can follow them
_EXAMPLE = '{"text": "...", "label": "..."}'


class JsonLinesSource:
    """A file with one JSON object on each line. Positions are line numbers, counted from 1.

    Raises:
        DataError: the file cannot be read, or one of its first lines is not a JSON object.
    """

    def __init__(self, file: TextFile) -> None:
        self.name = file.name
        self.class_names: dict[str, list[str]] = {}
        self.notes = [f"{detected(file)}; {OVERRIDE}"] if file.detected else []
        self._file = file
        self.columns = _columns(row for _, (_, row) in zip(range(PEEK_ROWS), self._rows(), strict=False))

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows in order, with None if a row lacks the column; see `Source.batches`."""
        return in_batches(((line, [_value(row, column) for column in columns]) for line, row in self._rows()), columns)

    def place(self, position: int) -> str:
        """Returns the file's name and the line."""
        return f"{self.name} line {position}"

    def all_columns(self) -> list[str]:
        """Returns the columns of all rows, from a whole pass; `columns` are those of the first 100."""
        return _columns(row for _, row in self._rows())

    @property
    def fraction_read(self) -> float | None:
        """How much of the file is read, 0..1, if that is known."""
        return self._file.fraction_read

    def _rows(self) -> Iterator[tuple[int, dict[str, object]]]:
        for number, line in self._file.readable_lines():
            if line.strip():
                try:
                    row = _json_object(line)
                except _NotJsonError as error:
                    self._file.fault(number, str(error), error)
                    continue
                yield number, row


class JsonListSource:
    """A JSON file that is one list of objects, read into memory as a whole. Positions are rows, counted from 0.

    Raises:
        DataError: the file cannot be read, or is not a list of objects.
    """

    def __init__(self, file: TextFile) -> None:
        self.name = file.name
        self.class_names: dict[str, list[str]] = {}
        self.notes = [f"{detected(file)}; {OVERRIDE}"] if file.detected else []
        try:
            self._rows: list[dict[str, object]] = _parsed(file.text())
        except _NotJsonError as error:
            raise DataError(f"{file.name}: {error}") from error
        for row, item in enumerate(self._rows):
            if not isinstance(item, dict):
                raise DataError(f"{self.place(row)}: got {_short(item)}, expected an object such as {_EXAMPLE}")
        self.columns = _columns(self._rows)

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows in order, with None if a row lacks the column; see `Source.batches`."""
        return in_batches(
            ((i, [_value(row, column) for column in columns]) for i, row in enumerate(self._rows)), columns
        )

    def place(self, position: int) -> str:
        """Returns the file's name and the row."""
        return f"{self.name} row {position}"


def every_column(source: Source) -> list[str]:
    """Returns the columns of a source, also those that only late rows have."""
    return source.all_columns() if isinstance(source, JsonLinesSource) else list(source.columns)


def is_json_list(file: TextFile) -> bool:
    """Returns whether a .json file holds one list, and not an object on each line."""
    return file.start(PEEK_BYTES).lstrip().startswith("[")


def _columns(rows: Iterable[Mapping[str, object]]) -> list[str]:
    """Returns the names of the columns of some rows: `label`, and `review.body` for an object in the row."""
    return list(dict.fromkeys(name for row in rows for name in _names(row)))


def _names(row: Mapping[str, object]) -> Iterator[str]:
    for key, value in row.items():
        if isinstance(value, dict) and value:
            yield from (f"{key}.{name}" for name in _names(value))
        else:
            yield key


def _value(row: Mapping[str, object], column: str) -> object:
    """Returns the value of a column, or None. A key may have a dot itself."""
    while column not in row:
        key, _, column = column.partition(".")
        inner = row.get(key)
        if not isinstance(inner, dict):
            return None
        row = inner
    return row[column]


class _NotJsonError(ValueError):
    """A text that is not JSON, or not an object."""


def _json_object(text: str) -> dict[str, object]:
    value = _parsed(text)
    if not isinstance(value, dict):
        raise _NotJsonError(f"got {_short(value)}, expected a JSON object such as {_EXAMPLE}")
    return value


def _parsed(text: str) -> Any:
    try:
        value = json.loads(text)
        if "\\u" in text:  # JSON can escape half of a surrogate pair, which is not text
            json.dumps(value, ensure_ascii=False).encode()
        if text.count("{") + text.count("[") > DEEPEST and _is_too_deep(value):
            raise ValueError(f"more than {DEEPEST} objects or lists in each other")
    except (ValueError, RecursionError) as error:
        raise _NotJsonError(f"not JSON ({error}), expected an object such as {_EXAMPLE}; correct the line") from error
    return value


def _is_too_deep(value: Any) -> bool:
    """Returns whether more than DEEPEST objects and lists are in each other."""
    level = [value]
    for _ in range(DEEPEST + 1):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [value for values in inner for value in values]
    return bool(level)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}..."
