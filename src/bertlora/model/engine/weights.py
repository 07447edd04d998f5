"""Weights prepared for an execution and restored bit for bit: merged, in bf16 or 8 bits, in the fastest layout."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from bertlora.model.engine.changes import forwards, identity, unwrapped
from bertlora.model.engine.frozen import InInt8, fed_forward, frozen_product, hold
from bertlora.model.engine.layers import encoder_layers
from bertlora.model.engine.lora_linear import JointLinears, LoraLinear, joinable
from bertlora.model.roles import attention_inputs, feed_forward_parts


def casts(model: Any) -> bool:
    """Returns whether the layers can be in half precision: only LoRA is trained there, and only by `LoraLinear`."""
    layers = encoder_layers(model)
    ours = all(isinstance(m, LoraLinear) for m in layers.modules() if isinstance(m, LoraLayer))
    return ours and all("lora_" in name for name, p in layers.named_parameters() if p.requires_grad)


@contextmanager
def held_in(layers: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Inside, frozen weights are held in `dtype`, so no step has to cast them."""
    held = [(p, p.data) for p in layers.parameters() if not p.requires_grad and p.is_floating_point()]
    try:
        for parameter, value in held:
            parameter.data = value.to(dtype)
        yield
    finally:
        for parameter, value in held:
            parameter.data = value


@contextmanager
def merged(model: Any) -> Iterator[None]:
    """Inside, the low-rank updates are added to the weights, unless they are switched off."""
    adapted = _in_use(unwrapped(model))
    held = [(p, p.data) for m in adapted for p in m.get_base_layer().parameters()]
    try:
        for parameter, value in held:
            parameter.data = value.clone()
        with torch.no_grad():
            for layer in adapted:
                layer.merge()
        yield
    finally:
        for layer in adapted:
            layer.merged_adapters.clear()
        for parameter, value in held:
            parameter.data = value


@contextmanager
def frozen(model: Any, training: bool, int8: bool = False, without: Collection[nn.Module] = ()) -> Iterator[None]:
    """Inside, frozen weights are in the fastest layout, or in 8 bits, and query, key and value share one product.

    They share it if all three are adapted, except in the last layer, where the query reads only first tokens. Layers in
    `without` stay as they are.
    """
    held = partial(hold, training=training, int8=int8)
    layers = nn.ModuleList(layer for layer in encoder_layers(model) if layer not in without)
    attending = partial(attention_inputs, unwrapped(model).config.model_type)
    asking = [layer for layer in dict.fromkeys(encoder_layers(model)[:-1]) if layer not in without]
    groups: list[Any] = [g for g in map(attending, asking) if g and joinable(g)]
    joined = [member for group in groups for member in group]
    wrappers = [m for m in layers.modules() if isinstance(m, LoraLayer)]
    active = _in_use(layers)
    adapted = [m for m in active if isinstance(m, LoraLinear) and m not in joined]
    # If the update is merged or switched off, only the base layer runs.
    alone = {id(m.get_base_layer()) for m in wrappers if m not in active}
    within = {id(part) for m in wrappers for part in m.modules()} - alone
    plain = [m for m in layers.modules() if type(m) is nn.Linear and is_frozen(m) and id(m) not in within]
    fused, inside = _feed_forwards(model, layers, plain, training) if int8 else ({}, set[nn.Linear]())
    try:
        for group in groups:
            joint = JointLinears(group, held)
            for member in group:
                member.joint = joint
        for layer in adapted:
            layer.frozen = held(layer.base_layer.weight)
        run = {
            linear: partial(frozen_product, frozen=held(linear.weight), bias=linear.bias)
            for linear in plain
            if linear not in inside
        }
        with forwards(run | fused):
            yield
    finally:
        for layer in (*adapted, *joined):
            layer.joint = layer.frozen = None


def _feed_forwards(
    model: Any, layers: nn.ModuleList, plain: Sequence[nn.Linear], training: bool
) -> tuple[dict[nn.Module, Callable[..., Tensor]], set[nn.Linear]]:
    """Returns forwards of feed-forwards in 8 bits whose linear layers are in `plain`, and these linear layers.

    The last module computes all of it; the two modules before it return what they get.
    """
    run, inside = dict[nn.Module, Callable[..., Tensor]](), set[nn.Linear]()
    for layer in dict.fromkeys(layers):
        if parts := feed_forward_parts(unwrapped(model).config.model_type, layer):
            wide, activation, narrow = parts
            bases: list[Any] = [m.get_base_layer() if isinstance(m, LoraLayer) else m for m in (wide, narrow)]
            if all(base in plain for base in bases):
                up, down = ((InInt8(base.weight.detach(), training), base.bias) for base in bases)
                run |= {wide: identity, activation: identity, narrow: partial(fed_forward, up=up, down=down)}
                inside.update(bases)
    return run, inside


def _in_use(model: nn.Module) -> list[Any]:
    """Returns the adapted layers whose update is neither merged nor switched off."""
    return [m for m in model.modules() if isinstance(m, LoraLayer) and not (m.disable_adapters or m.merged)]


def is_frozen(module: nn.Module) -> bool:
    """Returns whether none of the module's parameters is trained."""
    return not any(p.requires_grad for p in module.parameters())
