"""The linear probe that is kept beside the adapter."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from bertlora.errors import RunError

FILE = "probe.safetensors"


@dataclass(frozen=True)
class Probe:
    """A linear probe: softmax regression on what the frozen encoder makes of a text.

    Attributes:
        weight: (K, F), on standardised features folded in.
        bias: (K,).
    """

    weight: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]

    def logits(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Returns (B, K) for features (B, F)."""
        return np.asarray(features @ self.weight.T + self.bias)

    def save(self, run: Path) -> None:
        """Writes RUN/probe.safetensors."""
        (run / FILE).write_bytes(save({"weight": self.weight, "bias": self.bias}))

    @classmethod
    def load(cls, run: Path) -> "Probe | None":
        """Returns the probe of a run folder, None where it has none.

        Raises:
            RunError: its file is damaged.
        """
        file = run / FILE
        if not file.is_file():
            return None
        try:
            tensors = load_file(file)
        except (OSError, SafetensorError) as error:
            raise RunError(f"{file}: cannot be read ({error}); the run is damaged") from error
        return cls(tensors["weight"], tensors["bias"])
