"""Which rows each optimiser step learns from, and what it does with their gradients."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from bertlora.recipe import Recipe
from bertlora.training.health import check_loss
from bertlora.training.optimiser import set_rates

Rows = npt.NDArray[np.int64]


def step_rows(recipe: Recipe, rows: int, done: int = 0) -> Iterator[Rows]:
    """Yields the rows of each step of a training on so many rows, (B,), but for the first `done` steps.

    Each epoch goes through all rows once, in a random order of its own, the same for a seed.
    """

    def steps() -> Iterator[Rows]:
        for epoch in range(recipe.epochs):
            order = np.random.default_rng([recipe.seed, epoch]).permutation(rows)
            for begin in range(0, rows, recipe.rows_per_step):
                yield order[begin : begin + recipe.rows_per_step]

    return itertools.islice(steps(), done, recipe.steps(rows))


def descend(
    optimiser: Any, recipe: Recipe, step: int, steps: int, loss: float, clip: Callable[[list[nn.Parameter], float], Any]
) -> None:
    """Takes step `step` (from 0) of `steps` by the gradients that stand, and clears them.

    Raises:
        HealthError: the loss that they are of is no number.
    """
    check_loss(loss, step + 1, set_rates(optimiser, recipe, step, steps))
    if recipe.max_grad_norm:
        clip([p for group in optimiser.param_groups for p in group["params"]], recipe.max_grad_norm)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
