"""What is exported: a run with its calibration, and the texts on which an export is compared with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bertlora.confidence.learned import Learned, divisors
from bertlora.confidence.probabilities import Array
from bertlora.data.inputs import Inputs
from bertlora.data.reader import Examples
from bertlora.errors import BertloraError, ModelError
from bertlora.export.certificate import FP32_DIFFERENCE, largest
from bertlora.model.adapted import Adapted
from bertlora.task import REGRESSION

# A text, and the second text of a pair or None.
Texts = Sequence[tuple[str, str | None]]


class ParityError(BertloraError, RuntimeError):
    """An export that does not give what the run gives. It was not kept."""


@dataclass(frozen=True)
class Origin:
    """What is exported.

    Attributes:
        adapted: the model with its adapter.
        calibration: what its validation rows taught.
        folder: the run folder or adapter folder from which it was loaded.
        manifest: the values of run.json, without the data's folder.
        texts: real texts on which the export is compared.
        validation: the validation rows, for formats that lose accuracy; None if they are missing.
        tolerance: points of accuracy that such a format may lose on them.
    """

    adapted: Adapted
    calibration: Learned
    folder: Path
    manifest: dict[str, Any]
    texts: Texts
    validation: Examples | None = None
    tolerance: float = 0.5

    def inputs(self) -> Inputs:
        """Returns the inputs of the texts."""
        return self.adapted.reader.read([t for t, _ in self.texts], [p for _, p in self.texts if p is not None] or None)

    def allowed(self, expected: Array) -> float:
        """Returns how far outputs in fp32 may differ. Numbers have a unit, so theirs is a fraction of the largest."""
        return FP32_DIFFERENCE * (largest(expected) if self.adapted.task == REGRESSION else 1.0)


def calibrated(origin: Origin) -> Any:
    """Returns the merged model with the temperature in its last linear layer, so that softmax gives its confidence."""
    merged = origin.adapted.merged().float().eval()
    outside = {name for name, _ in merged.named_modules() if not name.startswith(f"{merged.base_model_prefix}.")}
    heads = [m for name, m in merged.named_modules() if name in outside and isinstance(m, nn.Linear)]
    if not heads or heads[-1].out_features != len(origin.adapted.labels):
        raise ModelError(f"{origin.adapted.architecture}: its head has no last linear layer for the temperature")
    head, scale = heads[-1], torch.from_numpy(divisors(origin.calibration, len(origin.adapted.labels)))
    with torch.no_grad():
        head.weight.copy_(head.weight.double() / scale.to(head.weight.device)[:, None])
        if head.bias is not None:
            head.bias.copy_(head.bias.double() / scale.to(head.bias.device))
    return merged
