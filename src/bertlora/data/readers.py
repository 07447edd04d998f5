"""Readers of Parquet, plain text, and folders of text files. Each class is a Source."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bertlora.data.parquet_file import open_parquet, parquet_batches, parquet_faults
from bertlora.data.parquet_pages import PagesError
from bertlora.data.source import BATCH_ROWS, Batch, class_name, in_batches
from bertlora.data.text_file import OVERRIDE, TextFile, check_file, detected, unreadable
from bertlora.errors import DataError, first_line

LEFT_OUT_CLASSES = {"unsup"}  # aclImdb's reviews without a label


class ParquetSource:
    """A Parquet file. Positions are rows, counted from 0.

    If `datasets` stored names of classes in the file's metadata (`ClassLabel`), they are used.

    Attributes:
        fraction_read: how much of the rows is read, 0..1; None before the first.

    Raises:
        DataError: the file is missing, empty or broken.
    """

    def __init__(self, path: Path, name: str) -> None:
        check_file(path)
        self.path = path
        self.name = name
        self.notes: list[str] = []
        self.fraction_read: float | None = None
        with self._open() as file:
            self.columns: list[str] = list(file.schema_arrow.names)
            self.class_names = _class_names(file.schema_arrow.metadata or {}, self.columns)

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows in order; see `Source.batches`."""
        row = 0
        with self._open() as file, parquet_faults(lambda error: self._broken(error, f"{self.name} after row {row}")):
            total = max(1, file.metadata.num_rows)
            for part in parquet_batches(file, self.path, columns, BATCH_ROWS):
                values = part.to_pydict()
                for column in self.class_names.keys() & values.keys():
                    values[column] = [class_name(value, self.class_names[column]) for value in values[column]]
                self.fraction_read = min(1.0, (row + part.num_rows) / total)
                yield Batch(values, list(range(row, row + part.num_rows)))
                row += part.num_rows

    def place(self, position: int) -> str:
        """Returns the file's name and the row."""
        return f"{self.name} row {position}"

    def _open(self) -> Any:
        with parquet_faults(lambda error: self._broken(error, self.name)):
            # Without these settings a whole row group would be read at once.
            file = open_parquet(self.path, pre_buffer=False, buffer_size=1 << 20)
            _ = file.schema_arrow.names  # names may not be UTF-8
            return file

    def _broken(self, error: Exception, place: str) -> DataError:
        if isinstance(error, PermissionError):
            return unreadable(self.path, error)
        if isinstance(error, PagesError):
            return DataError(f"{place}: has {error}; write it again with smaller pages")
        reason = first_line(error).split(". ")[0]
        return DataError(f"{place}: not a complete Parquet file ({reason}); fetch or write it again")


class FolderSource:
    """A folder with a folder of .txt files for each class, such as `pos/` and `neg/`. Positions are rows, from 0.

    Raises:
        DataError: there are fewer than two such classes.
    """

    def __init__(self, path: Path, name: str, encoding: str | None = None) -> None:
        self.path = path
        self.name = name
        self.columns = ["text", "label"]
        self.class_names: dict[str, list[str]] = {}
        self.notes: list[str] = []
        self._encoding = encoding
        self._detected: dict[str, str] = {}  # by file that is not UTF-8
        self.classes = class_folders(path)
        if len(self.classes) < 2:
            found = f"only '{self.classes[0]}'" if self.classes else "none"
            raise DataError(f"{path}: {found} of the folders in it holds .txt files, expected a folder for each class")
        self._files = [(label, file) for label in self.classes for file in sorted(_text_files(path / label))]

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows in order: class by class, then by file name; see `Source.batches`."""
        yield from in_batches(((row, [self._value(row, name) for name in columns]) for row in self._range()), columns)
        if found := sorted(set(self._detected.values())):
            note = f"{self.name}: {len(self._detected):,} files are not UTF-8 and were read as {', '.join(found)}"
            self.notes = [*(one for one in self.notes if one != note), note]

    def place(self, position: int) -> str:
        """Returns the text file's path within the folder."""
        label, file = self._files[position]
        return f"{self.name}/{label}/{file}"

    def _range(self) -> range:
        return range(len(self._files))

    def _value(self, row: int, column: str) -> str:
        label, name = self._files[row]
        path = self.path / label / name
        if column == "label" or not path.stat().st_size:
            return label if column == "label" else ""
        file = TextFile(path, self.place(row), self._encoding)
        if file.detected:
            self._detected[file.name] = file.encoding
        return file.text()


class PlainTextSource:
    """A file with one text on each line, in a column `text`. Positions are line numbers, counted from 1."""

    def __init__(self, file: TextFile) -> None:
        self.name = file.name
        self._file = file
        self.columns = ["text"]
        self.class_names: dict[str, list[str]] = {}
        self.notes = [f"{detected(file)}; {OVERRIDE}"] if file.detected else []

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all lines in order, without line ends; see `Source.batches`."""
        return in_batches(((number, [line.rstrip("\r\n")]) for number, line in self._file.readable_lines()), columns)

    def place(self, position: int) -> str:
        """Returns the file's name and the line."""
        return f"{self.name} line {position}"

    @property
    def fraction_read(self) -> float | None:
        """How much of the file is read, 0..1, if that is known."""
        return self._file.fraction_read


def class_folders(path: Path) -> list[str]:
    """Returns the names, in order, of the folders in `path` that hold .txt files, except `unsup`."""
    names = [child.name for child in path.iterdir() if child.is_dir() and child.name not in LEFT_OUT_CLASSES]
    return sorted(name for name in names if any(True for _ in _text_files(path / name)))


def _text_files(folder: Path) -> Iterator[str]:
    return (file.name for file in folder.iterdir() if file.suffix == ".txt" and not file.name.startswith("."))


def _class_names(metadata: dict[bytes, bytes], columns: Sequence[str]) -> dict[str, list[str]]:
    """Returns the class names that `datasets` keeps in a Parquet schema: {"info": {"features": {column: ...}}}."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        # A column of lists names the feature of its items.
        items = {c: features[c].get("feature", features[c]) for c in columns}
        return {c: list(item["names"]) for c, item in items.items() if item.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}  # no such metadata, or in another form: the numbers are the labels
