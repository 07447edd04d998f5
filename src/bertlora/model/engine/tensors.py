"""From texts to the tensors that a model takes: packed rows, or padded batches.

texts        [CLS] a joy [SEP]      [CLS] dull [SEP]
input_ids    [CLS] a joy [SEP] [CLS] dull [SEP]        (1, T)
positions      0   1  2    3     0    1     2          restart with each text
"""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bertlora.data.inputs import Inputs
from bertlora.data.tokens import Ids
from bertlora.model.engine.changes import unwrapped
from bertlora.model.engine.packing import Packing

# Ids and, for a pair, token types of a text's window, as `Inputs.window` gives them.
Window = tuple[Ids, Ids | None]


def packed(
    inputs: Inputs, windows: Sequence[int], config: Any, pad_id: int, takes_types: bool, device: torch.device
) -> tuple[dict[str, Tensor], Packing]:
    """Returns the packed row of these windows, in their order, and where each lies; see `packed_row`."""
    return packed_row([inputs.window(p) for p in windows], config, pad_id, takes_types, device)


def packed_row(
    formatted: Sequence[Window], config: Any, pad_id: int, takes_types: bool, device: torch.device
) -> tuple[dict[str, Tensor], Packing]:
    """Returns the packed row of these windows, each with its ids and token types, and where each lies.

    Returns:
        input_ids and position_ids, both (1, T) int64; if one has token types, token_type_ids, (1, T), where the model
        takes them.
    """
    packing = Packing(tuple(len(ids) for ids, _ in formatted), device)
    filler = packing.row - packing.tokens
    ids = np.pad(np.concatenate([ids for ids, _ in formatted]), (0, filler), constant_values=pad_id)
    batch = {"input_ids": ids, "position_ids": positions(ids, (*packing.lengths, filler), config)}
    if takes_types and any(types is not None for _, types in formatted):
        kinds = [np.zeros(len(ids), dtype=np.int64) if types is None else types for ids, types in formatted]
        batch["token_type_ids"] = np.pad(np.concatenate(kinds), (0, filler))
    return {name: torch.from_numpy(x.astype(np.int64))[None].to(device) for name, x in batch.items()}, packing


def positions(ids: npt.NDArray[np.int32], lengths: Sequence[int], config: Any) -> npt.NDArray[np.int64]:
    """Returns the position of each token of a packed row, (T,): counted from 0 in each text; the last is filler.

    RoBERTa counts from after its padding id, and leaves out tokens of that id wherever they stand.
    """
    *own, filler = lengths
    # All of the filler is at the first position: it may be longer than the longest text that has positions.
    rest = np.zeros(filler, dtype=np.int64)
    if config.model_type not in ("roberta", "xlm-roberta"):
        return np.concatenate([*(np.arange(length) for length in own), rest])
    texts = np.split(ids[: len(ids) - filler] != config.pad_token_id, np.cumsum(own)[:-1])
    return np.concatenate([*(np.cumsum(real) * real for real in texts), rest]) + int(config.pad_token_id)


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


def pooled(values: Tensor, owners: npt.NDArray[np.int64], texts: int) -> Tensor:
    """Returns for each text the mean over its windows, (B, X).

    Args:
        values: (P, X), one row for each window.
        owners: (P,) the text of each window.
        texts: B.
    """
    if np.array_equal(owners, np.arange(texts)):
        return values
    whose = torch.from_numpy(owners).to(values.device)
    sums = values.new_zeros(texts, values.shape[1]).index_add(0, whose, values)
    return sums / torch.bincount(whose, minlength=texts).unsqueeze(1)


def takes_token_types(model: nn.Module) -> bool:
    """Returns whether the model tells the two texts of a pair apart by token types."""
    inner = unwrapped(model)
    known = "token_type_ids" in inspect.signature(inner.forward).parameters
    return known and getattr(inner.config, "type_vocab_size", 0) > 1
