"""Readers of JSON, Parquet, plain text, and folders of text files. Each class is a Source."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bertlora.data.source import (
    BATCH_ROWS,
    Batch,
    check_file,
    class_name,
    in_batches,
    unreadable,
    utf8_lines,
    utf8_text,
)
from bertlora.errors import DataError

PEEK_ROWS = 100
LEFT_OUT_CLASSES = {"unsup"}  # aclImdb's reviews without a label


class JsonLinesSource:
    """A file with one JSON object on each line. Positions are line numbers, counted from 1.

    Raises:
        DataError: the file is missing, empty, not UTF-8, or one of its first lines is not a JSON object.
    """

    def __init__(self, path: Path, name: str) -> None:
        check_file(path)
        self.path = path
        self.name = name
        self.class_names: dict[str, list[str]] = {}
        self.notes: list[str] = []
        first_rows = (row for _, (_, row) in zip(range(PEEK_ROWS), self._rows(), strict=False))
        self.columns = list(dict.fromkeys(key for row in first_rows for key in row))

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows in order, with None if a row lacks the column; see `Source.batches`."""
        return in_batches(((line, [row.get(column) for column in columns]) for line, row in self._rows()), columns)

    def place(self, position: int) -> str:
        """Returns the file's name and the line."""
        return f"{self.name} line {position}"

    def _rows(self) -> Iterator[tuple[int, dict[str, object]]]:
        for number, line in enumerate(utf8_lines(self.path, self.name), 1):
            if line.strip():
                yield number, _json_object(line, f"{self.name} line {number}")


class JsonListSource:
    """A JSON file that is one list of objects, read into memory as a whole. Positions are rows, counted from 0.

    Raises:
        DataError: the file is missing, empty, not UTF-8, or not a list of objects.
    """

    def __init__(self, path: Path, name: str) -> None:
        check_file(path)
        self.path = path
        self.name = name
        self.class_names: dict[str, list[str]] = {}
        self.notes: list[str] = []
        self._rows: list[dict[str, object]] = _parsed(utf8_text(path, name), name)
        for row, item in enumerate(self._rows):
            if not isinstance(item, dict):
                raise DataError(f"{self.place(row)}: got {_short(item)}, expected an object such as {_EXAMPLE}")
        self.columns = list(dict.fromkeys(key for row in self._rows[:PEEK_ROWS] for key in row))

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows in order, with None if a row lacks the column; see `Source.batches`."""
        return in_batches(((i, [row.get(column) for column in columns]) for i, row in enumerate(self._rows)), columns)

    def place(self, position: int) -> str:
        """Returns the file's name and the row."""
        return f"{self.name} row {position}"


