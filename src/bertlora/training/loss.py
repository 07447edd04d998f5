"""Cross-entropy, each text weighted by its class."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bertlora.recipe import Recipe

Labels = npt.NDArray[np.int64]


class Loss:
    """The loss of a batch as a sum and the weight to divide it by, so that a batch may be taken in parts.

    With `class_weights = "balanced"` a class weighs rows / (classes x rows of the class), as in scikit-learn.

    Args:
        recipe: has `class_weights`.
        labels: (N,) of the whole training split.
        classes: K.
        device: where the logits are.
    """

    def __init__(self, recipe: Recipe, labels: Labels, classes: int, device: torch.device) -> None:
        self._device = device
        self.class_weights: Tensor | None = None
        if recipe.class_weights == "balanced":
            counts = np.maximum(np.bincount(labels, minlength=classes), 1)
            self.class_weights = torch.tensor(len(labels) / (classes * counts), dtype=torch.float32, device=device)

    def sum(self, logits: Tensor, labels: Labels) -> Tensor:
        """Returns the weighted cross-entropy, summed, of logits (B, K) and labels (B,)."""
        given = torch.from_numpy(labels).to(self._device)
        return cross_entropy(logits.float(), given, weight=self.class_weights, reduction="sum")

    def weight(self, labels: Labels) -> float:
        """Returns what the sum over these labels, (B,), is divided by to be a mean."""
        if self.class_weights is None:
            return float(len(labels))
        return float(self.class_weights[torch.from_numpy(labels)].sum())
