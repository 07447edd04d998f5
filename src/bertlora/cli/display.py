"""The progress of a training, on stderr."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from bertlora.cli.console import visible
from bertlora.cli.verb import is_quiet
from bertlora.training.events import Checked, Evaluation, Event, Probing, Resumed, Step

ROWS_SHOWN = 3
# Metrics of classes that an evaluation has only if they choose the best adapter.
CHOOSING = {"matthews": "Matthews", "f1": "F1"}


class TrainingDisplay:
    """A bar with loss, speed and time left if stderr is a terminal, and a line for each other event everywhere."""

    def __init__(
        self, probing: str = "linear probe: the frozen encoder reads {texts:,} texts", quiet: bool = False
    ) -> None:
        """Makes a display.

        Args:
            probing: the line of the event `Probing`.
            quiet: show nothing, as with `--quiet`.
        """
        self._probing = probing
        self._epochs = 0
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TextColumn(
                "{task.completed:.0f}/{task.total:.0f}  loss {task.fields[loss]:.4f}  {task.fields[speed]:.1f} texts/s "
            ),
            TimeRemainingColumn(),
            console=Console(stderr=True, quiet=quiet or is_quiet()),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task: TaskID | None = None

    @contextmanager
    def shown(self) -> Iterator["TrainingDisplay"]:
        """Shows the bar inside the block."""
        with self._bar:
            yield self

    def __call__(self, event: Event) -> None:
        """Shows an event."""
        match event:
            case Checked():
                self._epochs = event.recipe.epochs
                for line in [*(f"note: {note}" for note in event.notes), *check_lines(event.checks)]:
                    self._print(line)
            case Resumed():
                for note in event.notes:
                    self._print(f"warning: {note}")
                self._print(f"resumed after step {event.step:,} of {event.steps:,}")
            case Probing():
                self._print(self._probing.format(texts=event.texts))
            case Step():
                self._advance(event)
            case Evaluation():
                self._print(evaluation_line(event, self._epochs))

    def _print(self, line: str) -> None:
        self._bar.console.print(visible(line), highlight=False, markup=False, soft_wrap=True)

    def _advance(self, event: Step) -> None:
        """Moves the bar."""
        if self._task is not None and event.step == 1:  # the next seed
            self._bar.remove_task(self._task)
            self._task = None
        if self._task is None:
            self._task = self._bar.add_task("", total=event.steps, loss=event.loss, speed=event.examples_per_s)
        self._bar.update(self._task, completed=event.step, loss=event.loss, speed=event.examples_per_s)


def check_lines(checks: Sequence[dict[str, Any]]) -> list[str]:
    """Returns one line for each check whose severity is above `note`."""
    from bertlora.data.checks import named_rows

    lines = []
    for check in checks:
        if check["severity"] != "note":
            rows = named_rows(check, ROWS_SHOWN)
            found = f"{check['severity']}: {check['name']}: {check['count']:,}{f' ({rows})' if rows else ''}"
            lines.append(f"{found}; {check['advice']}")
    return lines


def evaluation_line(e: Evaluation, epochs: int) -> str:
    """Returns the line of an evaluation: epoch, losses, accuracy or RMSE, speed."""
    validation = ""
    if e.validation_loss is not None:
        validation = f"  validation loss {e.validation_loss:.4f}  {_leading(e)}"
    best = "  best so far" if e.best and e.validation_loss is not None else ""
    warning = f"  ({e.warning})" if e.warning else ""
    speed = f"  {e.examples_per_s:.1f} texts/s"
    return f"epoch {e.epoch:g}/{epochs}  train loss {e.train_loss:.4f}{validation}{speed}{best}{warning}"


def _leading(e: Evaluation) -> str:
    """Returns the figures that say how good an evaluation is."""
    if e.accuracy is not None:
        others = [f"  {name} {e.figures[key]:.4f}" for key, name in CHOOSING.items() if e.figures.get(key) is not None]
        return f"accuracy {100 * e.accuracy:.2f} %{''.join(others)}"
    if "average_precision" in e.figures:
        precision, f1 = (e.figures[name] or 0.0 for name in ("average_precision", "macro_f1"))
        return f"average precision {precision:.4f}  macro F1 {f1:.4f}"
    pearson = e.figures["pearson"]
    return f"RMSE {e.figures['rmse']:.4g}" + ("" if pearson is None else f"  Pearson {pearson:.4f}")
