"""Dropout by gaps: it draws a fraction of the random numbers that torch draws."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from bertlora.model.engine.changes import forwards, identity


def dropout_mask(like: Tensor, p: float) -> Tensor:
    """Returns a mask shaped like `like`: 0 with probability p for each number, else 1 / (1 - p), so that the mean is 1.

    torch draws one random number for each place, on one core. This draws the gaps between dropped places, which follow
    the geometric distribution: a hundredth as many numbers for p = 0.01.
    """
    count = like.numel()
    mask = like.new_full((count,), 1 / (1 - p))
    # Enough, except one time in a billion.
    drawn = int(count * p + 6 * math.sqrt(count * p) + 10)
    places = torch.empty(drawn, dtype=torch.int64, device=like.device).geometric_(p).cumsum(0) - 1
    mask[places[places < count]] = 0
    return mask.view(like.shape)


@contextmanager
def quick_dropout(model: nn.Module, still: Iterable[nn.Module] = ()) -> Iterator[None]:
    """Inside, the model's dropout layers use `dropout_mask`; those in `still` drop nothing."""
    quiet = set(still)
    layers = [m for m in model.modules() if type(m) is nn.Dropout and m.p > 0]
    with forwards({layer: identity if layer in quiet else partial(_dropped, layer) for layer in layers}):
        yield


def _dropped(layer: nn.Dropout, x: Tensor) -> Tensor:
    return x * dropout_mask(x, layer.p) if layer.training else x
