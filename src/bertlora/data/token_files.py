"""Tokens kept on disk, so that a text is tokenised once."""

import hashlib
import json
import os
from collections.abc import Callable
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


def kept_tokens(folder: Path, name: str, make: Callable[[], TokenTable]) -> TokenTable:
    """Returns the table kept in `folder` under `name`, mapped from disk; makes and keeps it where it is missing.

    A folder that cannot be written to is no reason to stop: the table is then held in memory alone.
    """
    ids, offsets = folder / f"{name}.ids.npy", folder / f"{name}.offsets.npy"
    if not (ids.exists() and offsets.exists()):
        table = make()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path, array in ((ids, table.ids), (offsets, table.offsets)):
                partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
                try:
                    with partial.open("wb") as file:
                        np.save(file, array)
                    partial.replace(path)
                finally:
                    partial.unlink(missing_ok=True)
        except OSError:
            return table
    return TokenTable(np.load(ids, mmap_mode="r"), np.load(offsets))
