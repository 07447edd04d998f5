"""Texts → probabilities. The same code serves prediction, evaluation, training's validation and export's check."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bertlora.data.framing import Framing
from bertlora.data.inputs import Inputs
from bertlora.data.tokens import tokenize
from bertlora.errors import InputError
from bertlora.model.engine.batches import pooled, unwrapped
from bertlora.model.engine.execution import ROW_TOKENS, Execution, executing
from bertlora.model.engine.layers import Route
from bertlora.model.memory import out_of_memory

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reader:
    """A tokenizer with the framing that a model was trained with: texts → inputs."""

    tokenizer: Any
    framing: Framing

    @classmethod
    def of(cls, tokenizer: Any, max_length: int, truncation: str, long_texts: str = "truncate") -> "Reader":
        """Returns the reader for this maximum length in tokens, truncation and way with long texts; see `Framing`."""
        return cls(tokenizer, Framing.of(tokenizer, max_length, truncation, long_texts))

    @property
    def pad_id(self) -> int:
        """The id that fills short rows."""
        return int(self.tokenizer.pad_token_id)

    def read(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Inputs:
        """Returns the inputs of texts, or of pairs of texts.

        Raises:
            InputError: something is no text, or a second text is missing.
        """
        for name, column in (("text", texts), ("second text", pairs or ())):
            for i, text in enumerate(column):
                if not isinstance(text, str):
                    raise InputError(f"{name} {i}: got {type(text).__name__}, expected a string")
        if pairs is not None and len(pairs) != len(texts):
            raise InputError(f"got {len(texts)} texts and {len(pairs)} second texts, expected as many of each")
        second = None if pairs is None else tokenize(self.tokenizer, pairs)
        return Inputs(self.framing, tokenize(self.tokenizer, texts), second)


def logits(model: nn.Module, inputs: Inputs, pad_id: int, batch_size: int, precision: str = "fp32") -> Array:
    """Returns the model's logits, (B, K) float64, in the order of the inputs, whatever order they are computed in.

    Args:
        model: a sequence classifier, with or without an adapter; left in the mode in which it came.
        inputs: framed texts.
        pad_id: the tokenizer's padding id.
        batch_size: most texts a batch, where batches are padded.
        precision: `fp32` or `bf16`.
    """
    with executing(model, pad_id, precision, tokens=int(inputs.lengths.sum())) as execution:
        return executed_logits(execution, inputs, batch_size)


def executed_logits(execution: Execution, inputs: Inputs, batch_size: int) -> Array:
    """Returns the same from a model that is ready to run."""
    return _batched(execution, inputs, batch_size, lambda rows: execution.logits(inputs, rows))


def logits_and_features(
    model: nn.Module, inputs: Inputs, pad_id: int, batch_size: int, precision: str = "fp32"
) -> tuple[Array, Array]:
    """Returns logits (B, K), and what the encoder makes of each text: first token and mean over tokens, (B, 2 D).

    One pass gives both; the features are of the encoder's last layer, and pooled over windows as logits are.
    """
    width = 2 * int(unwrapped(model).config.hidden_size)

    def both(rows: list[int]) -> Tensor:
        route = Route(whole=True)
        scores = execution.logits(inputs, rows, route=route)
        assert route.hidden is not None
        windows, owners = inputs.windows_of(rows)
        own = inputs.windows.lengths[windows].tolist()
        states = torch.split(route.hidden[: sum(own)].float(), own)
        features = torch.stack([torch.cat([state[0], state.mean(0)]) for state in states])
        return torch.cat([scores.float(), pooled(features, owners, len(rows))], dim=1)

    with executing(model, pad_id, precision, tokens=int(inputs.lengths.sum())) as execution:
        values = _batched(execution, inputs, batch_size, both)
    return values[:, :-width], values[:, -width:]


def _batched(execution: Execution, inputs: Inputs, batch_size: int, compute: Callable[[list[int]], Tensor]) -> Array:
    """Returns the rows that `compute` gives for batches of like length, put back in order."""
    max_tokens = ROW_TOKENS
    while True:
        try:
            return _pass(execution, inputs, batch_size, max_tokens, compute)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if max_tokens <= inputs.lengths.max():
                raise InputError("memory ran out with a single text; use a smaller model or shorter texts") from error
            max_tokens //= 2


def _pass(
    execution: Execution, inputs: Inputs, batch_size: int, max_tokens: int, compute: Callable[[list[int]], Tensor]
) -> Array:
    """Returns the same in batches of up to `max_tokens`, padding included."""
    result: Array | None = None
    with evaluating(execution.model), torch.inference_mode():
        # Packed rows have no use for a limit on texts.
        texts = len(inputs) if execution.packs else batch_size
        for rows in execution.batches(inputs.lengths, texts, max_tokens):
            values = compute(rows).double().cpu().numpy()
            if result is None:
                result = np.empty((len(inputs), values.shape[1]))
            result[rows] = values
    return np.empty((0, 0)) if result is None else result


def softmax(scores: Array) -> Array:
    """Returns probabilities for logits (B, K), without overflow."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def cross_entropy(scores: Array, labels: npt.NDArray[np.int64]) -> float:
    """Returns the mean negative log-likelihood of labels (B,) under logits (B, K), in nats."""
    top = scores.max(axis=1, keepdims=True)
    log_sums = top[:, 0] + np.log(np.exp(scores - top).sum(axis=1))
    return float(np.mean(log_sums - scores[np.arange(len(labels)), labels]))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, dropout is off; afterwards the model is in the mode in which it came."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
