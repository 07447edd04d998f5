"""How a classifier runs: packed rows if they are exact for it, otherwise padded batches.

    with executing(model, pad_id, "fp32") as execution:
        execution.predict(inputs)         # (B, K) logits of all texts, without gradients
        execution.logits(inputs, rows)    # (b, K) logits of one batch, with gradients

The user chooses nothing. All changes of the model are undone bit by bit at the end.

Letters: B texts, P windows, T tokens, D hidden size, K classes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bertlora.confidence.probabilities import Array, Labels
from bertlora.data.inputs import Inputs, token_batches
from bertlora.errors import FullMemoryError, RecipeError
from bertlora.model.engine.changes import (
    base_alone,
    evaluating,
    headless,
    owned,
    quick_dropout,
    takes_token_types,
    unwrapped,
)
from bertlora.model.engine.frozen import int8_pays
from bertlora.model.engine.gpu_attention import HAS_VARLEN
from bertlora.model.engine.graphs import Graphs
from bertlora.model.engine.int8_layer import whole_layers
from bertlora.model.engine.layers import Route, encoder_layers, packed_layers, recordable, served
from bertlora.model.engine.merging import merging
from bertlora.model.engine.packing import Packing, packed, pooled, text_means
from bertlora.model.engine.padding import padded
from bertlora.model.engine.prefix import Prefix, frozen_depth, frozen_modules
from bertlora.model.engine.weights import casts, frozen, held_in, merged
from bertlora.model.machine import (
    HALF,
    ONE_TEXT,
    choose_precision,
    give_back_memory,
    has_bf16,
    keep_freed_memory,
    limit_threads,
    out_of_memory,
)
from bertlora.sealed import Kept, sealing

# What the encoder gives, as it computed it.
Features = npt.NDArray[np.float32]

# Tokens a batch: large enough for little overhead, small enough to keep activations at some hundred MiB.
ROW_TOKENS = 6144
# Tokens a batch where no gradient is wanted, and many batches follow each other: more of it stays in the cache.
PASS_TOKENS = 2048
# The same on a GPU. It needs large batches: each pass starts a thousand kernels, however many tokens there are.
GPU_ROW_TOKENS, GPU_PASS_TOKENS = 16_384, 65_536
# For fewer tokens, merging and casting the weights costs more than it saves.
WORTH_PREPARING = 4096
# Texts a padded batch.
BATCH_SIZE = 64


@dataclass(frozen=True)
class Execution:
    """A model that is ready to run; `executing` makes it.

    Attributes:
        model: the classifier, with or without an adapter.
        pad_id: the tokenizer's padding id.
        packs: whether the model takes packed rows.
        takes_types: whether the model reads token types.
        autocast: what torch's autocast computes in, because the weights stay in fp32; None without autocast.
        prefixes: outputs of the frozen layers, by the identity of their inputs.
        graphs: recorded passes of a training on a GPU.
        refresh: called before each pass.
    """

    model: Any
    pad_id: int
    packs: bool
    takes_types: bool
    autocast: torch.dtype | None
    prefixes: dict[int, Prefix] = field(default_factory=dict)
    graphs: Graphs | None = None
    refresh: Callable[[], None] | None = None

    @property
    def device(self) -> torch.device:
        """The model's device."""
        found: torch.device = next(self.model.parameters()).device
        return found

    def predict(self, inputs: Inputs, batch_size: int = BATCH_SIZE) -> Array:
        """Returns the logits of all texts, (B, K) float64, in their order. `batch_size` limits padded batches only."""
        return self._all_rows(inputs, batch_size, lambda rows: self.logits(inputs, rows))

    def features(self, inputs: Inputs) -> tuple[Features, Features]:
        """Returns logits (B, K), and features (B, 2 D), from one pass that costs no more than `predict`.

        The features are the last layer's first token, and the mean over tokens of what enters the last layer. Features
        of several windows are averaged, as logits are.
        """
        width = 2 * int(unwrapped(self.model).config.hidden_size)

        def both(rows: list[int]) -> Tensor:
            route = Route(keep=True)
            logits = self.logits(inputs, rows, route=route)
            assert route.hidden is not None
            assert route.first is not None
            windows, owners = inputs.windows_of(rows)
            means = text_means(route.hidden.float(), inputs.windows.lengths[windows].tolist())
            features = torch.cat([route.first.float(), means], dim=1)
            return torch.cat([logits.float(), pooled(features, owners, len(rows))], dim=1)

        values = self._all_rows(inputs, BATCH_SIZE, both, np.float32)
        return values[:, :-width], values[:, -width:]

    def logits(self, inputs: Inputs, rows: Sequence[int], run: Any = None, route: Route | None = None) -> Tensor:
        """Returns the logits of one batch, (b, K). Logits of several windows of a text are averaged.

        Args:
            inputs: the texts.
            rows: which of them.
            run: called instead of the model, such as the same model wrapped for several processes.
            route: the way through the layers, and what to keep. A padded batch runs through all layers.
        """
        windows, owners = inputs.windows_of(rows)
        return pooled(self._forward(inputs, windows, run or self.model, route or Route()), owners, len(rows))

    def batches(self, lengths: Labels, texts: int, tokens: int) -> Iterator[list[int]]:
        """Yields row numbers by batch, longest first.

        Args:
            lengths: (B,) tokens of each text.
            texts: maximum number of texts in a batch.
            tokens: maximum number of tokens in a batch, padding included. A longer text gets its own batch.
        """
        return token_batches(lengths, texts, tokens, padding=not self.packs)

    def keep_prefix(self, inputs: Inputs, tokens: int, folder: Path | None = None, kept: Kept | None = None) -> None:
        """Runs the layers below the lowest adapter once for all texts. Afterwards only the layers above run.

        Args:
            inputs: the texts. The same object must be given to `logits`.
            tokens: maximum number of tokens in a batch.
            folder: where a file goes if the states are too large for memory; None is the temporary folder.
            kept: where the states are kept for a later process, or are taken from an earlier one.
        """
        depth = frozen_depth(self.model) if self.packs else 0
        if not depth or not len(inputs):
            return
        layer = encoder_layers(self.model)[depth]
        shape = inputs, depth, unwrapped(self.model).config.hidden_size, next(layer.parameters()).dtype
        prefix = None if kept is None else Prefix.kept(*shape, kept)
        if prefix is None:
            with nullcontext() if kept is None else sealing(*kept) as partial:
                prefix = Prefix.room(*shape, folder, partial)
                if prefix is not None:
                    self._fill(prefix, tokens)
        if prefix is not None:
            self.prefixes[id(inputs)] = prefix

    def _fill(self, prefix: Prefix, tokens: int) -> None:
        """Runs the layers below the lowest adapter for all texts, at most `tokens` at a time."""
        inputs = prefix.inputs
        with torch.inference_mode():
            for rows in self.batches(inputs.lengths, len(inputs), tokens):
                route = Route(end=prefix.begin, keep=True)
                self.logits(inputs, rows, route=route)
                assert route.hidden is not None
                prefix.put(inputs.windows_of(rows)[0], route.hidden)

    def _forward(self, inputs: Inputs, windows: Sequence[int], call: Any, route: Route) -> Tensor:
        """Returns the logits of these windows, (P, K)."""
        device, plain = self.device, call is self.model and route == Route() and not self.prefixes
        if self.graphs is not None and plain and self.model.training and torch.is_grad_enabled():
            return self.graphs.logits([inputs.window(p) for p in windows])
        if self.refresh is not None:
            self.refresh()
        with torch.autocast(device.type, dtype=self.autocast, enabled=self.autocast is not None):
            if self.packs:
                config = unwrapped(self.model).config
                batch, packing = packed(inputs, windows, config, self.pad_id, self.takes_types, device)
                if (prefix := self.prefixes.get(id(inputs))) is not None:
                    route.begin, route.given = prefix.begin, prefix.get(windows, packing.row, device)
                logits: Tensor = call(**batch, packing=packing, route=route).logits
                return logits
            batch = padded(inputs, windows, self.pad_id, self.takes_types)
            output = call(**{k: v.to(device) for k, v in batch.items()}, output_hidden_states=route.keep)
            if route.keep:
                route.hidden = output.hidden_states[-2][batch["attention_mask"].bool()]
                route.first = output.hidden_states[-1][:, 0]
            logits = output.logits
            return logits

    def _all_rows(
        self, inputs: Inputs, batch_size: int, compute: Callable[[list[int]], Tensor], dtype: Any = np.float64
    ) -> npt.NDArray[Any]:
        """Returns the results of `compute` for batches of similar length, in the order of the texts, in this dtype.

        If memory runs out, batches are halved.
        """
        values = np.empty((0, 0), dtype)
        texts = len(inputs) if self.packs else batch_size  # packed rows need no limit on texts
        max_tokens = PASS_TOKENS if self.device.type == "cpu" else GPU_PASS_TOKENS
        with evaluating(self.model), torch.inference_mode():
            while True:
                try:
                    for rows in self.batches(inputs.lengths, texts, max_tokens):
                        part = compute(rows).double().cpu().numpy()
                        if not len(values):
                            values = np.empty((len(inputs), part.shape[1]), dtype)
                        values[rows] = part
                        give_back_memory()
                    break
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error):
                        raise
                    if max_tokens <= inputs.lengths.max():
                        raise FullMemoryError(ONE_TEXT) from error
                    max_tokens //= 2
        return values


