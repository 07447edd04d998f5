"""What a training measures step by step and text by text: the tests behind the advice need more than means.

Letters: T optimiser steps, E evaluations, V validation texts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bertlora.confidence.probabilities import Array, Labels, row_losses


@dataclass
class Trace:
    """The measurements of a training so far.

    Attributes:
        step_losses: T training losses, one per optimiser step, in nats.
        row_losses: E arrays (V,): the loss of each validation text at each evaluation, in nats.
        predicted: E arrays (V,): the class that each evaluation predicts for each validation text.
    """

    step_losses: list[float] = field(default_factory=list)
    row_losses: list[npt.NDArray[np.float64]] = field(default_factory=list)
    predicted: list[Labels] = field(default_factory=list)

    def add(self, logits: Array, y_true: Labels) -> None:
        """Adds an evaluation: logits (V, K) of the validation texts, and their labels (V,)."""
        self.row_losses.append(row_losses(logits, y_true))
        self.predicted.append(logits.argmax(axis=1))

    def tensors(self) -> dict[str, Tensor]:
        """Returns the measurements as tensors, to save them."""
        return {
            "step_losses": torch.tensor(self.step_losses, dtype=torch.float64),
            "row_losses": torch.from_numpy(np.array(self.row_losses, dtype=np.float64)),
            "predicted": torch.from_numpy(np.array(self.predicted, dtype=np.int64)),
        }

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Trace":
        """Returns the measurements that `tensors` gave."""
        losses, predicted = (list(tensors[name].numpy()) for name in ("row_losses", "predicted"))
        return cls(tensors["step_losses"].tolist(), losses, predicted)
