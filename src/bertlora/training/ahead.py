"""Optimiser steps on a GPU that the program does not wait for, and the scale of gradients in fp16.

    the program   prepare and start step 1 | start step 2, read the loss of 1 | start step 3, read the loss of 2 | ...
    the GPU                       step 1 . . . . . . . . . | step 2 . . . . . . . . . . . | step 3 . . . . . . .

A step whose loss or gradient is not finite must change no weight, also if the program learns of it later. So the GPU
itself decides, by a flag that torch's fused AdamW reads.

Small gradients are 0 in fp16. So the loss is multiplied by a scale, and gradients are divided by it: Micikevicius et
al. 2018, "Mixed precision training". A gradient that overflows costs a step and halves the scale.
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bertlora.recipe import Recipe
from bertlora.training.health import check_finite, norm_of
from bertlora.training.optimiser import clip, set_rates

# After this many steps without an overflow the scale is doubled, as in torch's GradScaler.
GROWTH_STEPS = 2000
# Below this scale the gradient itself overflows, whatever the scale.
LEAST_SCALE = 1.0


class Taken:
    """A step that was started on the GPU.

    Args:
        step: its number, from 1.
        rate: the adapter's learning rate.
        rows: its training rows.
        measured: (3,) loss, norm of the gradient and norm of the weights; in fp16 (5,), with `Ahead.scaling`.
    """

    def __init__(self, step: int, rate: float, rows: Sequence[int], measured: Tensor) -> None:
        self.rows, self._step, self._rate = list(rows), step, rate
        self._measured = measured.to("cpu", non_blocking=True)
        self._there: Any = torch.cuda.Event() if measured.is_cuda else None  # type: ignore[no-untyped-call]
        if self._there is not None:
            self._there.record()
        self.scaling: list[float] = []

    def read(self) -> tuple[float, bool]:
        """Waits for the step, and returns its loss and whether it changed the weights; then `scaling` is known.

        Raises:
            HealthError: the loss, a gradient or a new weight is NaN or infinite; in fp16, a gradient at any scale.
        """
        if self._there is not None:
            self._there.synchronize()
        loss, norm, weights, *self.scaling = self._measured.tolist()
        check_finite("loss", loss, self._step, self._rate)
        if not self.scaling or self.scaling[0] < LEAST_SCALE:
            check_finite("gradient", norm, self._step, self._rate)
        check_finite("norm of the adapter's weights", weights, self._step, self._rate)
        return loss, math.isfinite(norm)


class Ahead:
    """Takes the steps of a training on a GPU.

    Args:
        optimiser: what `build_optimiser` returned.
        recipe: the recipe.
        steps: number of steps of the whole training.
        device: the GPU.
        scaling: in fp16, the scale of the loss and how many steps had no overflow since it changed.

    Attributes:
        open: steps that were not read yet, oldest first.
        scale: what the loss must be multiplied by, a scalar; None outside fp16.
    """

    def __init__(
        self,
        optimiser: torch.optim.Optimizer,
        recipe: Recipe,
        steps: int,
        device: torch.device,
        scaling: Sequence[float] | None = None,
    ) -> None:
        self._optimiser, self._recipe, self._steps = optimiser, recipe, steps
        self._failed = torch.zeros((), dtype=torch.bool, device=device)
        self._scaling = None if scaling is None else torch.tensor(scaling, device=device)
        self.open: deque[Taken] = deque()

    @property
    def scale(self) -> Tensor | None:
        """See the class."""
        return None if self._scaling is None else self._scaling[0]

    def descend(self, step: int, loss: Tensor, rows: Sequence[int]) -> None:
        """Starts step `step` (from 0) with the current gradients, and clears them."""
        rate = set_rates(self._optimiser, self._recipe, step, self._steps)
        trained = [p for group in self._optimiser.param_groups for p in group["params"]]
        gradients = _together([p.grad for p in trained if p.grad is not None])
        if self.scale is not None:
            torch._foreach_div_(gradients, self.scale)
        norm = clip(gradients, self._recipe.max_grad_norm or math.inf)
        overflow, bad = ~norm.isfinite(), ~loss.isfinite()
        # Once a step has failed, no later one changes the weights.
        self._failed |= bad | (overflow if self.scale is None else overflow & (self.scale < 2 * LEAST_SCALE))
        self._optimiser.found_inf = (self._failed | overflow).float()  # type: ignore[attr-defined]
        self._optimiser.step()
        measured = torch.stack([loss, norm, norm_of(trained)])
        if self._scaling is not None:
            self._scaling = _next(self._scaling, overflow)
            measured = torch.cat([measured, self._scaling])
        self._optimiser.zero_grad(set_to_none=True)
        self.open.append(Taken(step + 1, rate, rows, measured))


def _together(gradients: list[Tensor]) -> list[Tensor]:
    """Returns one vector if it consists of these gradients, as after a recorded pass; otherwise them."""
    base = gradients[0]._base
    if base is None or not all(g._base is base for g in gradients):
        return gradients
    return [base] if base.numel() == sum(g.numel() for g in gradients) else gradients


def _next(scaling: Tensor, overflow: Tensor) -> Tensor:
    """Returns scale and count after a step, (2,)."""
    scale, good = scaling.unbind()
    good = (good + 1) * ~overflow
    full = good >= GROWTH_STEPS
    return torch.stack([scale * torch.where(overflow, 0.5, 1.0) * torch.where(full, 2.0, 1.0), good * ~full])
