"""Framed texts → the tensors that a model takes. Padded here; a packed batch enters at this door."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bertlora.data.tokens import Inputs


def padded(inputs: Inputs, rows: Sequence[int], pad_id: int, takes_types: bool) -> dict[str, Tensor]:
    """Returns the batch of these rows, each padded on the right to the longest of them.

    Returns:
        input_ids and attention_mask, both (B, T) int64; for pairs token_type_ids, (B, T), where the model takes them.
    """
    framed = [inputs[i] for i in rows]
    longest = max(len(ids) for ids, _ in framed)
    ids = torch.full((len(framed), longest), pad_id)
    mask = torch.zeros((len(framed), longest), dtype=torch.int64)
    types = torch.zeros((len(framed), longest), dtype=torch.int64)
    for row, (tokens, kinds) in enumerate(framed):
        ids[row, : len(tokens)] = torch.from_numpy(tokens)
        mask[row, : len(tokens)] = 1
        if kinds is not None:
            types[row, : len(kinds)] = torch.from_numpy(kinds)
    batch = {"input_ids": ids, "attention_mask": mask}
    if takes_types and inputs.second is not None:
        batch["token_type_ids"] = types
    return batch


def takes_token_types(model: nn.Module) -> bool:
    """Returns whether the model tells the two texts of a pair apart by token types."""
    inner = unwrapped(model)
    known = "token_type_ids" in inspect.signature(inner.forward).parameters
    return known and getattr(inner.config, "type_vocab_size", 0) > 1


def unwrapped(model: Any) -> Any:
    """Returns the transformers classifier itself, below PEFT's wrapper if there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
