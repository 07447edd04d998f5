"""What people read: tables on stdout, messages on stderr. And what programs read: JSON, one object on each line."""

import sys
from collections.abc import Sequence
from typing import Any

from bertlora.cli.verb import is_quiet
from bertlora.files import STEERING
from bertlora.files import json_line as json_line

# Characters that would steer the terminal are shown as pictures.
PICTURES = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
# Those that turn the reading direction too: a text could show another label than its own.
PICTURES |= dict.fromkeys(STEERING, "\ufffd")
PIPE_WIDTH = 120  # of a table that is not printed on a terminal


def say(message: str) -> None:
    """Prints a message to stderr, unless the verb is quiet."""
    if not is_quiet():
        print(visible(message), file=sys.stderr, flush=True)


def show(text: str = "") -> None:
    """Prints a text for people on stdout. Names and labels in it may come from strangers; see `visible`."""
    print(visible(text))


def print_json(value: Any) -> None:
    """Prints one JSON object on stdout, as one line."""
    print(json_line(value), flush=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], stderr: bool = False) -> None:
    """Prints a table on stdout or stderr. Columns of numbers are aligned to the right."""
    # rich takes a while to import, and a help page does not need it.
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(columns):
        numbers = all(isinstance(row[i], int | float) for row in rows)
        table.add_column(visible(name), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else visible(str(cell)) for cell in row))
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    Console(stderr=stderr, width=None if terminal else PIPE_WIDTH, highlight=False, markup=False).print(table)


def visible(text: str) -> str:
    """Returns a text with pictures in place of control characters."""
    return text.translate(PICTURES)


def shortened(text: str, width: int) -> str:
    """Returns the start of a text on one line, with `...` if that is not all of it."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 3]}..."


def duration(seconds: float) -> str:
    """Returns a time for people: `48 s`, `7.5 min`, `1.2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
