"""LoRA in a training on a GPU, in half precision: one product with the updated weight, instead of three.

    before each pass    V = W + B (s A)         all layers of one shape at once
    forward             y = V x + b
    backward            g_x = V' g      g_B = g (s A x)'      g_A = s (B' g) x'

So the small products run in the backward only. V is rounded as a frozen weight is; A, B and their gradients are not.
The updates must have no dropout. Letters: R rank, L layers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from bertlora.model.engine.changes import forwards
from bertlora.model.engine.frozen import JointProduct
from bertlora.model.engine.layers import encoder_layers
from bertlora.model.engine.lora_linear import LoraLinear


@contextmanager
def merging(model: Any) -> Iterator[Callable[[], None] | None]:
    """Inside, adapted layers that are held frozen run one product; see `weights.frozen`.

    Yields what must be called before each pass; None if an update has dropout, and everything stays as it is.
    """
    layers = [m for m in encoder_layers(model).modules() if isinstance(m, LoraLinear) and (m.joint or m.frozen)]
    if not layers or any(_drops(m) for layer in layers for m in layer.lora_dropout.values()):
        yield None
        return
    joints = dict.fromkeys(layer.joint for layer in layers if layer.joint)
    products = [UpdatedProduct(joint.members, joint.frozen.weight, joint.bias) for joint in joints]
    for layer in layers:
        if layer.frozen is not None:
            products.append(UpdatedProduct([layer], layer.frozen.weight, layer.base_layer.bias))
    alike: dict[Any, list[UpdatedProduct]] = {}
    for product in products:
        alike.setdefault((product.weight.shape, product.ranks, tuple(product.widths)), []).append(product)
    stacks = [_Stack(found) for found in alike.values()]

    def refresh() -> None:
        for stack in stacks:
            stack.refresh()

    # A layer on its own has nothing to split: that would copy its gradient.
    runs = {m: partial(p, m) if len(p.members) > 1 else p.all for p in products for m in p.members}
    with forwards(runs):
        yield refresh


def _drops(module: nn.Module) -> bool:
    return isinstance(module, nn.Dropout) and module.p > 0


class UpdatedProduct(JointProduct):
    """Adapted layers with the same input, mostly one. A `_Stack` has its tensors.

    Attributes:
        weight: (out, in) W of all layers, one below the other.
        ranks: the rank of each layer.
        scales: (R of all, 1) the scale of each row of A.
        updated: (out, in) V.
        down: (R of all, in) s A.
        up: (out, R of all) B of each layer in its own rows and columns.
    """

    updated: Tensor
    down: Tensor
    up: Tensor

    def __init__(self, members: Sequence[LoraLinear], weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(members, [m.base_layer.out_features for m in members])
        self.weight, self.bias = weight.detach(), bias
        updates = [member.update() for member in members]
        self.matrices = [matrix for a, b, _ in updates for matrix in (a, b)]
        self.ranks = tuple(len(a) for a, _, _ in updates)
        scales = [scale for a, _, scale in updates for _ in range(len(a))]
        self.scales = torch.tensor(scales, device=weight.device)[:, None]

    def blocks(self) -> list[tuple[slice, slice]]:
        """Returns the rows of `down` and the rows of `up` that belong to each layer."""
        by_rank, by_width = (pairwise((0, *accumulate(sizes))) for sizes in (self.ranks, self.widths))
        return [(slice(*low), slice(*out)) for low, out in zip(by_rank, by_width, strict=True)]

    def all(self, x: Tensor) -> Tensor:
        """Returns all outputs, (..., sum of outs) for x (..., in)."""
        # The view is made here: see `lora_linear.lora_product`.
        y: Tensor = _Updated.apply(x.reshape(-1, x.shape[-1]), self, *self.matrices)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], -1)


class _Stack:
    """The tensors of L products of one shape; one batched product updates all of them."""

    def __init__(self, products: Sequence[UpdatedProduct]) -> None:
        self._products, first = products, products[0]
        self._weights = torch.stack([product.weight for product in products])  # (L, out, in)
        self._scales = torch.stack([product.scales for product in products])  # (L, R, 1)
        layers, out, width = self._weights.shape
        self._updated, rank = torch.empty_like(self._weights), sum(first.ranks)
        self._down, self._up = (self._weights.new_zeros(layers, *shape) for shape in ((rank, width), (out, rank)))
        for product, updated, down, up in zip(products, self._updated, self._down, self._up, strict=True):
            product.updated, product.down, product.up = updated, down, up

    def refresh(self) -> None:
        """Computes V from A and B as they are now."""
        with torch.no_grad():
            for member, (low, out) in enumerate(self._products[0].blocks()):
                a, b = (torch.stack([p.matrices[2 * member + i] for p in self._products]) for i in (0, 1))
                self._down[:, low] = a * self._scales[:, low]
                self._up[:, out, low] = b
            torch.baddbmm(self._weights, self._up, self._down, out=self._updated)


class _Updated(torch.autograd.Function):
    """`UpdatedProduct` on rows: x (N, in) to y (N, out). It saves x; A and B get gradients of their own dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, product: UpdatedProduct, *matrices: nn.Parameter) -> Tensor:
        ctx.save_for_backward(x)
        ctx.product = product
        return nn.functional.linear(x, product.updated, product.bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x,), product, g = ctx.saved_tensors, ctx.product, grads[0]
        g_x = g @ product.updated if ctx.needs_input_grad[0] else None
        g_down = ((g @ product.up).T @ x) * product.scales  # (R, in) in fp32, as the scales are
        g_up = ((x @ product.down.T).T @ g).float()  # (R, out)
        found = [part for low, out in product.blocks() for part in (g_down[low], g_up[low, out].T)]
        return g_x, None, *found
