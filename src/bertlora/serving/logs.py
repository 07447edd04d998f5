"""Logs for programs: one JSON object on each line. No line has a text of a user, or a key."""

import logging
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from queue import Full, Queue
from threading import Thread
from typing import TextIO

from bertlora.files import json_line

OURS = "bertlora"
WAITING = 10_000  # lines
CLOSING_S = 2.0


class JsonFormatter(logging.Formatter):
    """Writes a record as JSON: `time` (UTC), `level`, `logger`, `message`, and what `extra={"fields": {...}}` has.

    The message of an exception can quote a text. So an exception is its type and the lines of code that it passed. If
    another library reports one, its own words are left out too.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "logger": record.name}
        error = record.exc_info[1] if record.exc_info else None
        if error is None or record.name.partition(".")[0] == OURS:
            line["message"] = record.getMessage()
        if error is not None:
            steps = [f"{step.filename}:{step.lineno}" for step in traceback.extract_tb(error.__traceback__)]
            line["cause"] = " ".join([type(error).__name__, "at", *steps[-4:]])
        return json_line(line | getattr(record, "fields", {}))


class AsideHandler(logging.Handler):
    """Writes lines on a thread of its own: a reader that stops reading must not stop the server.

    Lines that find no room while nobody reads are lost, and their number is said once there is room again.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._stream, self._lost = stream, 0
        self._lines: Queue[str | None] = Queue(WAITING)
        self._thread = Thread(target=self._write, name="bertlora-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a line."""
        try:
            self._lines.put_nowait(self.format(record))
        except Full:
            self._lost += 1

    def close(self) -> None:
        """Writes what waits, unless nobody reads it."""
        super().close()
        with suppress(Full):
            self._lines.put_nowait(None)
        self._thread.join(CLOSING_S)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            if self._lost:
                lost, self._lost = self._lost, 0
                line += "\n" + json_line({"level": "warning", "logger": OURS, "message": f"{lost} lines were lost"})
            with suppress(Exception):  # the stream is closed, say; the next line may be written
                print(line, file=self._stream, flush=True)


def start_logs(stream: TextIO, quiet: bool = False) -> None:
    """Sends the logs of this process to a stream; if quiet, only warnings and errors."""
    logging.basicConfig(handlers=[AsideHandler(stream)], level=logging.WARNING, force=True)
    logging.getLogger(OURS).setLevel(logging.WARNING if quiet else logging.INFO)
