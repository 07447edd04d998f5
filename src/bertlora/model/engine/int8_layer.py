"""A whole layer of BERT in 8 bits: one autograd function, with three native calls in each direction.

    x ─ query, key, value ─ attention ─ output projection, norm, feed-forward, norm ─ y
        └ one call          └ one call  └ one call

Only attention mixes tokens. So a block of tokens goes through all the rest, with LoRA's updates, in the cache. A layer
that is not served runs module by module.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers.activations import GELUActivation

from bertlora.model.engine.attention import Given, native_backward, native_forward
from bertlora.model.engine.changes import drop_rate, dropout_mask, unwrapped
from bertlora.model.engine.frozen import stacked
from bertlora.model.engine.kernels.int8 import Int8Weight, native_int8
from bertlora.model.engine.kernels.layer import (
    Adapted,
    Kept,
    Masks,
    Norm,
    Rest,
    linear,
    linear_gradients,
    rest,
    rest_gradients,
)
from bertlora.model.engine.layers import encoder_layers
from bertlora.model.engine.lora_linear import LoraLinear
from bertlora.model.engine.packing import Packing
from bertlora.model.engine.weights import is_frozen
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
    found, parts = dict[nn.Module, Int8Layer](), _PARTS[config.model_type]
    for layer in dict.fromkeys(encoder_layers(model)):
        linears = {role: _Linear(module) for role, module in layer_linears(config.model_type, layer).items()}
        norms, drops = ([path and layer.get_submodule(path) for path in paths] for paths in parts)
        if all(own.served for own in linears.values()) and _plain(layer, norms, drops, training):
            found[layer] = Int8Layer(linears, norms, drops, config.num_attention_heads, training)
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
    """

    def __init__(
        self, linears: dict[str, _Linear], norms: Sequence[Any], drops: Sequence[Any], heads: int, training: bool
    ) -> None:
        self._linears, self._drops, self._training, self.heads = linears, drops, training, heads
        out, up, down = (self._adapted(role) for role in ("attention-output", "ffn-in", "ffn-out"))
        first, second = (Norm(norm.weight.detach(), norm.bias.detach(), norm.eps) for norm in norms)
        self.rest = Rest(out, up, down, first, second)

    @cached_property
    def joint(self) -> tuple[Adapted, ...]:
        """Query, key and value of the same tokens."""
        return (self._adapted("query", "key", "value"),)

    @cached_property
    def apart(self) -> tuple[Adapted, ...]:
        """The query of first tokens; key and value of all."""
        return self._adapted("query"), self._adapted("key", "value")

    def _adapted(self, *roles: str) -> Adapted:
        members, updates, column = [self._linears[role] for role in roles], list[Any](), 0
        for member in members:
            updates += member.updates(column)
            column += member.base.out_features
        weight, bias = stacked([member.base for member in members])
        backward = Int8Weight(weight.T.contiguous()) if self._training else None
        return Adapted(Int8Weight(weight), backward, bias, tuple(updates))

    def masks(self, layers: Sequence[Adapted], rows: Sequence[int]) -> list[Tensor | None]:
        """Returns a dropout mask for the input of each layer that is adapted, of some rows."""
        adapter = next((own.lora for own in self._linears.values() if own.lora is not None), None)
        if adapter is None or not adapter.drop_rate():  # all have the same
            return [None] * len(layers)
        return [
            adapter.dropout_mask(layer.forward.scales.new_empty(n, layer.forward.inner)) if layer.updates else None
            for layer, n in zip(layers, rows, strict=True)
        ]

    def masks_after(self, rows: int) -> Masks:
        """Returns the masks of what follows attention."""
        inside = self.masks(self.rest.linears, [rows] * 3)
        like = self.rest.first.weight.expand(rows, -1)
        rates = [0.0 if layer is None else drop_rate(layer) for layer in self._drops]
        return Masks(*inside, *(dropout_mask(like, rate) if rate else None for rate in rates))

    def __call__(self, hidden: Tensor, *_: Any, packing: Packing, **__: Any) -> Tensor:
        """Returns the output, (1, T, D); it is called as the layer's own forward is."""
        return self._passed(hidden, self.joint, packing)

    def first_tokens(self, _: nn.Module, hidden: Tensor, packing: Packing, **__: Any) -> Tensor:
        """Returns the output for first tokens only, (1, B, D)."""
        return self._passed(hidden, self.apart, packing)

    def _passed(self, hidden: Tensor, asking: Sequence[Adapted], packing: Packing) -> Tensor:
        x = hidden.squeeze(0).contiguous()
        matrices = [m for layer in (*asking, *self.rest.linears) for a, b, *_ in layer.updates for m in (a, b)]
        y: Tensor = LayerPass.apply(x, self, asking, packing, *matrices)  # type: ignore[no-untyped-call]
        return y.unsqueeze(0)


