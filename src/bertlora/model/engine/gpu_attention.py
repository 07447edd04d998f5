"""Attention over packed rows on a GPU: torch's variable-length attention, with a backward that can be repeated."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import deterministic

from bertlora.model.engine.packing import Packing

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn: Any = None  # type: ignore[no-redef]


def serves_windows(function: Any) -> bool:
    """Returns whether this version of `varlen_attn` takes a scale and a window; torch 2.10's does not."""
    return function is not None and {"scale", "window_size"} <= inspect.signature(function).parameters.keys()


# Whether a GPU with bf16 runs torch's variable-length attention in half precision. It never waits for the GPU.
HAS_VARLEN = serves_windows(varlen_attn)


def attend_on_gpu(q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, window: int | None) -> Tensor:
    """`attention.attend` without a bias, in half precision; a window only if there is a query for each token."""
    longest, each = packing.longest, len(q) == len(k)
    queries = packing.offsets if each else torch.arange(len(packing) + 1, device=q.device, dtype=torch.int32)
    reach = (-1, -1) if window is None else (window - 1, window - 1)
    most = longest if each else 1
    run = partial(_by_torch, places=(queries, packing.offsets, most, longest), scale=scale, window_size=reach)
    out: Tensor = RepeatableAttention.apply(run, q, k, v)  # type: ignore[no-untyped-call]
    return out


def _by_torch(*inputs: Any, places: Sequence[Any], **how: Any) -> Tensor:
    out: Any = varlen_attn(*inputs, *places, **how)
    result: Tensor = out
    return result


class RepeatableAttention(torch.autograd.Function):
    """torch's attention of q, k and v, with a backward that gives the same bits each time.

    By default its kernel adds up the gradients of queries in any order.
    """

    @staticmethod
    def forward(ctx: Any, run: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        if not any(ctx.needs_input_grad):
            return run(*inputs)
        with torch.enable_grad():
            ctx.inputs = [x.detach().requires_grad_() for x in inputs]
            ctx.out = run(*ctx.inputs)
        out: Tensor = ctx.out.detach()
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs, out = ctx.inputs, ctx.out
        del ctx.inputs, ctx.out
        with _deterministic():
            return None, *torch.autograd.grad(out, inputs, grads)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Inside, torch's operators give the same bits each time. Memory is not filled, which it also does by default."""
    enabled = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = deterministic  # a module with attributes that are set
    filled = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled[0], warn_only=enabled[1])
        settings.fill_uninitialized_memory = filled
