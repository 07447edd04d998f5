"""Logs for programs: one JSON object on each line. No line has a text of a user, or a key."""

import logging
import traceback
from datetime import UTC, datetime
from typing import TextIO

from bertlora.files import json_line

OURS = "bertlora"


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


def start_logs(stream: TextIO, quiet: bool = False) -> None:
    """Sends the logs of this process to a stream; if quiet, only warnings and errors."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(OURS).setLevel(logging.WARNING if quiet else logging.INFO)