def training_precision(wanted: str, model: Any, pack: bool = True) -> str:
    """Returns the precision of a training: as `choose_precision` says, but `auto` may be int8.

    It is int8 if products in it are at least 1.5 times as fast as in that one, and the model gets packed rows. What it
    costs in accuracy depends on the weights.

    Args:
        wanted: `auto`, `fp32`, `bf16` or `int8`.
        model: the classifier, with an adapter. It may be a sketch without weights.
        pack: False if it gets padded batches.

    Raises:
        RecipeError: as `choose_precision`.
    """
    chosen = choose_precision(wanted, unwrapped(model).config.model_type)
    may = wanted == "auto" and pack and served(model)
    return "int8" if may and int8_pays(chosen) else chosen


def row_tokens(device: torch.device) -> int:
    """Returns the tokens of a batch that needs gradients, at most."""
    return ROW_TOKENS if device.type == "cpu" else GPU_ROW_TOKENS


@contextmanager
def executing(
    model: Any,
    pad_id: int,
    precision: str,
    *,
    tokens: int | None = None,
    training: bool = False,
    pack: bool = True,
    base: Mapping[str, Tensor] | None = None,
    head: bool = True,
) -> Iterator[Execution]:
    """Inside, the model is ready to run, and this thread owns it. Other threads wait.

    Args:
        model: the classifier, with or without an adapter.
        pad_id: the tokenizer's padding id.
        precision: `fp32`, `bf16`, `fp16` or `int8`. Few tokens run in fp32, since casting the weights would cost more
            than it saves.
        tokens: how many tokens will run; for few, the weights stay as they are. None means many.
        training: gradients are wanted. Otherwise the adapter is merged.
        pack: False always takes padded batches.
        base: run the base with its untrained head; `base` has the base's own values of parameters that the adapter
            changed (often none).
        head: False gives the input of the head's last linear layer, (B, H), instead of logits.

    Raises:
        InUseError: this thread uses the model already.
        RecipeError: int8 is wanted, and the model gets padded batches.
    """
    limit_threads()
    keep_freed_memory()
    many = training or tokens is None or tokens >= WORTH_PREPARING
    packs, half = pack and served(model), HALF.get(precision) if many else None
    if precision == "int8" and not packs:
        raise RecipeError(
            "precision: got int8, which needs packed rows; "
            f"{unwrapped(model).config.model_type} runs in padded batches here; give fp32"
        )
    with ExitStack() as stack:
        stack.enter_context(owned(model))
        if base is not None:
            stack.enter_context(base_alone(model, base))
        if not head:
            stack.enter_context(headless(model))
        resident = _made_ready(
            stack, model, training=training, packs=packs, half=half, many=many, int8=precision == "int8"
        )
        execution = Execution(model, pad_id, packs, takes_token_types(model), autocast=None if resident else half)
        if training and resident:
            refresh = stack.enter_context(merging(model)) if execution.device.type == "cuda" else None
            execution = replace(execution, refresh=refresh)
            execution = replace(execution, graphs=_graphs(execution))
        yield execution


