"""The file of a shadow's disagreements: `pipeline.shadow_log` has its form, and reads it."""

import fcntl
import json
import os
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

from bertlora.errors import InputError, OutputError
from bertlora.files import json_line, writing
from bertlora.pipeline.shadow_log import COUNTS
from bertlora.serving.fleet import Served
from bertlora.serving.questions import Question

# A log does not grow past this; it is then counted on, and no text is added.
LOG_BYTES = 64 * 2**20
COUNTS_BYTES = 2**20  # for lines of counts, also in a full log
# A crash loses at most the agreements of so long.
COUNTS_EVERY_S = 5.0
DIGITS = 12  # of a count in a line of counts, which is written over in place


class ShadowLog:
    """A local file of disagreements, which only its owner may read; `pipeline.shadow_log` has its form.

    It holds texts of users. A distinct text is kept once. If the file cannot be written any more, it only counts.

    Args:
        path: the file; what it holds stays, and new lines come after it.
        limit: bytes that it may have.

    Raises:
        OutputError: it cannot be written.
        InputError: it is something else than a log of shadows.
    """

    def __init__(self, path: Path, limit: int = LOG_BYTES) -> None:
        self.path, self._limit, self._lock = path, limit, threading.Lock()
        self._counts: dict[str, tuple[int, dict[str, Any]]] = {}  # adapter → the place of its line, and the line
        self._known: set[int] = set()
        self._written = time.monotonic()
        with writing(path):
            self._file, self._size = _opened(path)

    def begin(self, adapter: str, candidate: Served) -> None:
        """Adds the line of counts of a candidate."""
        names = {"adapter": adapter, "candidate": str(candidate.run.path), "labels": candidate.labels}
        with self._lock:
            self._counts[adapter] = self._size, names | {"agreed": 0, "disagreed": 0}
            self._append(_counts_line(self._counts[adapter][1]), COUNTS_BYTES)

    def add(self, question: Question, line: dict[str, Any] | None) -> None:
        """Counts a text, and keeps the line of a disagreement; None is an agreement."""
        with self._lock:
            _, counts = self._counts[question.adapter]
            counts["agreed" if line is None else "disagreed"] += 1
            known = hash((question.adapter, question.text, question.pair))
            if line is not None and known not in self._known and self._size < self._limit:
                self._known.add(known)
                names = {"adapter": question.adapter, "candidate": counts["candidate"]}
                self._append(json_line(names | line))
            if time.monotonic() - self._written > COUNTS_EVERY_S:
                self._write_counts()

    def close(self) -> None:
        """Writes the counts, and closes the file."""
        with self._lock:
            self._write_counts()
            self._file.close()

    def _append(self, line: str, more: int = 0) -> None:
        data = f"{line}\n".encode(errors="replace")
        if self._size + len(data) <= self._limit + more and self._put(data, self._size):
            self._size += len(data)
            return
        self._limit = 0  # it is full, or the disk is: half a line must not stay
        with suppress(OSError, ValueError):
            os.ftruncate(self._file.fileno(), self._size)

    def _write_counts(self) -> None:
        """Writes the counts over the old ones, in the same number of bytes."""
        for place, counts in self._counts.values():
            self._put(_counts_line(counts).encode(), place)
        self._written = time.monotonic()

    def _put(self, data: bytes, place: int) -> bool:
        try:
            return os.pwrite(self._file.fileno(), data, place) == len(data)
        except (OSError, ValueError):
            return False


def _opened(path: Path) -> tuple[BinaryIO, int]:
    """Returns the file, which no other process may write, and its size in bytes."""
    with ExitStack() as on_error:
        # Not os.O_APPEND, with which Linux would write the counts at the end.
        file = on_error.enter_context(open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0))
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"--shadow-log {path}: another server writes it; name another file") from None
        start = file.read(len(COUNTS) + 3)
        if start and start != f'{{"{COUNTS}"'.encode():
            raise InputError(f"--shadow-log {path}: is there already, and is no log of shadows; name another file")
        os.fchmod(file.fileno(), 0o600)
        size = file.seek(0, os.SEEK_END)
        if start and os.pread(file.fileno(), 1, size - 1) != b"\n":  # an editor may leave it out
            size += file.write(b"\n")
        on_error.pop_all()
    return file, size


def _counts_line(counts: dict[str, Any]) -> str:
    """Returns a line of counts, as long for any counts: spaces fill it."""
    spaces = 2 * DIGITS - len(f"{counts['agreed']}{counts['disagreed']}")
    return json.dumps({COUNTS: counts}) + " " * spaces
