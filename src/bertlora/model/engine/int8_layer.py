"""A whole layer of BERT in 8 bits: one autograd function, with one native call in each direction.

Only attention mixes tokens. So a block of tokens goes through all that follows it, with LoRA's updates, in the cache. A
layer that is not served runs module by module.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, autograd, nn
from transformers.activations import GELUActivation

from bertlora.model.engine.changes import drop_rate, dropout_mask, unwrapped
from bertlora.model.engine.frozen import stacked
from bertlora.model.engine.kernels.int8 import Int8Weight
from bertlora.model.engine.kernels.layer import Adapted, Layer, Norm, Pass, Spare
from bertlora.model.engine.kernels.library import native_int8
from bertlora.model.engine.layers import encoder_layers
from bertlora.model.engine.lora_linear import LoraLinear
from bertlora.model.engine.packing import Packing
from bertlora.model.engine.weights import is_frozen
from bertlora.model.machine import page_out
from bertlora.model.roles import layer_linears

# What follows the output projection of attention, and the feed-forward: norms, and dropout if there is one.
_BERT = ("attention.output.LayerNorm", "output.LayerNorm"), ("attention.output.dropout", "output.dropout")
_DISTILBERT = ("sa_layer_norm", "output_layer_norm"), (None, "ffn.dropout")
_PARTS = dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "data2vec-text", "electra", "ernie"), _BERT) | {
    "distilbert": _DISTILBERT
}


def whole_layers(model: Any, training: bool) -> dict[nn.Module, "Int8Layer"]:
    """Returns the forward of each layer that is served, with its weights in 8 bits.

    Args:
        model: the classifier, with or without an adapter; updates that are merged or switched off are left out.
        training: gradients are wanted.
    """
    config = unwrapped(model).config
    if config.model_type not in _PARTS or not native_int8():
        return {}
    found, parts, spare = dict[nn.Module, Int8Layer](), _PARTS[config.model_type], Spare()
    for layer in dict.fromkeys(encoder_layers(model)):
        linears = {role: _Linear(module) for role, module in layer_linears(config.model_type, layer).items()}
        norms, drops = ([path and layer.get_submodule(path) for path in paths] for paths in parts)
        if all(own.served for own in linears.values()) and _plain(layer, norms, drops, training):
            found[layer] = Int8Layer(linears, norms, drops, config.num_attention_heads, training, spare)
    return found


def _plain(layer: nn.Module, norms: Sequence[Any], drops: Sequence[Any], training: bool) -> bool:
    """Returns whether nothing but LoRA is trained, nothing else drops, and the activation is GELU."""
    adapted = [m for m in layer.modules() if isinstance(m, LoraLayer)]
    known = {part for m in adapted for part in m.modules()} | set(drops)
    others = training and any(isinstance(m, nn.Dropout) and m.p > 0 for m in layer.modules() if m not in known)
    return (
        sum(isinstance(m, GELUActivation) for m in layer.modules()) == 1 and not others and all(map(is_frozen, norms))
    )


class _Linear:
    """A linear layer, or PEFT's wrapper of one."""

    def __init__(self, module: Any) -> None:
        wrapped = isinstance(module, LoraLayer)
        self.base: Any = module.get_base_layer() if wrapped else module
        active = wrapped and not (module.disable_adapters or module.merged)
        self.lora: Any = module if active else None
        ours = not active or (isinstance(module, LoraLinear) and module.active() is not None)
        frozen = type(self.base) is nn.Linear and is_frozen(self.base)
        self.served = ours and frozen and Adapted.serves(self.base.weight, self.updates(0) if ours else ())

    def updates(self, column: int) -> tuple[Any, ...]:
        """Returns the update, if there is one, whose outputs begin at this column."""
        return () if not isinstance(self.lora, LoraLinear) else ((*self.lora.update(), column),)


