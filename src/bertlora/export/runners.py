"""What runs an exported model: bertlora's own engine for a plain transformers folder, ONNX Runtime for the others."""

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
from bertlora.model.base import quiet
from bertlora.model.machine import default_device
from bertlora.model.runnable import Runnable


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


RUNNERS: dict[str, Callable[[Path, Reader, list[str]], Runner]] = {"merged": _merged}
