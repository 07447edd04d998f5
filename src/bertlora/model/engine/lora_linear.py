"""The LoRA linear layer: a frozen product plus a low-rank update, in one autograd function.

    y = W x + b + s B A dropout(x)      W (out, in) and b (out,) frozen, A (R, in), B (out, R), s = alpha / R

After Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models". B starts at 0, so training starts from the
base model's output.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from bertlora.errors import InputError
from bertlora.model.engine.changes import drop_rate, dropout_mask
from bertlora.model.engine.frozen import FrozenWeight, JointProduct, stacked
from bertlora.model.engine.kernels.low_rank import Pair, add_updates, trains, update_gradients


def lora_product(
    x: Tensor, frozen: FrozenWeight, bias: Tensor | None, updates: Sequence[Pair], mask: Tensor | None
) -> Tensor:
    """Returns y = W x + b + s B A (m ⊙ x), (..., out).

    Args:
        x: (..., in) input.
        frozen: W (out, in); it gets no gradient.
        bias: b (out,), or None.
        updates: A (R, in), B and s of each of the layers whose outputs stand side by side in y; mostly of one.
        mask: m, shaped like x, or None for no dropout.
    """
    flat = x.reshape(-1, x.shape[-1])  # (N, in)
    dropping = None if mask is None else mask.reshape(flat.shape)
    scales = tuple(scale for *_, scale in updates)
    matrices = [matrix for a, b, _ in updates for matrix in (a, b)]
    # Views are made here: a view made inside an autograd function must not be changed in place, which DeBERTa does.
    y: Tensor = LoraProduct.apply(flat, frozen, bias, dropping, scales, *matrices)  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], -1)


class LoraProduct(torch.autograd.Function):
    """`lora_product` on rows, with a hand-written backward: x (N, in), m (N, in) or None, y (N, out).

    The forward keeps only x, m and h = A (m ⊙ x), of all layers side by side. The gradients of A and B have their own
    dtype.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        frozen: FrozenWeight,
        bias: Tensor | None,
        mask: Tensor | None,
        scales: tuple[float, ...],
        *matrices: Tensor,
    ) -> Tensor:
        updates = _updates(matrices, scales)
        y, native = frozen.product(x, bias), trains(x, updates)
        h = (add_updates if native else _add_updates)(x, mask, y, updates)
        ctx.save_for_backward(x, mask, h, *matrices)
        ctx.frozen, ctx.scales, ctx.native = frozen, scales, native
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, mask, h, *matrices = ctx.saved_tensors
        g, updates = grads[0].to(x.dtype), _updates(matrices, ctx.scales)
        needs_x, _, needs_bias, *_ = ctx.needs_input_grad
        g_x = ctx.frozen.transposed(g) if needs_x else None
        gradients_of = update_gradients if ctx.native else _update_gradients
        g_matrices = [found for pair in gradients_of(g, x, mask, h, g_x, updates) for found in pair]
        return g_x, None, g.sum(0) if needs_bias else None, None, None, *g_matrices


def _updates(matrices: Sequence[Tensor], scales: Sequence[float]) -> list[Pair]:
    return list(zip(matrices[::2], matrices[1::2], scales, strict=True))


def _add_updates(x: Tensor, mask: Tensor | None, y: Tensor, updates: Sequence[Pair]) -> Tensor:
    """`add_updates` by torch's operators, on any device. A and B are converted to x's dtype."""
    downs = [a for a, _, _ in updates]
    h = (x if mask is None else x * mask) @ _stacked(downs, x.dtype).T  # (N, R)
    for low, out, (_, up, scale) in zip(_own(h, downs), _own(y, [b for _, b, _ in updates]), updates, strict=True):
        out.addmm_(low, up.to(x.dtype).T, alpha=scale)
    return h


def _update_gradients(
    g: Tensor, x: Tensor, mask: Tensor | None, h: Tensor, g_x: Tensor | None, updates: Sequence[Pair]
) -> list[tuple[Tensor, Tensor]]:
    """`update_gradients` by torch's operators, on any device."""
    downs, ups = [a for a, _, _ in updates], [b for _, b, _ in updates]
    g_h, g_ups = torch.empty_like(h), list[Tensor]()  # (N, R)
    own = zip(_own(h, downs), _own(g, ups), _own(g_h, downs), updates, strict=True)
    for low, out, g_low, (_, up, scale) in own:
        torch.mul(out @ up.to(x.dtype), scale, out=g_low)
        # h' g, transposed, takes less than half the time of g' h.
        g_ups.append((low.T @ out).to(up.dtype).mul_(scale).T)
    g_down = (g_h.T @ (x if mask is None else x * mask)).to(downs[0].dtype)
    if g_x is not None:
        if mask is None:
            g_x.addmm_(g_h, _stacked(downs, x.dtype))
        else:
            g_x += (g_h @ _stacked(downs, x.dtype)) * mask
    return list(zip(torch.split(g_down, [len(down) for down in downs]), g_ups, strict=True))


