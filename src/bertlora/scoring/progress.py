"""How far a scoring is."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a scoring is.

    Attributes:
        rows: rows done, with those of earlier starts and bad ones.
        rows_per_s: of this start.
        fraction: how much of the sources is done, 0..1; None if that is not known.
        seconds_left: until the last part is done; None if that is not known.
    """

    rows: int
    rows_per_s: float
    fraction: float | None
    seconds_left: float | None


class Clock:
    """Counts rows, and reports the progress."""

    def __init__(self, before: int, progress: Callable[[Progress], None] | None) -> None:
        self._began, self._rows, self._before, self._progress = time.perf_counter(), 0, before, progress

    def add(self, rows: int, fraction: float | None) -> None:
        """Adds the rows of a part that is done."""
        self._rows += rows
        if self._progress is None:
            return
        pace, done = self._rows / (time.perf_counter() - self._began), self._before + self._rows
        left = (done / fraction - done) / pace if fraction else None
        self._progress(Progress(done, pace, fraction, left))
