"""Sheets of .xlsx and .ods files, read by python-calamine, the package of the extra `excel`."""

from collections.abc import Iterator, Sequence
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

from bertlora.data.labels import quoted
from bertlora.data.source import Batch, in_batches, repeated
from bertlora.data.text_file import check_file
from bertlora.data.workbook import WorkbookError, check_workbook
from bertlora.errors import DataError, is_panic

SHEET_TYPES = (".xlsx", ".ods")


class SheetSource:
    """The first sheet with rows of a workbook, read into memory as a whole. Its first row names the columns.

    Positions are rows as the sheet numbers them: the row below the header is 2.

    Raises:
        DataError: the file cannot be read, the extra is not installed, or the header is broken.
    """

    def __init__(self, path: Path, name: str) -> None:
        check_file(path)
        self.name = name
        self.class_names: dict[str, list[str]] = {}
        self.notes: list[str] = []
        sheet, others, rows = _first_sheet(path, name)
        if others:
            self.notes.append(f"{name}: the sheet '{sheet}' was read, and not {quoted(others)}")
        # Rows without any value, which sheets have at their end and between blocks, are no rows of data.
        filled = [(number, row) for number, row in enumerate(rows, 1) if any(value != "" for value in row)]
        if not filled:
            raise DataError(f"{name}: has no sheet with rows, expected the names of the columns and rows below them")
        header = [str(_plain(value) or "").strip() for value in filled[0][1]]
        if twice := repeated(header):
            raise DataError(f"{self.place(filled[0][0])}: column '{twice}' appears twice; rename one")
        self.columns = [column for column in header if column]
        self._cells = [header.index(column) for column in self.columns]
        self._rows = filled[1:]

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows in order, with None for an empty cell; see `Source.batches`."""
        cells = [self._cells[self.columns.index(column)] for column in columns]
        return in_batches(((number, [_plain(row[cell]) for cell in cells]) for number, row in self._rows), columns)

    def place(self, position: int) -> str:
        """Returns the file's name and the row, as the sheet numbers it."""
        return f"{self.name} row {position}"


def _first_sheet(path: Path, name: str) -> tuple[str, list[str], list[list[Any]]]:
    """Returns the name of the first sheet with rows, the names of the others with rows, and the rows."""
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError as error:
        raise DataError(f"{name}: sheets need the extra 'excel'; run pip install 'bertlora[excel]'") from error
    try:
        check_workbook(path)
        workbook = CalamineWorkbook.from_path(str(path))
        sheets = {
            sheet: workbook.get_sheet_by_name(sheet).to_python(skip_empty_area=False) for sheet in workbook.sheet_names
        }
    except BaseException as error:
        if not (is_panic(error) or isinstance(error, (CalamineError, WorkbookError, OSError))):
            raise
        raise DataError(f"{name}: is not a sheet that can be read ({error}); save it again, or as CSV") from error
    filled = [sheet for sheet, rows in sheets.items() if rows]
    return (filled[0], filled[1:], sheets[filled[0]]) if filled else ("", [], [])


def _plain(value: object) -> object:
    """Returns the value of a cell: None if it is empty, whole numbers without `.0`, dates and times as ISO text."""
    if value == "":
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value) if isinstance(value, timedelta) else value
