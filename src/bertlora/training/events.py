"""What goes into a training run, and what it yields as it goes on."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bertlora.data.inputs import Inputs


@dataclass(frozen=True)
class Examples:
    """Texts to learn from or to judge by: inputs, and labels (B,) int64 in 0..K-1."""

    inputs: Inputs
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Probing:
    """The frozen encoder is about to read so many training texts, for the linear probe; training begins after it."""

    texts: int


@dataclass(frozen=True)
class Step:
    """One optimiser step: its number of how many, the loss, and the pace of training so far."""

    step: int
    steps: int
    loss: float
    examples_per_s: float


@dataclass(frozen=True)
class Evaluation:
    """One evaluation, a line of history.jsonl. Fractions in 0..1, losses in nats; None without validation texts."""

    epoch: float
    step: int
    train_loss: float
    validation_loss: float | None
    accuracy: float | None
    learning_rate: float
    examples_per_s: float
    seconds: float
    best: bool
    warning: str = ""