def _graphs(execution: Execution) -> Graphs | None:
    """Returns room for recorded passes of a training; None where passes cannot be recorded.

    Attention by matrix products reads values back from the GPU, so it cannot.
    """
    inner, trained = unwrapped(execution.model), [p for p in execution.model.parameters() if p.requires_grad]
    if execution.device.type != "cuda" or not trained or not (HAS_VARLEN and has_bf16()) or not recordable(inner):
        return None

    def run(batch: dict[str, Tensor], packing: Packing) -> Tensor:
        if execution.refresh is not None:
            execution.refresh()
        logits: Tensor = execution.model(**batch, packing=packing, route=Route()).logits
        return logits

    return Graphs(run, inner.config, execution.pad_id, execution.takes_types, trained)


def _made_ready(
    stack: ExitStack,
    model: nn.Module,
    *,
    training: bool,
    packs: bool,
    half: torch.dtype | None,
    many: bool,
    int8: bool,
) -> bool:
    """Changes the model until `stack` closes. Returns whether its frozen weights are in half precision now."""
    if many and not training:
        stack.enter_context(merged(model))
    if training:
        stack.enter_context(quick_dropout(model, still=frozen_modules(model) if packs else ()))
    if not packs:
        return False
    whole = whole_layers(model, training) if int8 and many else {}
    stack.enter_context(packed_layers(model, whole))
    resident = half is not None and casts(model)
    if half is not None and resident:
        stack.enter_context(held_in(encoder_layers(model), half))
    if many:
        stack.enter_context(frozen(model, training, int8, whole))
    return resident
