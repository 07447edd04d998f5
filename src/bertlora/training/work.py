"""How much a training does, counted before it runs: the figures that `train` reports of its history."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertlora.recipe import Recipe
from bertlora.training.optimiser import step_rows


@dataclass(frozen=True)
class Work:
    """What a training does. Early stopping, which nobody can foresee, may end it sooner.

    Attributes:
        steps: optimiser steps.
        epochs: passes over the training rows; a fraction if `max_steps` ends the last one.
        examples: texts that it trains on, those of all epochs together.
        tokens: their tokens, as the model reads them.
        evaluations: how often it evaluates.
    """

    steps: int
    epochs: float
    examples: int
    tokens: int
    evaluations: int

    @classmethod
    def of(cls, recipe: Recipe, lengths: npt.NDArray[np.int64]) -> "Work":
        """Counts the work of a recipe on training texts of these lengths in tokens, (N,)."""
        rows, an_epoch = len(lengths), recipe.steps_per_epoch(len(lengths))
        steps = recipe.steps(rows)
        whole = steps // an_epoch
        rest = list(step_rows(recipe, rows, done=whole * an_epoch))
        return cls(
            steps=steps,
            epochs=round(steps / an_epoch, 4),
            examples=whole * rows + sum(len(found) for found in rest),
            tokens=whole * int(lengths.sum()) + sum(int(lengths[found].sum()) for found in rest),
            evaluations=-(-steps // (recipe.evaluate_every_steps or an_epoch)),
        )

    def figures(self) -> dict[str, Any]:
        """Returns the counts by name."""
        return dict(vars(self))
