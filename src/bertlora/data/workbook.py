"""What is checked in a workbook before calamine reads it.

calamine waits for end tags that are missing without end, and takes the room of the whole area up to the farthest cell:
a file of 1 KB could stop the process.
"""

import re
import zipfile
import zlib
from pathlib import Path
from typing import IO
from xml.parsers import expat

MOST_CELLS = 50_000_000  # twice as many as the largest sheet with 20 columns has
MOST_BYTES = 1 << 30  # of one part, unpacked
CHUNK_BYTES = 1 << 16
_CELL = re.compile(r"([A-Z]*)([0-9]+)")
# How zipfile and expat say that a file is damaged; RuntimeError is a password, or a compression that is not known.
BROKEN = (zipfile.BadZipFile, zlib.error, expat.ExpatError, EOFError, ValueError, RuntimeError)


class WorkbookError(ValueError):
    """A workbook that must not be read."""


def check_workbook(path: Path) -> None:
    """Checks that each part of a workbook is whole XML, and that its sheets are not too large to be read.

    Raises:
        WorkbookError: it is not so.
        OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as file:
            for member in file.infolist():  # two may have the same name
                with file.open(member) as part:
                    _check_part(member.filename, part)
    except BROKEN as error:
        if isinstance(error, WorkbookError):
            raise
        raise WorkbookError(str(error) or type(error).__name__) from error


def _check_part(name: str, part: IO[bytes]) -> None:
    """Checks one part; pictures and the like are not checked."""
    chunk = part.read(CHUNK_BYTES)
    if not chunk.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return
    area, parser, size = _Area(), expat.ParserCreate(), 0
    parser.StartElementHandler = area.element
    while chunk:
        size += len(chunk)
        parser.Parse(chunk, False)
        if size > MOST_BYTES or area.rows * area.columns > MOST_CELLS:
            raise WorkbookError(f"{name} is larger than {MOST_CELLS:,} cells or {MOST_BYTES:,} bytes")
        chunk = part.read(CHUNK_BYTES)
    parser.Parse(b"", True)


class _Area:
    """The rows and columns of an .xlsx sheet up to its farthest cell; calamine has a bound for .ods itself."""

    def __init__(self) -> None:
        self.rows = self.columns = 1

    def element(self, name: str, attributes: dict[str, str]) -> None:
        """Takes in a row or a cell."""
        place = attributes.get("r", "")
        if place and name.rpartition(":")[2] in ("row", "c") and (found := _CELL.fullmatch(place)):
            column = 0
            for letter in found[1][:8]:
                column = 26 * column + ord(letter) - ord("A") + 1
            self.rows, self.columns = max(self.rows, int(found[2][:12])), max(self.columns, column)