class LayerPass(torch.autograd.Function):
    """`Int8Layer` on rows, x (T, D) to y (T or B, D), with a hand-written backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, layer: Int8Layer, asking: Sequence[Adapted], packing: Packing, *matrices: Tensor
    ) -> Tensor:
        keep, first = any(ctx.needs_input_grad), x[packing.starts] if len(asking) == 2 else x
        inputs = (first, x) if len(asking) == 2 else (x,)
        masks = layer.masks(asking, [len(rows) for rows in inputs])
        made, lows = zip(
            *(linear(rows, own, m) for rows, own, m in zip(inputs, asking, masks, strict=True)), strict=True
        )
        given = Given(packing, (x.shape[1] // layer.heads) ** -0.5, half=True)
        q, k, v = _heads(made, layer.heads)
        a, sums = native_forward(q, k, v, given, keep)
        after = layer.masks_after(len(first))
        y, kept = rest(a.flatten(1), first, layer.rest, after, keep)
        ctx.save_for_backward(a, sums, *inputs, *masks, *made, *lows, *after, *(kept or ()))
        ctx.layer, ctx.asking, ctx.given = layer, asking, given
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        layer, asking, given = ctx.layer, ctx.asking, ctx.given
        (a, sums, *saved), n = ctx.saved_tensors, len(asking)
        inputs, masks, made, lows = (saved[i * n : i * n + n] for i in range(4))
        after, kept = Masks(*saved[4 * n : 4 * n + 5]), Kept(*saved[4 * n + 5 :])
        needs_x = ctx.needs_input_grad[0]
        attends = needs_x or any(own.updates for own in asking)
        g = grads[0].contiguous()
        g_first, g_a, found = rest_gradients(g, a.flatten(1), kept, layer.rest, after, attends)
        if g_a is None:
            return None, None, None, None, *_flat(found)
        g_made, (q, k, v) = [given.packing.outputs(x) for x in made], _heads(made, layer.heads)
        native_backward(q, k, v, g_a.view_as(a), sums, given, _heads(g_made, layer.heads))
        # What the sum adds to the gradient of x belongs to the rows that ask.
        parts = zip(g_made, inputs, lows, (g_first, None)[:n], asking, masks, [needs_x] * n, strict=True)
        slopes, asked = zip(*(linear_gradients(*part) for part in parts), strict=True)
        if needs_x and n == 2:
            slopes[-1].index_add_(0, given.packing.starts, slopes[0])
        return slopes[-1], None, None, None, *_flat([*asked, *found])


def _heads(made: Sequence[Tensor], heads: int) -> tuple[Tensor, ...]:
    """Returns queries, keys and values, (N, H, d), of products that have one or more of them side by side."""
    members = (3,) if len(made) == 1 else (1, 2)
    views = (x.view(len(x), n, heads, x.shape[1] // (n * heads)) for x, n in zip(made, members, strict=True))
    return tuple(part for view in views for part in view.unbind(1))


def _flat(found: Sequence[Any]) -> list[Tensor]:
    return [matrix for pairs in found for pair in pairs for matrix in pair]