def _stacked(downs: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Returns A of all layers, (R of all, in)."""
    return (downs[0] if len(downs) == 1 else torch.cat(tuple(downs))).to(dtype)


def _own(x: Tensor, matrices: Sequence[Tensor]) -> Sequence[Tensor]:
    """Returns the columns of x that belong to each layer, by the rows of its A or B."""
    return (x,) if len(matrices) == 1 else torch.split(x, [len(matrix) for matrix in matrices], 1)


class LoraLinear(nn.Module, LoraLayer):  # type: ignore[misc]  # PEFT's class counts as Any
    """A frozen linear layer with one low-rank update; PEFT's injection makes it.

    PEFT's `LoraLayer` holds the parameters under PEFT's own names, so PEFT saves and loads the adapter. `lora_product`
    computes the output. The class serves plain LoRA, rsLoRA and PiSSA, which differ only in scale and initial values.
    """

    # `LoraLayer` sets these up. `lora_A`, `lora_B`, `lora_dropout` and `scaling` map adapter names to values.
    base_layer: nn.Linear
    lora_A: Any  # noqa: N815
    lora_B: Any  # noqa: N815
    lora_dropout: Any
    disable_adapters: bool
    scaling: dict[str, float]
    active_adapters: list[str]
    merged: bool
    merged_adapters: list[str]
    # Set only during an execution.
    joint: "JointLinears | None" = None
    frozen: FrozenWeight | None = None

    def __init__(
        self, base_layer: nn.Linear, adapter_name: str, config: LoraConfig, r: int, lora_alpha: float, **kwargs: Any
    ) -> None:
        super().__init__()
        LoraLayer.__init__(self, base_layer, **kwargs)
        self.fan_in_fan_out = False
        self._active_adapter = adapter_name
        LoraLayer.update_layer(self, adapter_name, r, lora_alpha=lora_alpha, config=config, **kwargs)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Returns the layer's output, (..., out) for x (..., in).

        Raises:
            InputError: PEFT's `adapter_names` asks for an adapter per text.
        """
        _refuse_adapter_names(kwargs)
        name = self.active()
        if self.disable_adapters and self.merged:
            self.unmerge()
        if name is None:
            y: Tensor = self.base_layer(x)
            return y
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        with torch.autocast(x.device.type, enabled=False):
            if self.joint is not None:
                return self.joint(self, x)
            base, frozen = self.base_layer, self.frozen or FrozenWeight(self.base_layer.weight)
            return lora_product(x, frozen, base.bias, [self.update()], self.dropout_mask(x))

    def register_forward_pre_hook(self, hook: Any, **kwargs: Any) -> Any:
        """Registers a hook, but not the one by which PEFT passes `adapter_names`.

        PEFT does not remove that hook if the forward fails. Refused in the forward, it would refuse every later batch.
        """
        _refuse_adapter_names(getattr(hook, "keywords", {}))
        return super().register_forward_pre_hook(hook, **kwargs)

    def dropout_mask(self, x: Tensor) -> Tensor | None:
        """Returns the dropout mask of A's input, shaped like x, or None if there is no dropout."""
        p = self.drop_rate()
        return dropout_mask(x, p) if p > 0 else None

    def update(self) -> Pair:
        """Returns the active adapter's update; one must be active."""
        (name,) = filter(None, [self.active()])
        return self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name]

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Returns s B A, (out, in)."""
        product: Tensor = self.lora_B[adapter].weight @ self.lora_A[adapter].weight
        return self.scaling[adapter] * product

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Adds the active update to the frozen weight."""
        name = self.active()
        if name is not None:
            self.base_layer.weight.data += self.get_delta_weight(name).to(self.base_layer.weight.dtype)
            self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Subtracts merged updates from the frozen weight."""
        while self.merged_adapters:
            delta = self.get_delta_weight(self.merged_adapters.pop())
            self.base_layer.weight.data -= delta.to(self.base_layer.weight.dtype)

    def drop_rate(self) -> float:
        """Returns the dropout probability of the active adapter; 0 outside training."""
        name = self.active()
        dropout = None if name is None else self.lora_dropout[name]
        return drop_rate(dropout) if isinstance(dropout, nn.Dropout) else 0.0

    def active(self) -> str | None:
        """Returns the adapter to add in the forward pass; None if it is off, merged, or not in this layer."""
        if self.disable_adapters or self.merged:
            return None
        names = [name for name in self.active_adapters if name in self.lora_A]
        return names[0] if names else None


def _refuse_adapter_names(arguments: dict[str, Any]) -> None:
    if arguments.get("adapter_names") is not None:
        raise InputError(
            "adapter_names: bertlora runs one adapter for all texts of a batch; choose it with set_adapter, or "
            "load the adapters with PEFT, without bertlora"
        )


class JointLinears(JointProduct):
    """Adapted layers with the same input: one product W x and one A x for all. Weights and biases must be frozen."""

    def __init__(self, members: Sequence[LoraLinear], hold: Callable[[Tensor], FrozenWeight]) -> None:
        super().__init__(members, [m.base_layer.out_features for m in members])
        weight, self.bias = stacked([m.base_layer for m in members])
        self.frozen = hold(weight)

    def all(self, x: Tensor) -> Tensor:
        """Returns all outputs, with one dropout mask for the shared input."""
        updates = [member.update() for member in self.members]
        return lora_product(x, self.frozen, self.bias, updates, self.members[0].dropout_mask(x))


def joinable(members: Sequence[nn.Module]) -> bool:
    """Returns whether `JointLinears` can serve these layers."""
    adapted = [m for m in members if isinstance(m, LoraLinear) and m.active() is not None]
    frozen = all(not p.requires_grad for m in adapted for p in m.base_layer.parameters())
    alike = len({(m.base_layer.in_features, m.base_layer.bias is None) for m in adapted}) == 1
    return len(adapted) == len(members) and frozen and alike
