"""CSV and TSV files, read with Python's csv module in strict mode, with exact line numbers."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertlora.data.source import Batch, check_file, in_batches, unreadable, utf8_lines
from bertlora.errors import DataError

# After an unclosed quote, the rest of the file is one field: this limit stops it before memory runs out. The csv
# module's own limit, 131,072, is too small for some texts.
FIELD_LIMIT = 16_000_000
SAMPLE_BYTES = 1_000_000
COLA_COLUMNS = ["source", "label", "mark", "sentence"]
QQP_COLUMNS = ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]


@dataclass(frozen=True)
class Dialect:
    """How a file is written: its delimiter, whether quotes mark fields, and whether it starts with a header."""

    delimiter: str
    quoted: bool
    header: bool = True


class DelimitedSource:
    """A CSV or TSV file. Positions are line numbers, counted from 1.

    Args:
        path: the file.
        name: its name in messages.
        tabs: whether the file is a TSV.

    Raises:
        DataError: the file is missing, empty, not UTF-8, or its header is broken.
    """

    def __init__(self, path: Path, name: str, tabs: bool) -> None:
        check_file(path)
        self.path = path
        self.name = name
        self.class_names: dict[str, list[str]] = {}
        self.notes: list[str] = []
        self._dialect = _tsv_dialect(path, name) if tabs else _csv_dialect(path, name)
        self.columns = self._read_header() if self._dialect.header else COLA_COLUMNS

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows in order; see `Source.batches`."""
        wanted = [self.columns.index(column) for column in columns]
        return in_batches(((line, [fields[i] for i in wanted]) for line, fields in self._rows()), columns)

    def place(self, position: int) -> str:
        """Returns the file's name and the line."""
        return f"{self.name} line {position}"

    def _read_header(self) -> list[str]:
        _, fields = next(_records(self.path, self.name, self._dialect), (1, []))
        columns = [field.strip() for field in fields]
        twice = [column for column in columns if column and columns.count(column) > 1]
        if twice:
            raise DataError(f"{self.name} line 1: column '{twice[0]}' appears twice; rename one")
        if not any(columns):
            raise DataError(f"{self.name} line 1: is blank, expected the names of the columns")
        return columns

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        records = _records(self.path, self.name, self._dialect)
        if self._dialect.header:
            next(records)
        # GLUE's own QQP file has rows cut in two and blank questions: everyone leaves these out.
        forgiving, left_out = self.columns == QQP_COLUMNS, 0
        for line, fields in records:
            if len(fields) != len(self.columns):
                if len(fields) == 1 and not fields[0].strip():
                    continue
                if not forgiving:
                    raise self._miscounted(line, fields)
            elif not forgiving or all(field.strip() for field in fields[-3:]):
                yield line, fields
                continue
            left_out += 1
        note = f"{self.name}: {left_out:,} broken rows, which are known in GLUE's QQP, were left out"
        if left_out and note not in self.notes:
            self.notes.append(note)

    def _miscounted(self, line: int, fields: list[str]) -> DataError:
        sign = {",": "comma", ";": "semicolon", "\t": "tab"}[self._dialect.delimiter]
        advice = f"put quotes around a text that holds a {sign}" if self._dialect.quoted else f"check its {sign}s"
        return DataError(
            f"{self.name} line {line}: {len(fields)} fields, expected {len(self.columns)} "
            f"({', '.join(self.columns)}); {advice}"
        )


def _records(path: Path, name: str, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yields (line on which the record starts, fields), without blank lines."""
    reader = _reader(utf8_lines(path, name), dialect)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{name} line {line}: {_explanation(error)}") from error
        if fields:
            yield line, fields


def _reader(lines: Iterator[str], dialect: Dialect) -> Any:  # the type of csv readers has no public name
    csv.field_size_limit(FIELD_LIMIT)
    if dialect.quoted:
        return csv.reader(lines, delimiter=dialect.delimiter, strict=True)
    return csv.reader(lines, delimiter=dialect.delimiter, quoting=csv.QUOTE_NONE)


def _explanation(error: csv.Error) -> str:
    if "end of data" in str(error) or "field limit" in str(error):
        return "a quote that opens in this row is never closed; close it, and double the quotes inside a quoted text"
    if "expected after" in str(error):
        return "a quoted text goes on after its closing quote; double the quotes inside a quoted text"
    return f"the row cannot be read ({error}); check its quotes and line ends"


def _csv_dialect(path: Path, name: str) -> Dialect:
    header = next(utf8_lines(path, name), "")
    delimiter = next((sign for sign in (",", ";", "\t") if sign in header), ",")
    return Dialect(delimiter, quoted=True)


def _tsv_dialect(path: Path, name: str) -> Dialect:
    dialect = Dialect("\t", quoted=_well_quoted(path))
    _, first = next(_records(path, name, dialect), (1, []))
    headless_cola = len(first) == 4 and first[1] in ("0", "1") and first[2] in ("", "*")
    return Dialect("\t", dialect.quoted, header=not headless_cola)


def _well_quoted(path: Path) -> bool:
    """Returns whether the quotes in the first megabyte of a TSV mark fields. In GLUE's files they are plain text."""
    try:
        with path.open("rb") as file:
            sample = file.read(SAMPLE_BYTES)
            whole = not file.read(1)
    except OSError as error:
        raise unreadable(path, error) from error
    text = sample.decode("utf-8-sig", errors="replace")
    if not re.search(r'(^|\t)"', text, flags=re.MULTILINE):
        return False
    lines = text.splitlines(keepends=True)[: None if whole else -1]
    reader = _reader(iter(lines), Dialect("\t", quoted=True))
    fields_of_row: set[int] = set()
    start = 0
    try:
        for fields in reader:
            fields_of_row.add(len(fields))
            start = reader.line_num
    except csv.Error as error:
        # The sample may end inside a quoted text of several lines, which is no error.
        cut = not whole and "end of data" in str(error) and start > 0.9 * len(lines)
        if not cut:
            return False
    return len(fields_of_row - {0}) == 1
