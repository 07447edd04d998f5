"""Tokenizers without transformers: texts → token ids, from the `tokenizers` library.

    tokenizer = read_tokenizer(folder)          # None if only transformers can build it
    tokenizer.ids(["A fine film."])             # [[1037, 2986, 2143, 1012]]

`tokenizer_rules.py` says when tokenizer.json holds what transformers would build.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertlora.data.tokenizer_rules import as_transformers, special_tokens
from bertlora.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

Span = tuple[int, int]


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer of the `tokenizers` library, which uses all cores.

    Attributes:
        backend: the library's tokenizer, with truncation and padding off.
        pad_id: id that fills short rows.
        unknown_id: id of what is not in the vocabulary; None if the tokenizer knows every byte.
        mask_id: id of the mask token, or None.
        folder: where the tokenizer's files are; None for one that was made in memory.
    """

    backend: "Backend"
    pad_id: int
    unknown_id: int | None = None
    mask_id: int | None = None
    folder: Path | None = None

    @cached_property
    def key(self) -> str:
        """A short hash of everything that decides which ids a text gets."""
        return _hash(_state(self.backend))

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without special tokens and not cut."""
        return [found.ids for found in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def pieces(self) -> dict[str, int]:
        """Returns the vocabulary: piece → id."""
        return self.backend.get_vocab()

    def spans(self, text: str) -> list[Span]:
        """Returns for each token of a text its first character and the character after its last."""
        return list(self.backend.encode(text, add_special_tokens=False).offsets)

    def with_special(self, text: str, pair: str | None = None) -> tuple[list[int], list[int]]:
        """Returns the ids and token types of a text or a pair, with special tokens."""
        found = self.backend.encode(text, pair)
        return found.ids, found.type_ids


@dataclass(frozen=True)
class PythonTokenizer:
    """A transformers tokenizer that is written in Python (BertJapanese, for example); see `Tokenizer`."""

    whole: Any
    pad_id: int
    unknown_id: int | None = None
    mask_id: int | None = None
    folder: Path | None = None

    @cached_property
    def key(self) -> str:
        """A short hash of the vocabulary."""
        return _hash({"vocab": self.whole.get_vocab()})

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without special tokens and not cut."""
        return [list(row) for row in self.whole(list(texts), add_special_tokens=False, verbose=False)["input_ids"]]

    def pieces(self) -> dict[str, int]:
        """Returns the vocabulary: piece → id."""
        return dict(self.whole.get_vocab())

    def spans(self, text: str) -> list[Span]:
        """Raises ModelError: transformers does not record the characters of these tokens."""
        raise ModelError("the tokenizer does not say which characters a token covers; use one with tokenizer.json")

    def with_special(self, text: str, pair: str | None = None) -> tuple[list[int], list[int]]:
        """Returns the ids and token types of a text or a pair, with special tokens."""
        found = self.whole(text, pair, return_token_type_ids=True)
        ids = list(found["input_ids"])
        return ids, list(found.get("token_type_ids") or [0] * len(ids))


AnyTokenizer = Tokenizer | PythonTokenizer


def from_transformers(whole: Any, folder: Path | None = None) -> AnyTokenizer:
    """Returns the same tokenizer as a transformers tokenizer, which must have a padding token."""
    special = (int(whole.pad_token_id), whole.unk_token_id, whole.mask_token_id, folder)
    backend = getattr(whole, "backend_tokenizer", None)
    if backend is None:
        return PythonTokenizer(whole, *special)
    from tokenizers import Tokenizer as Backend

    # A copy: transformers sets truncation and padding on its own with every call.
    return Tokenizer(_whole_texts(Backend.from_str(backend.to_str())), *special)


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """Returns the tokenizer in a model's folder, equal to the one that transformers would build.

    Returns:
        None if there is no tokenizer.json, if transformers might build another tokenizer from these files, or if there
        is no padding token: transformers then decides, or reports the error.
    """
    from tokenizers import Tokenizer as Backend

    try:
        config, model = _json(folder / "tokenizer_config.json"), _json(folder / "config.json")
        if "added_tokens_decoder" not in config:
            config |= _json(folder / "special_tokens_map.json")
        backend = _whole_texts(Backend.from_file(str(folder / "tokenizer.json")))
    except Exception:  # the tokenizers library raises its own kind, which has no name
        return None
    kind, tokens = special_tokens(config, model)
    ids = {name: backend.token_to_id(token) for name, token in tokens.items()}
    pad_id = ids.get("pad")
    # Without words transformers reports an error.
    empty = backend.get_vocab_size() <= len(tokens)
    if pad_id is None or empty or not as_transformers(_state(backend), kind, config, tokens):
        return None
    return Tokenizer(backend, pad_id, ids.get("unk"), ids.get("mask"), folder)


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _whole_texts(backend: "Backend") -> "Backend":
    """Returns the tokenizer with truncation and padding off, which a file may set."""
    backend.no_truncation()
    backend.no_padding()
    return backend


def _state(backend: "Backend") -> dict[str, Any]:
    """Returns the state of a tokenizer; truncation and padding, which a call may set, are not part of it."""
    state: dict[str, Any] = json.loads(backend.to_str())
    return {name: part for name, part in state.items() if name not in ("truncation", "padding")}


def _hash(state: dict[str, Any]) -> str:
    return sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]
