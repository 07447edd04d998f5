"""Checks that stop a run that cannot succeed, and name the cause."""

import math

import numpy as np
import numpy.typing as npt
from torch import Tensor

from bertlora.errors import HealthError

# A model that still predicts one class after so many steps, twice in a row, will not recover.
COLLAPSE_STEPS = 100
COLLAPSE_EVALUATIONS = 2


def check_loss(loss: float, step: int, learning_rate: float) -> None:
    """Raises HealthError when the loss is no number."""
    if not math.isfinite(loss):
        raise HealthError(
            f"training stopped at step {step}: the loss is {loss}; the learning rate of {learning_rate:g} is too high, "
            "or the base model has weights that are no numbers; try a tenth of the rate, or --precision fp32"
        )


def check_moved(before: dict[str, Tensor], after: dict[str, Tensor], step: int) -> None:
    """Raises HealthError when no adapter weight has changed.

    Only B is looked at: it has a gradient whenever anything has, and weight decay, which shrinks A, leaves its 0 alone.
    """
    adapter = [name for name in before if "lora_B" in name]
    if adapter and all(before[name].equal(after[name]) for name in adapter):
        raise HealthError(
            f"training stopped at step {step}: no adapter weight has moved; "
            "the learning rate is too small for fp32, or no gradient reaches the adapter"
        )


class CollapseWatch:
    """Watches for a model that predicts one class for everything."""

    def __init__(self, labels: list[str]) -> None:
        self._labels = labels
        self._in_a_row = 0

    def resume(self, warnings: list[str]) -> None:
        """Takes up the count where the evaluations with these warnings, oldest first, left it."""
        self._in_a_row = next((i for i, warning in enumerate(reversed(warnings)) if not warning), len(warnings))

    def check(self, predicted: npt.NDArray[np.int64], given: npt.NDArray[np.int64], step: int) -> str:
        """Returns a warning, or an empty string, after an evaluation.

        Raises:
            HealthError: one class was predicted for everything, twice in a row, late enough to be sure.
        """
        if len(set(predicted.tolist())) > 1 or len(set(given.tolist())) < 2:
            self._in_a_row = 0
            return ""
        self._in_a_row += 1
        found = f"'{self._labels[int(predicted[0])]}' is predicted for every validation text"
        if self._in_a_row >= COLLAPSE_EVALUATIONS and step >= COLLAPSE_STEPS:
            raise HealthError(
                f"training stopped at step {step}: {found}, {self._in_a_row} evaluations in a row; "
                'lower the learning rate, set class_weights = "balanced" if the labels are skewed, or check the labels'
            )
        return found
