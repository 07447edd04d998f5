"""Dropout drawn by its gaps, a fraction of what torch draws."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from bertlora.model.engine.forwards import as_it_came, forwards


def dropout_mask(like: Tensor, p: float) -> Tensor:
    """Returns 0 with probability p, number by number, and elsewhere what makes the mean 1.

    torch draws a number for each place, on one core. Here the gaps between the places that are dropped are drawn, which
    follow the geometric distribution: a hundredth as many for a rate of 0.01.
    """
    count = like.numel()
    mask = like.new_full((count,), 1 / (1 - p))
    # More than will be needed, but for one time in a billion.
    drawn = int(count * p + 6 * math.sqrt(count * p) + 10)
    places = torch.empty(drawn, dtype=torch.int64, device=like.device).geometric_(p).cumsum(0) - 1
    mask[places[places < count]] = 0
    return mask.view(like.shape)


@contextmanager
def quick_dropout(model: nn.Module, still: Iterable[nn.Module] = ()) -> Iterator[None]:
    """Inside, the model's dropout layers drop what `dropout_mask` says, and those among `still` drop nothing."""
    quiet = set(still)
    layers = [m for m in model.modules() if type(m) is nn.Dropout and m.p > 0]
    with forwards({layer: as_it_came if layer in quiet else partial(_dropped, layer) for layer in layers}):
        yield


def _dropped(layer: nn.Dropout, x: Tensor) -> Tensor:
    return x * dropout_mask(x, layer.p) if layer.training else x
