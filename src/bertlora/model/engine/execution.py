"""How a classifier is run: packed rows where they are exact, padded batches elsewhere; weights as they are used.

The user chooses nothing. What is changed in the model for the time of an execution is put back to the bit.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bertlora.data.inputs import Inputs, token_batches
from bertlora.model.engine.batches import packed, padded, pooled, takes_token_types, unwrapped
from bertlora.model.engine.dropout import quick_dropout
from bertlora.model.engine.layers import Route, encoder_layers, packed_layers, served
from bertlora.model.engine.prefix import Prefix, frozen_depth, frozen_modules
from bertlora.model.engine.weights import casts, frozen, held_in, merged
from bertlora.model.memory import settle

# Tokens a batch: enough that overhead tells little, few enough that training keeps some hundred MiB of activations.
ROW_TOKENS = 6144
# Below so many tokens it costs more to merge and to cast the weights than it saves.
WORTH_PREPARING = 4096


@dataclass(frozen=True)
class Execution:
    """A model made ready to run; see `executing`.

    Attributes:
        model: the classifier, with or without an adapter.
        pad_id: the tokenizer's padding id.
        packs: whether it takes packed rows.
        takes_types: whether it tells the texts of a pair apart by token types.
        autocast: torch's mixed precision, for weights that stay in fp32.
        prefixes: what frozen layers made of texts, by the identity of their inputs.
    """

    model: Any
    pad_id: int
    packs: bool
    takes_types: bool
    autocast: bool
    prefixes: dict[int, Prefix] = field(default_factory=dict)

    def batches(self, lengths: npt.NDArray[np.int64], texts: int, tokens: int) -> Iterator[list[int]]:
        """Yields row numbers by batch, longest first.

        Args:
            lengths: (B,) tokens of each text.
            texts: most texts a batch.
            tokens: most tokens a batch, padding included; a longer text gets a batch of its own.
        """
        return token_batches(lengths, texts, tokens, padding=not self.packs)

    def keep_prefix(self, inputs: Inputs, tokens: int, folder: Path | None = None) -> None:
        """Runs the layers below the lowest adapter once for all these texts; from then on only those above run.

        Args:
            inputs: the texts; the same object must come to `logits`.
            tokens: most tokens a batch.
            folder: where a file goes, if they are too many to keep in memory; None is the temporary folder.
        """
        depth = frozen_depth(self.model) if self.packs else 0
        if not depth or not len(inputs):
            return
        layer = encoder_layers(self.model)[depth]
        width, dtype = unwrapped(self.model).config.hidden_size, next(layer.parameters()).dtype
        prefix = Prefix.room(inputs, depth, width, dtype, folder)
        if prefix is None:
            return
        with torch.inference_mode():
            for rows in self.batches(inputs.lengths, len(inputs), tokens):
                route = Route(end=depth, whole=True)
                self.logits(inputs, rows, route=route)
                assert route.hidden is not None
                prefix.put(inputs.windows_of(rows)[0], route.hidden)
        self.prefixes[id(inputs)] = prefix

    def logits(self, inputs: Inputs, rows: Sequence[int], run: Any = None, route: Route | None = None) -> Tensor:
        """Returns the logits of these texts, (B, K), those of several windows pooled.

        Args:
            inputs: the texts.
            rows: which of them.
            run: what to call in the model's place, such as the same model wrapped for several processes.
            route: the way through the layers, and what to keep; a padded batch knows one way alone.
        """
        windows, owners = inputs.windows_of(rows)
        return pooled(self._scores(inputs, windows, run or self.model, route or Route()), owners, len(rows))

    def _scores(self, inputs: Inputs, windows: Sequence[int], call: Any, route: Route) -> Tensor:
        """Returns the logits of these windows, (P, K)."""
        device = next(self.model.parameters()).device
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.autocast):
            if self.packs:
                config = unwrapped(self.model).config
                batch, packing = packed(inputs, windows, config, self.pad_id, self.takes_types, device)
                if (prefix := self.prefixes.get(id(inputs))) is not None:
                    route.begin, route.given = prefix.begin, prefix.get(windows, packing.row, device)
                scores: Tensor = call(**batch, packing=packing, route=route).logits
                return scores
            batch = padded(inputs, windows, self.pad_id, self.takes_types)
            output = call(**{k: v.to(device) for k, v in batch.items()}, output_hidden_states=route.whole)
            if route.whole:
                route.hidden = output.hidden_states[-1][batch["attention_mask"].bool()]
            scores = output.logits
            return scores


@contextmanager
def executing(
    model: Any, pad_id: int, precision: str, *, tokens: int = 0, training: bool = False, pack: bool = True
) -> Iterator[Execution]:
    """Inside, the model is ready to run.

    Args:
        model: the classifier, with or without an adapter.
        pad_id: the tokenizer's padding id.
        precision: `fp32` or `bf16`.
        tokens: how many will be run; for few, weights are left as they are.
        training: gradients are wanted; otherwise the adapter is merged.
        pack: False takes padded batches in any case.
    """
    settle()
    packs, worth = pack and served(model), training or tokens >= WORTH_PREPARING
    resident = packs and worth and precision == "bf16" and casts(model)
    with ExitStack() as stack:
        if worth and not training:
            stack.enter_context(merged(model))
        if training:
            stack.enter_context(quick_dropout(model, still=frozen_modules(model) if packs else ()))
        if packs:
            layers = encoder_layers(model)
            stack.enter_context(packed_layers(model))
            if resident:
                stack.enter_context(held_in(layers, torch.bfloat16))
            if worth:
                stack.enter_context(frozen(model, training))
        autocast = precision == "bf16" and not resident
        yield Execution(model, pad_id, packs, takes_token_types(model), autocast)