class ParquetSource:
    """A Parquet file. Positions are rows, counted from 0.

    If `datasets` stored names of classes in the file's metadata (`ClassLabel`), they are used.

    Raises:
        DataError: the file is missing, empty or broken.
    """

    def __init__(self, path: Path, name: str) -> None:
        check_file(path)
        self.path = path
        self.name = name
        self.notes: list[str] = []
        with self._open() as file:
            self.columns: list[str] = list(file.schema_arrow.names)
            self.class_names = _class_names(file.schema_arrow.metadata or {}, self.columns)

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows in order; see `Source.batches`."""
        import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

        row = 0
        with self._open() as file:
            try:
                for part in file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns)):
                    values = part.to_pydict()
                    for column in self.class_names.keys() & values.keys():
                        values[column] = [class_name(value, self.class_names[column]) for value in values[column]]
                    yield Batch(values, list(range(row, row + part.num_rows)))
                    row += part.num_rows
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise self._broken(error, f"{self.name} after row {row}") from error

    def place(self, position: int) -> str:
        """Returns the file's name and the row."""
        return f"{self.name} row {position}"

    def _open(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

        try:
            # Without these settings a whole row group would be read at once.
            return pq.ParquetFile(self.path, pre_buffer=False, buffer_size=1 << 20)
        except (pa.ArrowException, OSError) as error:
            raise self._broken(error, self.name) from error

    def _broken(self, error: Exception, place: str) -> DataError:
        if isinstance(error, PermissionError):
            return unreadable(self.path, error)
        reason = str(error).split(". ")[0].splitlines()[0]
        return DataError(f"{place}: not a complete Parquet file ({reason}); fetch or write it again")


class FolderSource:
    """A folder with a folder of .txt files for each class, such as `pos/` and `neg/`. Positions are rows, from 0.

    Raises:
        DataError: there are fewer than two such classes.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.columns = ["text", "label"]
        self.class_names: dict[str, list[str]] = {}
        self.notes: list[str] = []
        self.classes = class_folders(path)
        if len(self.classes) < 2:
            found = f"only '{self.classes[0]}'" if self.classes else "none"
            raise DataError(f"{path}: {found} of the folders in it holds .txt files, expected a folder for each class")
        self._files = [(label, file) for label in self.classes for file in sorted(_text_files(path / label))]

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows in order: class by class, then by file name; see `Source.batches`."""
        return in_batches(((row, [self._value(row, column) for column in columns]) for row in self._range()), columns)

    def place(self, position: int) -> str:
        """Returns the text file's path within the folder."""
        label, file = self._files[position]
        return f"{self.name}/{label}/{file}"

    def _range(self) -> range:
        return range(len(self._files))

    def _value(self, row: int, column: str) -> str:
        label, file = self._files[row]
        return label if column == "label" else utf8_text(self.path / label / file, self.place(row))


class PlainTextSource:
    """A file with one text on each line, in a column `text`. Positions are line numbers, counted from 1."""

    def __init__(self, path: Path, name: str) -> None:
        check_file(path)
        self.path = path
        self.name = name
        self.columns = ["text"]
        self.class_names: dict[str, list[str]] = {}
        self.notes: list[str] = []

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all lines in order, without line ends; see `Source.batches`."""
        lines = enumerate(utf8_lines(self.path, self.name), 1)
        return in_batches(((number, [line.rstrip("\r\n")]) for number, line in lines), columns)

    def place(self, position: int) -> str:
        """Returns the file's name and the line."""
        return f"{self.name} line {position}"


def class_folders(path: Path) -> list[str]:
    """Returns the names, in order, of the folders in `path` that hold .txt files, except `unsup`."""
    names = [child.name for child in path.iterdir() if child.is_dir() and child.name not in LEFT_OUT_CLASSES]
    return sorted(name for name in names if any(True for _ in _text_files(path / name)))


def is_json_list(path: Path) -> bool:
    """Returns whether a .json file holds one list, and not an object on each line."""
    check_file(path)
    first = next((line.lstrip() for line in utf8_lines(path, path.name) if line.strip()), "")
    return first.startswith("[")


_EXAMPLE = '{"text": "...", "label": "..."}'


def _text_files(folder: Path) -> Iterator[str]:
    return (file.name for file in folder.iterdir() if file.suffix == ".txt" and not file.name.startswith("."))


def _json_object(text: str, place: str) -> dict[str, object]:
    value = _parsed(text, place)
    if not isinstance(value, dict):
        raise DataError(f"{place}: got {_short(value)}, expected a JSON object such as {_EXAMPLE}")
    return value


def _parsed(text: str, place: str) -> Any:
    try:
        value = json.loads(text)
        if "\\u" in text:  # JSON can escape half of a surrogate pair, which is not text
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{place}: not JSON ({error}), expected an object such as {_EXAMPLE}; correct the line"
        ) from error
    return value


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _class_names(metadata: dict[bytes, bytes], columns: Sequence[str]) -> dict[str, list[str]]:
    """Returns the class names that `datasets` keeps in a Parquet schema: {"info": {"features": {column: ...}}}."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {c: list(features[c]["names"]) for c in columns if features[c].get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}  # no such metadata, or in another form: the numbers are the labels
