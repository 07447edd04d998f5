"""The average of the trained weights over the last steps. It depends less on the very last step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bertlora.model.state import load_trained_state, trained_state
from bertlora.recipe import Recipe


class Average:
    """An exponential moving average of a model's trained weights (Polyak and Juditsky 1992).

    The window is the fraction `average_weights` of all steps. Until it is full, all steps count equally. With 0 only
    the last step counts: the average is the current weights.

    Args:
        model: its trainable parameters are averaged.
        recipe: has `average_weights`.
        steps: number of steps of the whole training.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, steps: int) -> None:
        self._model, self._window = model, max(1.0, recipe.average_weights * steps)
        self._steps = 0
        self._names, self._weights = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True)
        self._values = [p.detach().clone() for p in self._weights]

    def add(self) -> None:
        """Adds the current weights, after a step."""
        self._steps += 1
        with torch.no_grad():
            torch._foreach_lerp_(self._values, self._weights, max(1 / self._steps, 1 / self._window))

    def state(self) -> dict[str, Tensor]:
        """Returns a copy of the averages by name, on the CPU, like `trained_state`."""
        return {n: v.to("cpu", copy=True) for n, v in zip(self._names, self._values, strict=True)}

    def resume(self, state: dict[str, Tensor], steps: int) -> None:
        """Continues from the averages over the first `steps`."""
        self._steps = steps
        for name, value in zip(self._names, self._values, strict=True):
            value.copy_(state[name])

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside, the averages are the model's weights."""
        weights = trained_state(self._model)
        load_trained_state(self._model, self.state())
        try:
            yield
        finally:
            load_trained_state(self._model, weights)
