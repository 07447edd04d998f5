"""The progress of a training in Python, for `fit(verbose=1)`: a bar on a terminal or in a notebook, otherwise lines."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bertlora.training.events import Evaluation, Event, Listener, Step


@contextmanager
def progress(verbose: int) -> Iterator[Listener]:
    """Yields a listener for steps and evaluations; it shows nothing if `verbose` is 0."""
    if not verbose:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("training"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"))
    shown = TextColumn("loss {task.fields[loss]:.4f}")
    live = console.is_terminal or console.is_jupyter
    with Progress(*columns, shown, TimeRemainingColumn(), console=console, disable=not live) as bar:
        task = bar.add_task("", total=1, loss=0.0)

        def listen(event: Event) -> None:
            if isinstance(event, Step):
                bar.update(task, completed=event.step, total=event.steps, loss=event.loss)
            elif isinstance(event, Evaluation):
                bar.print(_line(event)) if live else print(_line(event), file=sys.stderr, flush=True)

        yield listen


def _line(done: Evaluation) -> str:
    """Returns an evaluation as a line."""
    measured = ""
    if done.validation_loss is not None:
        measured = f"  validation loss {done.validation_loss:.4f}"
    if done.accuracy is not None:
        measured += f"  accuracy {100 * done.accuracy:.2f} %"
    return f"epoch {done.epoch:g}  train loss {done.train_loss:.4f}{measured}"
