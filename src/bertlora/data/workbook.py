"""What is checked in a workbook before calamine reads it.

calamine waits for end tags that are missing without end. It takes the room of the whole area up to the farthest cell,
and copies a text for each cell that has it. So a file of 1 KB could stop the process.
"""

import re
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import IO
from xml.parsers import expat

MOST_CELLS = 50_000_000  # twice as many as the largest sheet with 20 columns has
# Of a larger area, one cell in a hundred must be there: empty ones cost time too, and a file of 1 KB could have many.
SPARSE_CELLS, SPARSE = 5_000_000, 100
MOST_ROWS = 1_048_576  # Excel's own bound
MOST_BYTES = 1 << 30  # of all parts, unpacked
MOST_CHARACTERS = 1 << 29  # of the texts of all cells
CHUNK_BYTES = 1 << 16
_CELL = re.compile(r"([A-Za-z]*)([0-9]+)")  # calamine takes small letters too
# How zipfile and expat say that a file is damaged; RuntimeError is a password, or a compression that is not known.
BROKEN = (zipfile.BadZipFile, zlib.error, expat.ExpatError, EOFError, ValueError, RuntimeError)
TOO_LARGE = f"larger than {MOST_CELLS:,} cells, {MOST_BYTES:,} bytes or {MOST_CHARACTERS:,} characters in its cells"


class WorkbookError(ValueError):
    """A workbook that must not be read."""


def check_workbook(path: Path) -> None:
    """Checks that each part of a workbook is whole XML, and that all of it is not too large to be read.

    Raises:
        WorkbookError: it is not so.
        OSError: the file cannot be read.
    """
    size = _Size()
    try:
        with zipfile.ZipFile(path) as file:
            for member in file.infolist():  # two may have the same name
                with file.open(member) as part:
                    _check_part(part, size)
    except BROKEN as error:
        if isinstance(error, WorkbookError):
            raise
        raise WorkbookError(str(error) or type(error).__name__) from error
    size.check(whole=True)


def _check_part(part: IO[bytes], size: "_Size") -> None:
    """Checks one part; pictures and the like are not checked."""
    chunk = part.read(CHUNK_BYTES)
    # calamine passes over whatever comes before the first tag.
    told = part.name.lower().endswith((".xml", ".rels")) or b"sheetData" in chunk
    if not told and not chunk.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return
    parser = expat.ParserCreate()
    size.begin()
    parser.StartElementHandler, parser.CharacterDataHandler = size.element, size.text
    parser.buffer_text = True
    while chunk:
        size.bytes += len(chunk)
        parser.Parse(chunk, False)
        size.check()
        chunk = part.read(CHUNK_BYTES)
    parser.Parse(b"", True)
    size.check_area()


class _Size:
    """What a workbook takes in memory.

    In .xlsx: the area of each sheet up to its farthest cell, and each shared text as often as cells have it. In .ods:
    each text as often as its cell and row are repeated; calamine has a bound for the cells itself.
    """

    def __init__(self) -> None:
        self.bytes = self._cells = self._characters = 0
        self._shared: list[int] = []  # the lengths of the shared texts
        self._uses: Counter[int] = Counter()  # of shared texts, by number
        self._rows = self._columns = 0
        self.begin()

    def begin(self) -> None:
        """Begins a part."""
        self._cells += self._rows * self._columns
        self._rows = self._columns = self._there = 0
        self._row_times = self._cell_times = 1
        self._inside = self._number = ""

    def element(self, name: str, attributes: dict[str, str]) -> None:
        """Takes in the start of an element."""
        self._use()
        match name.rpartition(":")[2]:
            case "row" | "c" as kind:
                self._there += kind == "c"
                self._take_in(attributes.get("r", ""))
                self._inside = "shared" if kind == "c" and attributes.get("t") == "s" else ""
            case "v":
                self._inside = "number" if self._inside == "shared" else ""
            case "si":
                self._shared.append(0)
                self._inside = "text"
            case "table-row":
                self._row_times = _times(attributes.get("table:number-rows-repeated"))
            case "table-cell":
                self._cell_times = _times(attributes.get("table:number-columns-repeated"))
                self._repeat(len(attributes.get("office:string-value", "")))
            case "s":  # some spaces
                self._repeat(_times(attributes.get("text:c")))

    def text(self, text: str) -> None:
        """Takes in text."""
        match self._inside:
            case "number":
                self._number += text
            case "text":
                self._shared[-1] += len(text)
            case _:
                self._repeat(len(text))

    def check(self, whole: bool = False) -> None:
        """Raises WorkbookError if it is too much; `whole` says that all parts are taken in."""
        self._use()
        copied = sum(self._shared[i] * n for i, n in self._uses.items() if i < len(self._shared)) if whole else 0
        cells = max(self._cells + self._rows * self._columns, len(self._shared))
        if self.bytes > MOST_BYTES or cells > MOST_CELLS or self._characters + copied > MOST_CHARACTERS:
            raise WorkbookError(f"it is {TOO_LARGE}")

    def check_area(self) -> None:
        """Raises WorkbookError if the sheet that was taken in has too many rows, or is nearly empty."""
        if self._rows > MOST_ROWS or self._rows * self._columns > max(SPARSE_CELLS, SPARSE * self._there):
            raise WorkbookError(f"it has {self._there:,} cells in {self._rows:,} rows; delete what is far off")

    def _repeat(self, characters: int) -> None:
        self._characters += characters * self._cell_times * self._row_times

    def _use(self) -> None:
        """Counts the cell with a shared text whose number was taken in."""
        if self._number:
            self._uses[_times(self._number, 0)] += 1
            self._number = ""

    def _take_in(self, place: str) -> None:
        """Takes in the place of a row or a cell."""
        if place and (found := _CELL.fullmatch(place)):
            column = 0
            for letter in found[1][:8].upper():
                column = 26 * column + ord(letter) - ord("A") + 1
            self._rows, self._columns = max(self._rows, int(found[2][:12])), max(self._columns, column)


def _times(text: str | None, other: int = 1) -> int:
    """Returns the number that an attribute gives; `other` if it gives none."""
    text = (text or "").strip().lstrip("0+")[:12]
    return int(text) if text.isdecimal() else other
