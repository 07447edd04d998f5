"""Checks that stop a run which cannot succeed, and name the cause."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bertlora.data.labels import imbalanced
from bertlora.errors import HealthError, ModelError

# A model that still predicts one class after this many steps, twice in a row, does not recover.
COLLAPSE_STEPS = 100
COLLAPSE_EVALUATIONS = 2


def check_finite(what: str, value: float, step: int, learning_rate: float) -> None:
    """Raises HealthError if a value of a step is NaN or infinite. `what` it is: loss, gradient, adapter's weights."""
    if not math.isfinite(value):
        raise HealthError(
            f"training stopped at step {step}: the {what} is {value}; the learning rate of {learning_rate:g} is too "
            "high; try a tenth of it, or --precision fp32"
        )


def check_base(model: nn.Module, name: str) -> None:
    """Raises ModelError if a frozen weight of the base model `name` is not finite."""
    frozen = {key: weight for key, weight in model.named_parameters() if not weight.requires_grad}
    with torch.no_grad():
        norms = torch._foreach_norm(list(frozen.values()))
    # A norm may overflow where no weight does.
    for key, norm in zip(frozen, norms, strict=True):
        if not norm.isfinite() and not frozen[key].isfinite().all():
            raise ModelError(f"{name}: its weight {key} has values that are not finite; use another base model")


def norm_of(tensors: Sequence[Tensor]) -> Tensor:
    """Returns the norm of all values of these tensors, a scalar; it is not finite if one of them is not."""
    with torch.no_grad():
        norm: Tensor = torch.stack(torch._foreach_norm(list(tensors))).norm()
        return norm


def check_moved(before: dict[str, Tensor], after: dict[str, Tensor], step: int) -> None:
    """Raises HealthError if no adapter weight has changed.

    Only B is checked. It has a gradient whenever anything has one. Weight decay shrinks A, but does not change B's 0.
    """
    adapter = [name for name in before if "lora_B" in name]
    if adapter and all(before[name].equal(after[name]) for name in adapter):
        raise HealthError(
            f"training stopped at step {step}: no adapter weight has moved; "
            "the learning rate is too small for fp32, or no gradient reaches the adapter"
        )


class CollapseWatch:
    """Watches for a model that predicts one class for everything.

    With imbalanced classes it only warns: rare classes are learned late, and probabilities rank the texts before that.

    Args:
        labels: names of the classes.
        balanced: whether the loss weights the classes already.
    """

    def __init__(self, labels: list[str], balanced: bool) -> None:
        self._labels, self._balanced = labels, balanced
        self._in_a_row = 0

    def resume(self, warnings: list[str]) -> None:
        """Continues the count after evaluations with these warnings, oldest first."""
        self._in_a_row = next((i for i, warning in enumerate(reversed(warnings)) if not warning), len(warnings))

    def check(self, predicted: npt.NDArray[np.int64], y_true: npt.NDArray[np.int64], step: int) -> str:
        """Checks an evaluation, and returns a warning or an empty string.

        Raises:
            HealthError: one class was predicted for everything, twice in a row, late in training, and the classes are
                not imbalanced.
        """
        if len(set(predicted.tolist())) > 1 or len(set(y_true.tolist())) < 2:
            self._in_a_row = 0
            return ""
        self._in_a_row += 1
        found = f"'{self._labels[int(predicted[0])]}' is predicted for every validation text"
        if self._in_a_row >= COLLAPSE_EVALUATIONS and step >= COLLAPSE_STEPS and not imbalanced(y_true):
            raise HealthError(
                f"training stopped at step {step}: {found}, {self._in_a_row} evaluations in a row; "
                f"lower the learning rate{'' if self._balanced else ', set class_weights = balanced'}, "
                "or check the labels"
            )
        return found
