"""Tokens kept on disk, so that a text is tokenised once."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bertlora.data.tokens import TokenTable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenizer_key(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Returns a short hash of everything that decides which ids a text gets."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {"vocab": tokenizer.get_vocab()}
    # What a call sets for itself is no part of the tokenizer.
    state.pop("truncation", None)
    state.pop("padding", None)
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def kept_tokens(folder: Path, name: str, make: Callable[[], Iterable[TokenTable]]) -> TokenTable:
    """Returns the table kept in `folder` under `name`, its ids mapped from disk; keeps it first where it is missing.

    Args:
        folder: where it is kept. One that cannot be written to is no reason to stop: the table is then in memory alone.
        name: of the table.
        make: gives the table in parts, of which one is in memory at a time.
    """
    ids, offsets = folder / f"{name}.ids", folder / f"{name}.offsets.npy"
    if not (ids.exists() and offsets.exists()):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(ids, offsets, make())
        except OSError:
            return TokenTable.joined(make())
    # An empty file cannot be mapped.
    kept = np.memmap(ids, dtype=np.int32, mode="r") if ids.stat().st_size else np.zeros(0, dtype=np.int32)
    return TokenTable(kept, np.load(offsets))


def _write(ids: Path, offsets: Path, parts: Iterable[TokenTable]) -> None:
    """Writes both files, the offsets last; several processes may do so at once."""
    partials = [path.with_name(f".{path.name}.partial-{os.getpid()}") for path in (ids, offsets)]
    ends = [np.zeros(1, dtype=np.int64)]
    try:
        with partials[0].open("wb") as file:
            for part in parts:
                file.write(part.ids.tobytes())
                ends.append(part.offsets[1:] + ends[-1][-1])
        with partials[1].open("wb") as file:
            np.save(file, np.concatenate(ends))
        for partial, path in zip(partials, (ids, offsets), strict=True):
            partial.replace(path)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)
