"""How many optimiser steps a training takes, and which rows each of them learns from."""

import numpy as np
import numpy.typing as npt

from bertlora.recipe import Recipe


def step_size(recipe: Recipe) -> int:
    """Returns the rows of a step: all its micro-batches."""
    return recipe.batch_size * recipe.gradient_accumulation


def steps_per_epoch(recipe: Recipe, rows: int) -> int:
    """Returns the steps of one pass over so many rows; the last may be smaller."""
    return -(-rows // step_size(recipe))


def steps_of(recipe: Recipe, rows: int) -> int:
    """Returns the steps of a whole training on so many rows."""
    steps = recipe.epochs * steps_per_epoch(recipe, rows)
    return min(steps, recipe.max_steps or steps)


def epoch_order(recipe: Recipe, epoch: int, rows: int) -> npt.NDArray[np.int64]:
    """Returns the order of an epoch (from 0), (rows,): a fresh random one each, the same for a seed."""
    return np.random.default_rng([recipe.seed, epoch]).permutation(rows)
