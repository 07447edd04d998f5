"""The frozen linear layer: W x + b and its gradient, with W held as this machine multiplies fastest."""

from typing import Any

import torch
from torch import Tensor, nn


class FrozenWeight:
    """A frozen weight (out, in), as it is."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Returns W x + b, (N, out) for x (N, in), in x's dtype."""
        return nn.functional.linear(x, self.weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    def transposed(self, g: Tensor) -> Tensor:
        """Returns W' g, (N, in) for g (N, out)."""
        return g @ self.weight.to(g.dtype)


class Reordered(FrozenWeight):
    """A bf16 weight in the order in which oneDNN multiplies: otherwise every product puts it in that order again.

    These are the operations into which torch's own compiler lowers frozen linear layers. They are not documented, and
    this class alone knows them.
    """

    def __init__(self, weight: Tensor, training: bool) -> None:
        super().__init__(weight)
        self.forward_order = _reordered(weight)
        self.backward_order = _reordered(weight.T.contiguous()) if training else None

    @staticmethod
    def serves(weight: Tensor) -> bool:
        """Returns whether this machine and this torch have it."""
        ops = torch.ops.mkldnn
        known = hasattr(ops, "_linear_pointwise") and hasattr(ops, "_reorder_linear_weight")
        return known and weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and _has_bf16()

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return _pointwise(x, self.forward_order, bias)

    def transposed(self, g: Tensor) -> Tensor:
        assert self.backward_order is not None, "no gradient was asked for"
        return _pointwise(g, self.backward_order, None)


def _reordered(weight: Tensor) -> Tensor:
    order: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return order


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


def _has_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class FrozenProduct(torch.autograd.Function):
    """y = W x + b with nothing saved: neither W nor b learns."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, frozen: FrozenWeight, bias: Tensor | None) -> Tensor:
        ctx.frozen, ctx.shape = frozen, x.shape
        return frozen.product(x.reshape(-1, x.shape[-1]), bias).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        g = grads[0].reshape(-1, grads[0].shape[-1])
        return ctx.frozen.transposed(g).view(ctx.shape), None, None
