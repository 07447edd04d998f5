"""Tiny classifiers as ONNX files, written once for all tests of a session."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import adapted_of

from bertlora.export.onnx_graph import write_onnx
from bertlora.export.per_token import write_int8
from bertlora.model.adapted import Adapted
from bertlora.model.engine import takes_token_types

Feed = dict[str, np.ndarray]


class Exported:
    """A tiny adapter, its merged model, and its graphs in fp32 and int8."""

    def __init__(self, base: Path, folder: Path, targets: tuple[str, ...] = ("all-linear",)) -> None:
        self.adapted: Adapted = adapted_of(base, targets=list(targets))
        self.model: Any = self.adapted.merged().eval()
        self.types = takes_token_types(self.model)
        self.fp32, self.int8 = folder / "model.onnx", folder / "int8.onnx"
        write_onnx(self.model, self.types, self.fp32)
        self.counts = write_int8(self.fp32, self.int8)

    def batch(self, lengths: list[int], width: int = 0, seed: int = 0) -> Feed:
        """Returns texts of these lengths with random words, padded to the longest or to `width`."""
        return joined([self.text(length, seed + i) for i, length in enumerate(lengths)], width, self.pad_id)

    def text(self, length: int, seed: int) -> np.ndarray:
        """Returns the ids of a text of random words."""
        return np.random.default_rng(seed).integers(1000, 30000, length)

    @property
    def pad_id(self) -> int:
        """The tokenizer's padding id."""
        return self.adapted.reader.pad_id

    def inputs(self, batch: Feed) -> Feed:
        """Returns the inputs that the graph takes."""
        types = {"token_type_ids": batch["input_ids"] % 2 * batch["attention_mask"]}
        return batch | types if self.types else batch


def joined(texts: list[np.ndarray], width: int, pad_id: int) -> Feed:
    """Returns a batch of texts, padded on the right."""
    width = max(width, *(len(text) for text in texts))
    ids = np.full((len(texts), width), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return {"input_ids": ids, "attention_mask": mask}


def exporter(tiny: Callable[[str], Path], folders: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Returns a function: architecture → its tiny classifier as ONNX files, written once."""
    return cache(lambda architecture: Exported(tiny(architecture), folders.mktemp(architecture)))