class Int8Layer:
    """The forward of a layer.

    Args:
        linears: by role.
        norms: after attention, and after the feed-forward.
        drops: dropout before each norm, or None.
        heads: of attention.
        training: gradients are wanted.
        spare: memory for passes.
    """

    def __init__(
        self,
        linears: dict[str, _Linear],
        norms: Sequence[Any],
        drops: Sequence[Any],
        heads: int,
        training: bool,
        spare: Spare,
    ) -> None:
        self._linears, self._drops, self._training = linears, drops, training
        out, up, down = (self._adapted(role) for role in ("attention-output", "ffn-in", "ffn-out"))
        first, second = (Norm(norm.weight.detach(), norm.bias.detach(), norm.eps) for norm in norms)
        self._others = out, up, down, first, second, heads, spare

    @cached_property
    def _joint(self) -> Layer:
        """Query, key and value are of the same tokens."""
        return Layer((self._adapted("query", "key", "value"),), *self._others)

    @cached_property
    def _apart(self) -> Layer:
        """The query is of first tokens; key and value of all."""
        return Layer((self._adapted("query"), self._adapted("key", "value")), *self._others)

    def _adapted(self, *roles: str) -> Adapted:
        members, updates, column = [self._linears[role] for role in roles], list[Any](), 0
        for member in members:
            updates += member.updates(column)
            column += member.base.out_features
        weight, bias = stacked([member.base for member in members])
        backward = Int8Weight(weight.T) if self._training else None
        for member in members if self._training else ():
            page_out(member.base.weight)  # nobody reads it for a while
        return Adapted(Int8Weight(weight), backward, bias, tuple(updates))

    def __call__(self, hidden: Tensor, *_: Any, packing: Packing, **__: Any) -> Tensor:
        """Returns the output, (1, T, D); it is called as the layer's own forward is."""
        return self._passed(hidden, self._joint, packing)

    def first_tokens(self, _: nn.Module, hidden: Tensor, packing: Packing, **__: Any) -> Tensor:
        """Returns the output for first tokens only, (1, B, D)."""
        return self._passed(hidden, self._apart, packing)

    def _passed(self, hidden: Tensor, layer: Layer, packing: Packing) -> Tensor:
        x = hidden.squeeze(0).contiguous()
        # An autograd function itself does not see that gradients are switched off.
        keep = torch.is_grad_enabled() and (x.requires_grad or bool(layer.matrices))
        masks = self._masks(layer, x, packing)
        own = Pass(layer, packing.offsets, packing.tokens, packing.longest, masks, keep)
        y: Tensor = LayerPass.apply(x, own, *layer.matrices)  # type: ignore[no-untyped-call]
        return y.unsqueeze(0)

    def _masks(self, layer: Layer, x: Tensor, packing: Packing) -> list[Tensor | None]:
        """Returns the dropout masks of a pass; see `Pass`."""
        asking = len(packing) if len(layer.asking) == 2 else len(x)
        rows = [asking, len(x)][: len(layer.asking)] + [asking] * 3
        adapters = [own.lora for own in self._linears.values() if own.lora is not None][:1]  # all drop the same
        drops = any(adapter.drop_rate() for adapter in adapters)
        inside = [
            adapters[0].dropout_mask(x.new_empty(n, linear.forward.inner)) if drops and linear.updates else None
            for linear, n in zip(layer.linears, rows, strict=True)
        ]
        rates = [0.0 if drop is None else drop_rate(drop) for drop in self._drops]
        return inside + [dropout_mask(x.new_empty(asking, x.shape[1]), rate) if rate else None for rate in rates]


class LayerPass(autograd.Function):
    """`Int8Layer` on rows, x (T, D) to y (T or B, D)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, own: Pass, *_: Tensor) -> Tensor:
        ctx.own = own
        ctx.save_for_backward(x)
        y: Tensor = own.forward(x)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        g_x, gradients = ctx.own.backward(grads[0].contiguous(), x, ctx.needs_input_grad[0])
        return g_x, None, *gradients
