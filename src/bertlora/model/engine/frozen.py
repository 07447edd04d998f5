"""The frozen linear layer: W x + b and its gradient, with W in the layout that this machine multiplies fastest.

Or with W in 8 bits; then a whole feed-forward can be frozen too.
"""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from bertlora.model.engine.kernels.int8 import Int8Weight, feed_forward, feed_gradient
from bertlora.model.engine.kernels.library import native_int8
from bertlora.model.machine import DTYPES, WORTH_IT, default_device, drawn_factors, has_bf16, product_rates


class FrozenWeight:
    """A frozen weight (out, in) in torch's usual layout."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Returns W x + b, (N, out) for x (N, in), in x's dtype."""
        return nn.functional.linear(x, self.weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    def transposed(self, g: Tensor) -> Tensor:
        """Returns W' g, (N, in) for g (N, out)."""
        return g @ self.weight.to(g.dtype)


class Reordered(FrozenWeight):
    """A bf16 weight in oneDNN's own memory layout; in another layout every product converts it again.

    torch's compiler uses these operations for frozen linear layers. They are not documented. Only this class uses them.
    """

    def __init__(self, weight: Tensor, training: bool) -> None:
        super().__init__(weight)
        self.forward_order = _reordered(weight)
        self.backward_order = _reordered(weight.T.contiguous()) if training else None

    @staticmethod
    def serves(weight: Tensor) -> bool:
        """Returns whether this machine and this torch version support the layout for `weight`."""
        ops = torch.ops.mkldnn
        known = hasattr(ops, "_linear_pointwise") and hasattr(ops, "_reorder_linear_weight")
        return known and weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and has_bf16()

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return _pointwise(x, self.forward_order, bias)

    def transposed(self, g: Tensor) -> Tensor:
        assert self.backward_order is not None, "made without training, so it has no gradient"
        return _pointwise(g, self.backward_order, None)


def _reordered(weight: Tensor) -> Tensor:
    order: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return order


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


class InInt8(FrozenWeight):
    """A weight in 8 bits. Each product rounds its inputs or gradients to 8 bits, row by row, and gives fp32."""

    def __init__(self, weight: Tensor, training: bool) -> None:
        self.forward_order = Int8Weight(weight)
        self.backward_order = Int8Weight(weight.T) if training else None

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return self.forward_order.product(x, bias)

    def transposed(self, g: Tensor) -> Tensor:
        assert self.backward_order is not None, "made without training, so it has no gradient"
        return self.backward_order.product(g, None)


@cache
def int8_pays(other: str) -> bool:
    """Returns whether products in 8 bits are at least 1.5 times as fast as in another precision, natively."""
    if default_device().type != "cpu" or not native_int8():
        return False
    a, b = drawn_factors()
    same = partial(torch.mm, *(x.to(DTYPES[other]) for x in (a, b)))
    rates = product_rates({other: same, "int8": partial(Int8Weight(b.T).product, a, None)})
    return rates["int8"] >= WORTH_IT * rates[other]


# A linear layer in 8 bits, and its bias.
Int8Layer = tuple[InInt8, Tensor | None]


def hold(weight: Tensor, training: bool, int8: bool) -> FrozenWeight:
    """Returns the weight in 8 bits, or in the fastest layout; with `training`, for gradients too."""
    if int8:
        return InInt8(weight.detach(), training)
    return Reordered(weight, training) if Reordered.serves(weight) else FrozenWeight(weight)


def stacked(linears: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Returns the weights (sum of outs, in) and biases of layers, one below the other; None without biases."""
    biases = tuple(linear.bias.detach() for linear in linears if linear.bias is not None)
    return torch.cat(tuple(linear.weight.detach() for linear in linears)), torch.cat(biases) if biases else None


class JointProduct:
    """Layers with the same input, such as query, key and value: one product W x for all.

    The first layer that runs computes all outputs; the others take theirs.
    """

    def __init__(self, members: Sequence[Any], widths: Sequence[int]) -> None:
        self.members, self.widths = list(members), list(widths)
        self._input: Tensor | None = None
        self._outputs: dict[int, Tensor] = {}

    def __call__(self, member: Any, x: Tensor) -> Tensor:
        """Returns this member's output, (..., out) for x (..., in)."""
        if self._input is not x or id(member) not in self._outputs:
            self._input = x
            self._outputs = dict(zip(map(id, self.members), torch.split(self.all(x), self.widths, -1), strict=True))
        y = self._outputs.pop(id(member))
        if not self._outputs:
            self._input = None
        return y

    def all(self, x: Tensor) -> Tensor:
        """Returns all outputs, concatenated, (..., sum of outs) for x (..., in)."""
        raise NotImplementedError


def frozen_product(x: Tensor, frozen: FrozenWeight, bias: Tensor | None) -> Tensor:
    """Returns y = W x + b, (..., out) for x (..., in); neither W nor b gets a gradient."""
    # Views are made here, outside the autograd function, so that the result may be changed in place.
    y: Tensor = FrozenProduct.apply(x.reshape(-1, x.shape[-1]), frozen, bias)  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], -1)


def fed_forward(x: Tensor, up: Int8Layer, down: Int8Layer) -> Tensor:
    """Returns V gelu(W x + b) + c, (..., out) for x (..., in); no weight and no bias gets a gradient."""
    y: Tensor = FedForward.apply(x.reshape(-1, x.shape[-1]), up, down)  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], -1)


class FedForward(torch.autograd.Function):
    """A frozen feed-forward in 8 bits on rows, x (N, in) to y (N, out); it saves u (N, wide), what enters GELU.

    `up` and `down` are its linear layers, each with its bias or None.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Int8Layer, down: Int8Layer) -> Tensor:
        wide, narrow = ((frozen.forward_order, bias) for frozen, bias in (up, down))
        y, u = feed_forward(x, wide, narrow, ctx.needs_input_grad[0])
        ctx.save_for_backward(u)
        ctx.layers = up[0], down[0]
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (u,), (up, down) = ctx.saved_tensors, ctx.layers
        assert up.backward_order is not None, "made without training, so it has no gradient"
        assert down.backward_order is not None
        return feed_gradient(grads[0], u, down.backward_order, up.backward_order), None, None


class FrozenProduct(torch.autograd.Function):
    """`frozen_product` on rows, x (N, in) to y (N, out); it saves no tensor for the backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, frozen: FrozenWeight, bias: Tensor | None) -> Tensor:
        ctx.frozen = frozen
        return frozen.product(x, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.frozen.transposed(grads[0]), None, None
