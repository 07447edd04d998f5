"""What a training yields as it goes on. Progress bars, logs and trackers are plain code that takes these events."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bertlora.recipe import Recipe


@dataclass(frozen=True)
class Checked:
    """The data is read, and training is about to begin.

    Attributes:
        checks: what is odd about the data, as `prepare --json` prints it.
        rows: the number of rows by split.
        recipe: all options as they were resolved.
        notes: how the data was read, and what was left out.
    """

    checks: list[dict[str, Any]]
    rows: dict[str, int]
    recipe: Recipe
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Probing:
    """The frozen encoder is about to read this number of training texts for the linear probe. Training follows."""

    texts: int


@dataclass(frozen=True)
class Resumed:
    """An interrupted training continues.

    Attributes:
        step: the optimiser steps that are done; 0 if it starts from the beginning.
        steps: the number of all steps.
        notes: which checkpoints were damaged and passed over.
    """

    step: int
    steps: int
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Step:
    """One optimiser step: its number, the number of all steps, the loss, and the mean speed of training so far.

    On a GPU it has the loss of the step before, except the first step: the GPU may still run this one.
    """

    step: int
    steps: int
    loss: float
    examples_per_s: float


@dataclass(frozen=True)
class Evaluation:
    """One evaluation, a line of history.jsonl.

    Attributes:
        train_loss: in nats for classes; for numbers the loss of standardised targets.
        validation_loss: likewise; None without validation texts, as every figure.
        figures: the metrics by name: `accuracy` and `macro_f1` in 0..1, or those of `confidence.agreement`.
    """

    epoch: float
    step: int
    train_loss: float
    validation_loss: float | None
    figures: dict[str, float | None]
    learning_rate: float
    examples_per_s: float
    seconds: float
    best: bool
    warning: str = ""

    @property
    def accuracy(self) -> float | None:
        """Of classes, in 0..1."""
        return self.figures.get("accuracy")

    def line(self) -> dict[str, Any]:
        """Returns the evaluation as one flat table."""
        table: dict[str, Any] = {}
        for key, value in vars(self).items():
            table |= value if key == "figures" else {key: value}
        return table


Event = Checked | Resumed | Probing | Step | Evaluation
Listener = Callable[[Event], None]
