"""Writes a table in parts, in bounded memory: CSV, TSV, JSON lines or Parquet.

    with table_file(Path("answers.csv"), "csv") as write:
        for columns in parts:               # {"id": [1, 2], "predicted_label": ["good", "bad"]}
            write(columns)

The file is written whole or not at all. Every part has the same columns.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from bertlora.files import json_line, whole_file, whole_path

# The values of some rows by column.
Part = Mapping[str, Sequence[object]]
Write = Callable[[Part], None]
FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
DELIMITERS = {"csv": ",", "tsv": "\t"}
TEXT_FORMATS = tuple(DELIMITERS)
# A spreadsheet takes a cell with such a start for a formula (OWASP, "CSV injection").
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def format_of(path: Path) -> str:
    """Returns the format that a file's name asks for; empty if it names none."""
    return FORMATS.get(path.suffix.lower(), "")


def safe_cells(part: Part) -> dict[str, Sequence[object]]:
    """Returns columns with `'` before each text that a spreadsheet would take for a formula."""
    return {name: [_safe(value) for value in values] for name, values in part.items()}


def _safe(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


@contextmanager
def table_file(path: Path, format: str, types: Mapping[str, Any] | None = None) -> Iterator[Write]:
    """Yields a function that writes a part. The file takes its name when the block ends well.

    Args:
        path: the file.
        format: `csv`, `tsv`, `jsonl` or `parquet`.
        types: for Parquet, the types of the columns; see `column_types`.

    Raises:
        OutputError: it cannot be written; an older file stays.
    """
    if format == "parquet":
        with whole_path(path) as partial, _parquet(partial, types or {}) as write:
            yield write
    else:
        with whole_file(path) as file:
            yield text_rows(file, format)


def text_rows(file: TextIO, format: str) -> Write:
    """Returns a function that writes a part to an open file as `csv`, `tsv` or `jsonl`."""
    if format == "jsonl":
        return lambda part: file.writelines(f"{json_line(row)}\n" for row in _objects(part))
    rows = csv.writer(_Lines(file), delimiter=DELIMITERS[format], lineterminator=_Lines.END)
    begun = False

    def write(part: Part) -> None:
        nonlocal begun
        if not begun:
            rows.writerow(part)
        begun = True
        rows.writerows([_cell(value) for value in row] for row in zip(*part.values(), strict=True))

    return write


class _Lines:
    """What csv writes its rows to. With this line end it puts a text with a carriage return in quotes, too."""

    END = "\r\n"

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: str) -> None:
        """Writes a row with the line end of this package."""
        self._file.write(row.removesuffix(self.END) + "\n")


def column_types(parts: Iterable[Part]) -> dict[str, Any]:
    """Returns the Arrow type of each column of a whole table; text if its values are of types that do not agree."""
    import pyarrow as pa

    types: dict[str, Any] = {}
    for part in parts:
        for name, values in part.items():
            types[name] = _common_type(types.get(name, pa.null()), values)
    # A column without values still needs a type that other tools read.
    return {name: pa.string() if pa.types.is_null(kind) else kind for name, kind in types.items()}


def _common_type(kind: Any, values: Sequence[object]) -> Any:
    """Returns a type for values of type `kind` and these values."""
    import pyarrow as pa

    try:
        schemas = [pa.schema([("x", one)]) for one in (kind, pa.infer_type(values))]
        return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except (pa.ArrowException, OverflowError):
        return pa.string()


@contextmanager
def _parquet(path: Path, types: Mapping[str, Any]) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(list(types.items()))
    with pq.ParquetWriter(path, schema) as writer:
        yield lambda part: writer.write_table(
            pa.table([_array(part[name], kind) for name, kind in types.items()], schema=schema)
        )


def _array(values: Sequence[object], kind: Any) -> Any:
    """Returns values as an Arrow array; in a column of text, other values as text."""
    import pyarrow as pa

    if pa.types.is_string(kind):
        values = [None if value is None else _cell(value) for value in values]
    return pa.array(values, kind)


def _objects(part: Part) -> Iterator[dict[str, object]]:
    """Yields each row as an object of JSON's own types."""
    for row in zip(*part.values(), strict=True):
        yield {name: _json_value(value) for name, value in zip(part, row, strict=True)}


def _json_value(value: object) -> object:
    """Returns a value as JSON has it: dates and numbers of other kinds as text, no NaN."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    return [_json_value(item) for item in value] if isinstance(value, list | tuple) else str(value)


def _cell(value: object) -> str:
    """Returns a value as the text of a cell: nothing for None, JSON for lists and objects."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool | Mapping | list | tuple):
        return json.dumps(_json_value(value), ensure_ascii=False)
    return str(value)
