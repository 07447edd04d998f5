"""Padded batches, for models that packed rows do not serve, and for exported graphs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bertlora.data.inputs import Inputs


def padded(inputs: Inputs, windows: Sequence[int], pad_id: int, takes_types: bool) -> dict[str, Tensor]:
    """Returns the batch of these P windows, each padded on the right to the longest of them.

    Returns:
        input_ids and attention_mask, both (P, T) int64; for pairs token_type_ids, (P, T), where the model takes them.
    """
    formatted = [inputs.window(p) for p in windows]
    longest = max(len(ids) for ids, _ in formatted)
    ids = torch.full((len(formatted), longest), pad_id)
    mask = torch.zeros((len(formatted), longest), dtype=torch.int64)
    types = torch.zeros((len(formatted), longest), dtype=torch.int64)
    for row, (tokens, kinds) in enumerate(formatted):
        ids[row, : len(tokens)] = torch.from_numpy(tokens)
        mask[row, : len(tokens)] = 1
        if kinds is not None:
            types[row, : len(kinds)] = torch.from_numpy(kinds)
    batch = {"input_ids": ids, "attention_mask": mask}
    if takes_types and inputs.second is not None:
        batch["token_type_ids"] = types
    return batch
