"""One encoder in memory that runs packed rows of texts of different adapters.

Its model is changed for good: packed layers, weights in the fastest layout, in bf16 where asked. Nobody else may use
the model. Threads take turns, row by row, in the order in which they asked.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn

from bertlora.model.engine.changes import Turns, forwards, takes_token_types, unwrapped
from bertlora.model.engine.frozen import FrozenWeight, JointProduct, hold, stacked
from bertlora.model.engine.heads import Head
from bertlora.model.engine.layers import Route, encoder_layers, first_calls, packed_layers, served
from bertlora.model.engine.packing import Packing, Window, packed_row
from bertlora.model.engine.updates import LowRank, Mix, Update
from bertlora.model.machine import HALF, keep_freed_memory, limit_threads
from bertlora.model.roles import attention_inputs

# Merging an adapter pays after this many tokens without another adapter.
WORTH_MERGING = 4096


def mixes(model: Any) -> bool:
    """Returns whether a `MixedEncoder` can run this classifier.

    A DeBERTa-v2 makes keys and queries of distances, by layers that each adapter changes: no row of text has them.
    """
    return served(model) and Head.known(model)


class MixedProduct(JointProduct):
    """Linear layers of the encoder that have the same input, as one product, for texts of different adapters.

    Attributes:
        number: its number in the encoder.
        layer: the number of its layer.
        mix: whose texts the row holds; None runs the merged weight.
    """

    def __init__(
        self, number: int, layer: int, members: Sequence[nn.Linear], hold: Callable[[Tensor], FrozenWeight]
    ) -> None:
        super().__init__(members, [m.out_features for m in members])
        self.number, self.layer = number, layer
        self.mix: Mix | None = None
        weight, self.bias = stacked(members)
        for member, part in zip(members, torch.split(weight, self.widths), strict=True):
            member.weight.data = part  # so that the base's weight is in memory once
        self._hold, self._weight = hold, weight
        self.frozen = hold(weight)
        self.merged: FrozenWeight = self.frozen

    def merge(self, low: LowRank | None) -> None:
        """Keeps a copy of the weight with this update added, if there is one."""
        self.merged = self.frozen  # first, so that there are never two copies
        if low is not None:
            self.merged = self._hold(low.merged(self._weight, self.widths))

    def all(self, x: Tensor) -> Tensor:
        """Returns all outputs, concatenated, (..., sum of outs) for x (..., in)."""
        flat = x.reshape(-1, x.shape[-1])
        if self.mix is None:
            y = self.merged.product(flat, self.bias)
        else:
            y = self.frozen.product(flat, self.bias)
            self.mix.add(self.number, flat, y, self.widths)
        return y.view(*x.shape[:-1], -1)


class MixedEncoder:
    """The encoder of a classifier, ready to run rows of texts of different adapters.

    Args:
        model: a transformers classifier that `mixes` accepts, in evaluation mode. It is changed for good.
        pad_id: the id of filler.
        precision: `fp32`, `bf16` or `int8`.
    """

    def __init__(self, model: Any, pad_id: int, precision: str) -> None:
        limit_threads()
        keep_freed_memory()
        assert mixes(model), "a model whose rows cannot be mixed"
        self.inner, self.pad_id, self.takes_types = unwrapped(model), pad_id, takes_token_types(model)
        self.inner.requires_grad_(False)
        self.head, self.layers = Head.of(model), encoder_layers(model)
        self.device = next(model.parameters()).device
        half = HALF.get(precision)
        # oneDNN would generate code for every number of tokens of an adapter in bf16.
        self.low_dtype = half if half and self.device.type != "cpu" else torch.float32
        changes = ExitStack()
        finalize(self, changes.close)  # at exit too, while modules are still there
        changes.enter_context(packed_layers(model))
        if half:
            for parameter in self.layers.parameters():
                parameter.data = parameter.data.to(half)
        held = partial(hold, training=False, int8=precision == "int8")
        self.products = [MixedProduct(i, layer, group, held) for i, (layer, group) in enumerate(self._groups())]
        runs = {member: partial(product, member) for product in self.products for member in product.members}
        changes.enter_context(forwards(runs))
        names = {module: name for name, module in self.inner.named_modules()}
        self.linears: dict[str, nn.Linear] = {names[m]: m for p in self.products for m in p.members}
        # Name of a linear layer → the number of its product, and its own number there.
        self._places = {names[m]: (p.number, i) for p in self.products for i, m in enumerate(p.members)}
        self.plain = Update({}, len(self.layers), self.head)
        self._merged, self._latest, self._tokens = self.plain, self.plain, 0
        self._turns = Turns()

    def _groups(self) -> list[tuple[int, list[nn.Linear]]]:
        """Returns the linear layers that have the same input together, each group with the number of its layer.

        Query, key and value have, except in the last layer, where the query reads only first tokens.
        """
        encoder = getattr(self.inner, self.inner.base_model_prefix)
        elsewhere = {m for part in (self.layers, *self.head.modules.values()) for m in part.modules()}
        # ELECTRA and ALBERT project their embeddings.
        found: list[tuple[int, list[Any]]] = [
            (0, [m]) for m in encoder.modules() if type(m) is nn.Linear and m not in elsewhere
        ]
        for layer, number in first_calls(self.layers).items():
            shared: list[Any] = attention_inputs(self.inner.config.model_type, layer)
            alike = len({(m.in_features, m.bias is None) for m in shared}) == 1
            if alike and layer in self.layers[:-1]:
                found.append((number, shared))
            joined = [m for _, group in found for m in group]
            found += [(number, [m]) for m in layer.modules() if type(m) is nn.Linear and m not in joined]
        return found

    def update(self, pairs: Mapping[str, tuple[Tensor, Tensor]], head: Head) -> Update:
        """Returns what an adapter adds; `pairs` has A (R, in) and s B (out, R) by the name of the linear layer."""
        parts: dict[int, dict[int, tuple[Tensor, Tensor]]] = {}
        for name, (a, b) in pairs.items():
            number, member = self._places[name]
            parts.setdefault(number, {})[member] = a.to(self.device, self.low_dtype), b.to(self.device, self.low_dtype)
        low = {number: LowRank.of(found, self.products[number].widths) for number, found in parts.items()}
        return Update(low, min([len(self.layers), *(self.products[number].layer for number in low)]), head)

    def vectors(
        self, windows: Sequence[Window], updates: Sequence[Update], begin: int = 0, states: Sequence[Tensor] = ()
    ) -> Tensor:
        """Returns what each text's head reads, (B, D): its first token after the last layer, or a mean over its tokens.

        Args:
            windows: the texts of the row, in any order; those of an adapter are neighbours.
            updates: the adapter of each text.
            begin: the first layer to run.
            states: for each text, (tokens, D), the input of that layer, if it is not the first.
        """
        batch, packing = self._packed(windows)
        route = Route(begin=begin)
        if states:
            filler = states[0].new_zeros(packing.row - packing.tokens, states[0].shape[1])
            route.given = torch.cat([*states, filler])
        return self._run(batch, packing, updates, route)

    def states(self, windows: Sequence[Window], end: int) -> list[Tensor]:
        """Returns for each text the base's input of layer `end`, (tokens, D)."""
        batch, packing = self._packed(windows)
        route = Route(end=end, keep=True)
        self._run(batch, packing, [self.plain] * len(windows), route)
        assert route.hidden is not None
        return list(torch.split(route.hidden[: packing.tokens], list(packing.lengths)))

    def _packed(self, windows: Sequence[Window]) -> tuple[dict[str, Tensor], Packing]:
        return packed_row(windows, self.inner.config, self.pad_id, self.takes_types, self.device)

    def _run(self, batch: dict[str, Tensor], packing: Packing, updates: Sequence[Update], route: Route) -> Tensor:
        encoder = getattr(self.inner, self.inner.base_model_prefix)
        with self._turns.taken(), torch.inference_mode():
            mix = Mix.of(updates, packing, self.low_dtype)
            self._use(None if self._merges(mix) else mix)
            read: Tensor = encoder(**batch, packing=packing, route=route)[0][:, 0]
            return read

    def _use(self, mix: Mix | None) -> None:
        for product in self.products:
            product.mix = mix

    def _merges(self, mix: Mix) -> bool:
        """Returns whether a row of a single adapter runs merged weights; merges them if that pays from now on."""
        latest = mix.updates[0]
        self._tokens = sum(mix.tokens) + (self._tokens if latest is self._latest else 0)
        self._latest = latest
        if len(mix.updates) > 1 or not latest.low:
            self._tokens = 0
            return False
        if latest is not self._merged and self._tokens >= WORTH_MERGING:
            self._merged = self.plain  # until all are merged
            for product in self.products:
                product.merge(latest.low.get(product.number))
            self._merged = latest
        return latest is self._merged
