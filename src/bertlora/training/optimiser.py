"""The loss, AdamW with its learning rates, the optimiser steps, and the average of the weights over the last ones."""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bertlora.confidence.probabilities import Array, Labels
from bertlora.data.inputs import Inputs
from bertlora.data.labels import imbalanced, quoted
from bertlora.errors import RecipeError, suggestion
from bertlora.model.engine import row_tokens
from bertlora.model.machine import sent
from bertlora.model.state import load_trained_state, trained_state
from bertlora.recipe import Recipe
from bertlora.training.health import check_finite, norm_of

Rows = npt.NDArray[np.int64]


def for_classes(recipe: Recipe, labels: Labels) -> Recipe:
    """Returns the recipe with loss, class weights and best metric resolved for the labels (N,) of the training split.

    If the smallest class has less than a quarter of the rows of the largest, `auto` is `balanced` and `macro_f1`.
    Accuracy says little there: naming the largest class for every text is almost always right.
    """
    weights, metric = ("balanced", "macro_f1") if imbalanced(labels) else ("none", "accuracy")
    return recipe.replace(
        loss="cross-entropy",
        class_weights=weights if recipe.class_weights == "auto" else recipe.class_weights,
        best_metric=metric if recipe.best_metric == "auto" else recipe.best_metric,
    )


def weights_of_classes(recipe: Recipe, labels: Labels, names: Sequence[str], weights: Array) -> Array | None:
    """Returns the weight of each class in the loss, (K,); None if all have the weight 1.

    With `class_weights = "balanced"` a class has the weight rows / (classes x rows of the class), as in scikit-learn. A
    table gives its classes their weights, and all others the weight 1.

    Args:
        recipe: has `class_weights`; see `for_classes`.
        labels: (N,) labels of the whole training split.
        names: of the K classes.
        weights: (N,) of the rows; a row of weight 2 counts as two.

    Raises:
        RecipeError: the table names a class that is not one of `names`.
    """
    if isinstance(recipe.class_weights, dict):
        if unknown := [name for name in recipe.class_weights if name not in names]:
            raise RecipeError(
                f"class_weights: '{unknown[0]}' is not one of the classes {quoted(names)}"
                f"{suggestion(unknown[0], names)}"
            )
        return np.array([recipe.class_weights.get(name, 1.0) for name in names])
    if recipe.class_weights != "balanced":
        return None
    counts = np.bincount(labels, weights, len(names))
    return np.asarray(weights.sum() / (len(names) * np.where(counts > 0, counts, 1.0)))


class Loss:
    """The loss of a batch as a sum, and the weight by which the sum is divided. So a batch can be computed in parts.

    Classes are weighted by `weights_of_classes`. With `label_smoothing` = s, a label gives s/K of its weight to each of
    K classes: Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision". Both are as in torch.

    Args:
        recipe: has `class_weights` and `label_smoothing`; see `for_classes`.
        labels: (N,) labels of the whole training split.
        names: of the K classes.
        weights: (N,) of the rows.
        device: the device of the logits.
    """

    def __init__(
        self, recipe: Recipe, labels: Labels, names: Sequence[str], weights: Array, device: torch.device
    ) -> None:
        self._device, self._smoothing = device, recipe.label_smoothing
        found = weights_of_classes(recipe, labels, names, weights)
        self.class_weights = None if found is None else torch.tensor(found, dtype=torch.float32, device=device)
        self._by_class = None if found is None else np.asarray(found, dtype=np.float32).astype(np.float64)

    def sum(self, logits: Tensor, labels: Labels, weights: Array) -> Tensor:
        """Returns the weighted cross-entropy, summed, of logits (B, K), labels (B,) and weights of rows (B,)."""
        given = sent(torch.from_numpy(labels), self._device)
        losses = cross_entropy(
            logits.float(), given, weight=self.class_weights, reduction="none", label_smoothing=self._smoothing
        )
        return weighted_sum(losses, weights)

    def weight(self, labels: Labels, weights: Array) -> float:
        """Returns the number by which the sum over these labels, (B,), is divided to give a mean."""
        return float(weights.sum() if self._by_class is None else self._by_class[labels] @ weights)


def weighted_sum(losses: Tensor, weights: Array) -> Tensor:
    """Returns the sum of losses (B,) times weights (B,)."""
    return (losses * sent(torch.from_numpy(weights).to(losses.dtype), losses.device)).sum()


