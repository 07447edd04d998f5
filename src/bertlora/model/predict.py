"""Texts → probabilities. The same code serves prediction, evaluation, training's validation and export's check."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bertlora.data.tokens import Framing, Inputs, token_batches, tokenize
from bertlora.errors import InputError
from bertlora.model.batches import padded, takes_token_types, unwrapped
from bertlora.model.memory import out_of_memory

Array = npt.NDArray[np.float64]

# Tokens a batch, padding included: enough to keep the cores busy, little enough to stay in cache.
MAX_TOKENS = 8192


@dataclass(frozen=True)
class Reader:
    """A tokenizer with the framing that a model was trained with: texts → inputs."""

    tokenizer: Any
    framing: Framing

    @classmethod
    def of(cls, tokenizer: Any, max_length: int, truncation: str) -> "Reader":
        """Returns the reader for this maximum length in tokens and truncation (`right`, `left`, `head-tail`)."""
        return cls(tokenizer, Framing.of(tokenizer, max_length, truncation))

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
        batch_size: most texts a batch.
        precision: `fp32` or `bf16`.
    """
    return _batched(model, inputs, pad_id, batch_size, precision, lambda batch: model(**batch).logits)


def logits_and_features(
    model: nn.Module, inputs: Inputs, pad_id: int, batch_size: int, precision: str = "fp32"
) -> tuple[Array, Array]:
    """Returns logits (B, K), and what the encoder makes of each text: first token and mean over tokens, (B, 2 D).

    One pass gives both; the features are of the encoder's last layer.
    """
    classes = int(unwrapped(model).config.num_labels)

    def both(batch: dict[str, Tensor]) -> Tensor:
        output = model(**batch, output_hidden_states=True)
        hidden = output.hidden_states[-1].float()  # (B, T, D)
        mask = batch["attention_mask"][..., None]  # (B, T, 1)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return torch.cat([output.logits.float(), hidden[:, 0], mean], dim=1)

    values = _batched(model, inputs, pad_id, batch_size, precision, both)
    return values[:, :classes], values[:, classes:]


def _batched(
    model: nn.Module,
    inputs: Inputs,
    pad_id: int,
    batch_size: int,
    precision: str,
    compute: Callable[[dict[str, Tensor]], Tensor],
) -> Array:
    """Returns the rows that `compute` gives for batches of like length, put back in order."""
    max_tokens = MAX_TOKENS
    while True:
        try:
            return _pass(model, inputs, pad_id, batch_size, max_tokens, precision, compute)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if max_tokens <= inputs.lengths.max():
                raise InputError("memory ran out with a single text; use a smaller model or shorter texts") from error
            max_tokens //= 2


def _pass(
    model: nn.Module,
    inputs: Inputs,
    pad_id: int,
    batch_size: int,
    max_tokens: int,
    precision: str,
    compute: Callable[[dict[str, Tensor]], Tensor],
) -> Array:
    """Returns the same in batches of up to `max_tokens`, padding included."""
    result: Array | None = None
    device = next(model.parameters()).device
    takes_types = takes_token_types(model)
    with evaluating(model), torch.inference_mode(), autocast(device, precision):
        for rows in token_batches(inputs.lengths, batch_size, max_tokens):
            batch = {k: v.to(device) for k, v in padded(inputs, rows, pad_id, takes_types).items()}
            values = compute(batch).double().cpu().numpy()
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


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Returns torch's mixed precision for `bf16`, and plain fp32 otherwise."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, dropout is off; afterwards the model is in the mode in which it came."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
