"""What runs an exported model: bertlora's own engine for a plain transformers folder, ONNX Runtime for graphs."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification

from bertlora.confidence.probabilities import Array
from bertlora.data.inputs import Inputs
from bertlora.data.reader import Reader
from bertlora.errors import RunError
from bertlora.export.runtime import onnx_runner, openvino_runner
from bertlora.model.adapted import Runnable
from bertlora.model.base import quiet
from bertlora.model.machine import default_device

GRAPH, OPENVINO_GRAPH = "model.onnx", "model.xml"


class Runner(Protocol):
    """A model that is loaded."""

    def choose_precision(self, wanted: str) -> str:
        """Returns `fp32` or `bf16`; raises InputError if it does not have the wanted one."""
        ...

    def ready(self, precision: str = "fp32") -> AbstractContextManager[None]:
        """Inside, this thread's calls start at once."""
        ...

    def logits(self, inputs: Inputs, *, precision: str = "fp32") -> Array:
        """Returns outputs, (B, K) float64."""
        ...


def _merged(folder: Path, reader: Reader, labels: list[str]) -> Runner:
    """Loads a plain transformers folder, which runs packed."""
    try:
        with quiet():
            model = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise RunError(f"{folder}: its model cannot be read ({str(error).splitlines()[0]}); export again") from error
    return Runnable(model.to(default_device()).eval(), reader, labels)


def _onnx(folder: Path, reader: Reader, labels: list[str]) -> Runner:
    return onnx_runner(folder / GRAPH, reader.pad_id)


def _openvino(folder: Path, reader: Reader, labels: list[str]) -> Runner:
    return openvino_runner(folder / OPENVINO_GRAPH, reader.pad_id)


# Format → what loads its model.
RUNNERS: dict[str, Callable[[Path, Reader, list[str]], Runner]] = {
    "merged": _merged,
    "onnx": _onnx,
    "onnx-int8": _onnx,
    "openvino": _openvino,
}