def build_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """Returns AdamW for the trainable parameters.

    LoRA's A learns at `learning_rate`, B at `lora_plus_ratio` times that (Hayou et al. 2024, "LoRA+"), everything else
    at `head_learning_rate`. Biases, norms and other vectors have no weight decay, as in transformers' Trainer.
    """
    head_rate = recipe.head_learning_rate or recipe.learning_rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if "lora_B" in name:
            rate = recipe.learning_rate * recipe.lora_plus_ratio
        else:
            rate = recipe.learning_rate if "lora_" in name else head_rate
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": found, "lr": rate, "peak_lr": rate, "weight_decay": decay}
            for (rate, decay), found in groups.items()
        ],
        fused=True,  # one operator for all tensors, not a dozen for each
    )


def set_rates(optimiser: Any, recipe: Recipe, step: int, steps: int) -> float:
    """Sets the learning rates for step `step` (from 0) of `steps`, and returns the adapter's."""
    factor = rate_factor(recipe, step, steps)
    for group in optimiser.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return recipe.learning_rate * factor


def rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """Returns the fraction of the peak rate at step `step` (from 0) of `steps`: a linear warm-up, then the schedule.

    It equals transformers' schedules of these names. It depends on the step only, so resuming needs no state.
    """
    warm_up = round(recipe.warmup_fraction * steps)
    if step < warm_up:
        return step / warm_up
    if recipe.schedule == "constant":
        return 1.0
    done = (step - warm_up) / max(1, steps - warm_up)
    return max(0.0, 1 - done) if recipe.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def step_rows(recipe: Recipe, rows: int, done: int = 0) -> Iterator[Rows]:
    """Yields the row numbers of each step, (B,), for a training on `rows` rows; the first `done` steps are skipped.

    Each epoch goes through all rows once, in its own random order, which depends on the seed.
    """

    def steps() -> Iterator[Rows]:
        for epoch in range(recipe.epochs):
            order = np.random.default_rng([recipe.seed, epoch]).permutation(rows)
            for begin in range(0, rows, recipe.rows_per_step):
                yield order[begin : begin + recipe.rows_per_step]

    return itertools.islice(steps(), done, recipe.steps(rows))


def micro_batch(recipe: Recipe, inputs: Inputs, packs: bool, device: torch.device) -> tuple[int, int]:
    """Returns the most texts and the most tokens of a micro-batch.

    It takes at most the memory of `batch_size` texts of the longest length. A packed row may have more texts if they
    are shorter, up to all of a step. So a step costs the same, however it is divided into micro-batches.

    Args:
        recipe: the recipe.
        inputs: the training texts.
        packs: whether the model takes packed rows.
        device: the model's.
    """
    longest = max(inputs.template.max_length, int(inputs.lengths.max(initial=0)))
    texts = recipe.rows_per_step if packs else recipe.batch_size
    return texts, min(row_tokens(device), recipe.batch_size * longest)


def descend(optimiser: torch.optim.Optimizer, recipe: Recipe, step: int, steps: int, loss: Tensor) -> float:
    """Takes step `step` (from 0) of `steps` with the current gradients, clears them, and returns the loss.

    Raises:
        HealthError: the loss, a gradient or a new weight is NaN or infinite.
    """
    rate = set_rates(optimiser, recipe, step, steps)
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    norm = clip([p.grad for p in trained if p.grad is not None], recipe.max_grad_norm or math.inf)
    # Each reading waits for a GPU, so both values are read at once.
    value, length = map(float, torch.stack([loss, norm]).tolist())
    check_finite("loss", value, step + 1, rate)
    check_finite("gradient", length, step + 1, rate)
    optimiser.step()
    check_finite("norm of the adapter's weights", float(norm_of(trained)), step + 1, rate)
    optimiser.zero_grad(set_to_none=True)
    return value


def clip(gradients: list[Tensor], most: float) -> Tensor:
    """Scales gradients so that the norm of all together is at most `most`, and returns the norm before, a scalar.

    torch's function converts each tensor's norm on its own, which takes longer than the rest.
    """
    norm = norm_of(gradients)
    torch._foreach_mul_(gradients, (most / (norm + 1e-6)).clamp(max=1.0))
    return norm


class Average:
    """An exponential moving average of a model's trained weights: it depends less on the very last step.

    Averages of weights are from Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging".
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
