"""What people read: tables on stdout, progress on stderr."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from bertlora.training.events import Evaluation, Probing, Step


def say(message: str) -> None:
    """Prints a message to stderr."""
    print(message, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Prints one JSON object on stdout, a line."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "", stderr: bool = False) -> None:
    """Prints a table on stdout, or stderr; columns whose cells are numbers are set right."""
    table = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for i, name in enumerate(columns):
        numbers = all(isinstance(row[i], int | float) for row in rows)
        table.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    # Where it is no terminal, rich would cut at 80 columns.
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    Console(stderr=stderr, width=None if terminal else 120, highlight=False, markup=False).print(table)


class TrainingDisplay:
    """A bar with loss, pace and time left where stderr is a terminal, and a line an evaluation everywhere."""

    def __init__(self, epochs: int, quiet: bool = False) -> None:
        self._epochs = epochs
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TextColumn(
                "{task.completed:.0f}/{task.total:.0f}  loss {task.fields[loss]:.4f}  {task.fields[pace]:.1f} texts/s "
            ),
            TimeRemainingColumn(),
            console=Console(stderr=True, quiet=quiet),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task: TaskID | None = None

    @contextmanager
    def shown(self) -> Iterator["TrainingDisplay"]:
        """Shows the bar inside the block."""
        with self._bar:
            yield self

    def __call__(self, event: "Probing | Step | Evaluation") -> None:
        """Takes what happens before and in the training loop."""
        from bertlora.training.events import Evaluation, Step

        if isinstance(event, Step):
            self._advance(event)
            return
        line = evaluation_line(event, self._epochs) if isinstance(event, Evaluation) else probing_line(event)
        self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _advance(self, event: "Step") -> None:
        """Moves the bar."""
        if self._task is not None and event.step == 1:  # another seed
            self._bar.remove_task(self._task)
            self._task = None
        if self._task is None:
            self._task = self._bar.add_task("", total=event.steps, loss=event.loss, pace=event.examples_per_s)
        self._bar.update(self._task, completed=event.step, loss=event.loss, pace=event.examples_per_s)


def probing_line(p: "Probing") -> str:
    """Returns the line that tells what takes the time before training."""
    return f"linear probe: the frozen encoder reads {p.texts:,} texts"


def evaluation_line(e: "Evaluation", epochs: int) -> str:
    """Returns the line of an evaluation: epoch, losses, accuracy, pace."""
    judged = ""
    if e.accuracy is not None:
        judged = f"  validation loss {e.validation_loss:.4f}  accuracy {100 * e.accuracy:.2f} %"
    best = "  best so far" if e.best and e.accuracy is not None else ""
    warning = f"  ({e.warning})" if e.warning else ""
    pace = f"  {e.examples_per_s:.1f} texts/s"
    return f"epoch {e.epoch:g}/{epochs}  train loss {e.train_loss:.4f}{judged}{pace}{best}{warning}"


def duration(seconds: float) -> str:
    """Returns a time as people say it: `48 s`, `7.5 min`, `1.2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
