"""CSV and TSV files, read with Python's csv module in strict mode, with exact line numbers."""

import csv
from collections.abc import Iterator, Sequence

from bertlora.data.dialect import csv_dialect, reader, tsv_dialect
from bertlora.data.glue import COLA_COLUMNS, QQP_COLUMNS
from bertlora.data.record_lines import RecordLines
from bertlora.data.source import Batch, in_batches, repeated
from bertlora.data.text_file import OVERRIDE, TextFile, detected
from bertlora.errors import DataError


class DelimitedSource:
    """A CSV or TSV file. Positions are line numbers, counted from 1.

    Args:
        file: the file.
        tabs: whether its name says that it is a TSV.
        delimiter: what separates the fields; None detects it.

    Raises:
        DataError: the file cannot be read, or its header is broken.
    """

    def __init__(self, file: TextFile, tabs: bool, delimiter: str | None = None) -> None:
        self.name = file.name
        self.class_names: dict[str, list[str]] = {}
        self.notes: list[str] = []
        self._file = file
        self._dialect = tsv_dialect(file, delimiter) if tabs else csv_dialect(file, delimiter)
        unusual = delimiter is None and self._dialect.delimiter != ("\t" if tabs else ",")
        if file.detected or unusual:
            self.notes.append(f"{detected(file)}, delimiter {self._dialect.sign}; {OVERRIDE} or --delimiter")
        self.columns = self._read_header() if self._dialect.header else COLA_COLUMNS

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows in order; see `Source.batches`."""
        wanted = [self.columns.index(column) for column in columns]
        return in_batches(((line, [fields[i] for i in wanted]) for line, fields in self._rows()), columns)

    def place(self, position: int) -> str:
        """Returns the file's name and the line."""
        return f"{self.name} line {position}"

    @property
    def fraction_read(self) -> float | None:
        """How much of the file is read, 0..1, if that is known."""
        return self._file.fraction_read

    def _read_header(self) -> list[str]:
        # Without the names of the columns nothing can be read: a fault here is always an error.
        _, fields = next(self._records(RecordLines(self._file.lines()), strict=True), (1, []))
        columns = [field.strip() for field in fields]
        if twice := repeated(columns):
            raise DataError(f"{self.name} line 1: column '{twice}' appears twice; rename one")
        if not any(columns):
            raise DataError(f"{self.name} line 1: is blank, expected the names of the columns")
        return columns

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        undecodable: dict[int, str] | None = None if self._file.on_fault is None else {}
        lines = RecordLines(self._file.lines(undecodable), undecodable)
        records = self._records(lines)
        if self._dialect.header:
            next(records)
        # GLUE's own QQP file has rows cut in two and blank questions: everyone leaves these out.
        forgiving, left_out = self.columns == QQP_COLUMNS, 0
        for line, fields in records:
            if len(fields) != len(self.columns):
                if len(fields) == 1 and not fields[0].strip():
                    continue
                if not forgiving:
                    self._file.fault(line, self._miscounted(fields))
                    lines.again()
                    continue
            elif not forgiving or all(field.strip() for field in fields[-3:]):
                yield line, fields
                continue
            left_out += 1
        note = f"{self.name}: {left_out:,} broken rows, which are known in GLUE's QQP, were left out"
        if left_out and note not in self.notes:
            self.notes.append(note)

    def _miscounted(self, fields: list[str]) -> str:
        sign = self._dialect.sign
        advice = f"put quotes around a text that holds a {sign}" if self._dialect.quoted else f"check its {sign}s"
        return f"{len(fields)} fields, expected {len(self.columns)} ({', '.join(self.columns)}); {advice}"

    def _records(self, lines: RecordLines, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
        """Yields (line on which the record starts, fields), without blank lines and records that cannot be read."""
        records = reader(lines, self._dialect)
        while True:
            lines.begin()
            try:
                fields = next(records)
            except StopIteration:
                return
            except csv.Error as error:
                if strict:
                    raise DataError(f"{self.name} line {lines.number}: {_explanation(error)}") from error
                self._file.fault(lines.number, _explanation(error), error)
                lines.again()
                continue
            if reason := lines.undecodable():
                self._file.fault(lines.number, reason)
            elif fields:
                yield lines.number, fields


def _explanation(error: csv.Error) -> str:
    if "end of data" in str(error) or "field limit" in str(error):
        return "a quote that opens in this row is never closed; close it, and double the quotes inside a quoted text"
    if "expected after" in str(error):
        return "a quoted text goes on after its closing quote; double the quotes inside a quoted text"
    return f"the row cannot be read ({error}); check its quotes and line ends"
