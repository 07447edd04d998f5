"""LoRA: low-rank updates beside frozen linear layers, in PEFT's format.

Before                                   After `add_adapter`
    classifier                               PeftModel
      encoder (from transformers)              encoder
        layer.0.attention.self.query             ...query = LoraLinear(base_layer=Linear, lora_A, lora_B)
        layer.0.attention.self.key               ...key, untouched and frozen
      classifier                               classifier = ModulesToSaveWrapper(original, trained copy)

    y = W x + b + s B A dropout(x)      W (out, in) and b (out,) frozen, A (R, in), B (out, R), s = alpha / R

after Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models". B starts at 0, so that training starts from
the base. PEFT owns injection, format and variants; the linear layer itself is ours (`LoraLinear`).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from bertlora.model.base import Base, quiet
from bertlora.model.build import new_modules
from bertlora.model.roles import encoder_linears, matching, target_modules
from bertlora.recipe import Recipe

ADAPTER = "default"


class LoraProduct(torch.autograd.Function):
    """y = W x + b + s B A (m ⊙ x), with the backward written out.

    Of the forward only x, the mask and h = A (m ⊙ x) are kept; the frozen W gets no gradient. Shapes: x (..., in),
    W (out, in), b (out,) or None, A (R, in), B (out, R), m (..., in) or None, y (..., out). W, A and B are taken in
    x's dtype; the gradients of A and B come back in their own.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scaling: float,
        mask: Tensor | None,
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])  # (N, in)
        dropped = flat if mask is None else flat * mask.reshape(flat.shape)
        down = dropped @ a.to(x.dtype).T  # (N, R)
        y = torch.nn.functional.linear(flat, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
        y.addmm_(down, b.to(x.dtype).T, alpha=scaling)
        ctx.save_for_backward(flat, down, weight, a, b, mask)
        ctx.scaling, ctx.shape = scaling, x.shape
        return y.reshape(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        flat, down, weight, a, b, mask = ctx.saved_tensors
        needs_x, _, needs_bias, needs_a, needs_b = ctx.needs_input_grad[:5]
        g = grads[0].reshape(-1, grads[0].shape[-1]).to(flat.dtype)  # (N, out)
        dropping = None if mask is None else mask.reshape(flat.shape)
        g_down = (g @ b.to(g.dtype)).mul_(ctx.scaling)  # (N, R)
        g_x = g_a = g_b = g_bias = None
        if needs_b:
            g_b = (g.T @ down).to(b.dtype).mul_(ctx.scaling)
        if needs_a:
            g_a = (g_down.T @ (flat if dropping is None else flat * dropping)).to(a.dtype)
        if needs_bias:
            g_bias = g.sum(0)
        if needs_x:
            g_x = g @ weight.to(g.dtype)
            if dropping is None:
                g_x.addmm_(g_down, a.to(g.dtype))
            else:
                g_x += (g_down @ a.to(g.dtype)) * dropping
            g_x = g_x.reshape(ctx.shape)
        return g_x, None, g_bias, g_a, g_b, None, None


class LoraLinear(nn.Module, LoraLayer):  # type: ignore[misc]  # PEFT's class counts as Any
    """A frozen linear layer with one low-rank update, as PEFT's injection makes it.

    PEFT's `LoraLayer` keeps the parameters under PEFT's own names, so that adapters are saved and loaded by PEFT; the
    arithmetic is `LoraProduct`. Serves plain LoRA, rsLoRA and PiSSA, which differ in scale and start alone.
    """

    # What `LoraLayer` sets up, each a table by adapter name but for the first and the last.
    base_layer: nn.Linear
    lora_A: Any  # noqa: N815
    lora_B: Any  # noqa: N815
    lora_dropout: Any
    disable_adapters: bool
    scaling: dict[str, float]
    active_adapters: list[str]
    merged: bool
    merged_adapters: list[str]

    def __init__(
        self, base_layer: nn.Linear, adapter_name: str, config: LoraConfig, r: int, lora_alpha: float, **kwargs: Any
    ) -> None:
        super().__init__()
        LoraLayer.__init__(self, base_layer, **kwargs)
        self.fan_in_fan_out = False
        self._active_adapter = adapter_name
        LoraLayer.update_layer(self, adapter_name, r, lora_alpha=lora_alpha, config=config, **kwargs)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Returns the layer's output, (..., out) for x (..., in)."""
        name = self._active()
        if self.disable_adapters and self.merged:
            self.unmerge()
        if name is None:
            y: Tensor = self.base_layer(x)
            return y
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        dropout = self.lora_dropout[name]
        mask = None
        if self.training and isinstance(dropout, nn.Dropout) and dropout.p > 0:
            keep = 1 - dropout.p
            mask = torch.empty_like(x).bernoulli_(keep).div_(keep)
        with torch.autocast(x.device.type, enabled=False):
            base, a, b = self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight
            y = LoraProduct.apply(x, base.weight, base.bias, a, b, self.scaling[name], mask)  # type: ignore[no-untyped-call]
            return y

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Returns s B A, (out, in)."""
        product: Tensor = self.lora_B[adapter].weight @ self.lora_A[adapter].weight
        return self.scaling[adapter] * product

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Adds the active update to the frozen weight."""
        name = self._active()
        if name is not None:
            self.base_layer.weight.data += self.get_delta_weight(name).to(self.base_layer.weight.dtype)
            self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Takes merged updates out of the frozen weight again."""
        while self.merged_adapters:
            delta = self.get_delta_weight(self.merged_adapters.pop())
            self.base_layer.weight.data -= delta.to(self.base_layer.weight.dtype)

    def _active(self) -> str | None:
        """Returns the one adapter to add in the forward pass, or None: switched off, merged, or not of this layer."""
        if self.disable_adapters or self.merged:
            return None
        names = [name for name in self.active_adapters if name in self.lora_A]
        return names[0] if names else None


def lora_config(recipe: Recipe, base: Base, model: PreTrainedModel) -> LoraConfig:
    """Returns PEFT's config for `recipe` on this model, every target spelled out by its full name.

    Raises:
        RecipeError: a target, or a name in a pattern, matches no layer.
    """
    whole = new_modules(base, model)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.lora_dropout,
        bias=recipe.bias,
        target_modules=target_modules(model, recipe.targets, whole, recipe.adapt_last_layers),
        rank_pattern=_pattern(model, whole, recipe.rank_pattern),
        alpha_pattern=_pattern(model, whole, recipe.alpha_pattern),
        modules_to_save=[name for name in whole if name not in ("classifier", "score")],
        use_rslora=recipe.variant == "rslora",
        use_dora=recipe.variant == "dora",
        init_lora_weights="pissa" if recipe.variant == "pissa" else True,
        base_model_name_or_path=base.id,
        revision=base.revision or None,
    )
    use_own_linear(config)
    return config


def use_own_linear(config: LoraConfig) -> None:
    """Puts `LoraLinear` in place of PEFT's linear layer where it serves; no other place knows this door."""
    if not (config.use_dora or config.lora_bias):
        config._register_custom_module({nn.Linear: LoraLinear})


def add_adapter(recipe: Recipe, base: Base, model: PreTrainedModel, counting: bool = False) -> PeftModel:
    """Returns `model` with a fresh adapter drawn from the recipe's seed; only adapter and new modules are trainable.

    Args:
        recipe: rank, alpha, targets, variant and the rest.
        base: where the model came from.
        model: the sequence classifier; it is changed in place.
        counting: leave the adapter on the meta device, for a model without weights.
    """
    torch.manual_seed(recipe.seed)
    with quiet():
        return get_peft_model(model, lora_config(recipe, base, model), low_cpu_mem_usage=counting)


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Returns a copy of every trainable tensor by name, on the CPU."""
    return {n: p.detach().to("cpu", copy=True) for n, p in model.named_parameters() if p.requires_grad}


def load_trained_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Puts tensors from `trained_state` back."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in state.items():
            parameters[name].copy_(value)


def lora_parameters(model: nn.Module) -> int:
    """Returns the number of the adapter's own parameters, the head left out."""
    return sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)


@contextmanager
def adapter_off(model: PeftModel) -> Iterator[None]:
    """Inside, the model is the base with its untrained head."""
    with ExitStack() as stack:
        with quiet():  # PEFT warns that trained biases stay; `base_alone` sees to them
            stack.enter_context(model.disable_adapter())
        yield


def _pattern(model: PreTrainedModel, whole: Sequence[str], pattern: dict[str, Any]) -> dict[str, Any]:
    """Returns a pattern by full module names; the later entry wins where two match one module."""
    linears = encoder_linears(model, whole)
    result: dict[str, Any] = {}
    for target, value in pattern.items():
        target_modules(model, [target], whole)
        result.update(dict.fromkeys(matching(model, target, linears), value))
    return result
