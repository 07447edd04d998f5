"""Lines for a csv reader that goes on after a broken record."""

import csv
from collections import deque
from collections.abc import Iterator

LONGEST_RECORD = 64_000_000  # characters


class RecordLines:
    """The lines of a file, with the number of the line on which the record starts that is being read.

    A quote that is never closed takes in the rows below it. So after a broken record, `again` gives all its lines but
    the first once more, and only the first row is lost.

    Attributes:
        number: the line on which the record starts, from 1.

    Args:
        lines: the lines.
        undecodable: the lines that `TextFile.lines` could not decode, with the reason; None if there cannot be any.
    """

    def __init__(self, lines: Iterator[str], undecodable: dict[int, str] | None = None) -> None:
        self.number = 1
        self._lines = lines
        self._undecodable = {} if undecodable is None else undecodable
        self._record: list[str] = []
        self._waiting: deque[str] = deque()
        self._characters = 0  # of the record

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else next(self._lines)
        self._record.append(line)
        self._characters += len(line)
        if len(self._record) > 1 and self._characters > LONGEST_RECORD:
            raise csv.Error("the field limit is for the whole record")  # its fields may all be short
        return line

    def begin(self) -> None:
        """Says that the next line starts a record."""
        self.number += len(self._record)
        self._record, self._characters = [], 0
        for line in [line for line in self._undecodable if line < self.number]:
            del self._undecodable[line]

    def again(self) -> None:
        """Gives the lines of this record once more, without its first."""
        self._waiting.extendleft(reversed(self._record[1:]))
        del self._record[1:]
        self._characters = 0

    def undecodable(self) -> str:
        """Returns why a line of this record cannot be decoded; empty if all are decoded."""
        if not self._undecodable:
            return ""
        own = range(self.number, self.number + len(self._record))
        return next((f"line {line}: {self._undecodable[line]}" for line in own if line in self._undecodable), "")
