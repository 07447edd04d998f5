"""How far the probabilities of a run can be trusted: its temperature, and the validation rows that it comes from."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from bertlora.errors import RunError
from bertlora.files import write_whole, writing
from bertlora.model.predict import Array, softmax
from bertlora.run.manifest import Manifest

FILES = FILE, ROWS_FILE = "calibration.json", "validation.safetensors"


@dataclass(frozen=True)
class Calibration:
    """A temperature, and what the kept adapter made of the N validation rows that it was fitted on.

    Attributes:
        temperature: what logits are divided by before softmax; above 1 the raw probabilities were too sure.
        ece_before: expected calibration error on these rows with raw probabilities.
        ece_after: the same with the temperature; on rows that it has not seen it is a little higher.
        logits: (N, K) float32, of the validation rows.
        labels: (N,) int64 in 0..K-1, their right classes.
    """

    temperature: float
    ece_before: float
    ece_after: float
    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def probabilities(self, logits: Array) -> Array:
        """Returns calibrated probabilities (B, K) for logits (B, K); the most probable class stays the same."""
        return softmax(logits / self.temperature)

    @property
    def validation(self) -> Array:
        """Calibrated probabilities (N, K) of the validation rows: what thresholds and label sets are chosen on."""
        return self.probabilities(self.logits.astype(np.float64))

    def fits(self, manifest: Manifest) -> bool:
        """Tells whether it is of the training that the manifest tells of."""
        return self.temperature == manifest.temperature and self.logits.shape[1] == len(manifest.labels)

    def save(self, run: Path) -> None:
        """Writes RUN/calibration.json and RUN/validation.safetensors.

        Raises:
            OutputError: they cannot be written.
        """
        with writing(run / ROWS_FILE):
            (run / ROWS_FILE).write_bytes(save({"logits": self.logits, "labels": self.labels}))
        table = {
            "temperature": self.temperature,
            "rows": len(self.labels),
            "ece_before": self.ece_before,
            "ece_after": self.ece_after,
        }
        write_whole(run / FILE, json.dumps(table, indent=2) + "\n")

    @classmethod
    def load(cls, run: Path) -> "Calibration | None":
        """Returns the calibration of a run folder, None where it has none.

        Raises:
            RunError: a file is damaged, or one of the two is missing.
        """
        if not any((run / name).exists() for name in FILES):
            return None
        with _reading(run / FILE) as file:
            table = json.loads(file.read_text(encoding="utf-8"))
            temperature, before, after = (float(table[key]) for key in ("temperature", "ece_before", "ece_after"))
            if not (math.isfinite(temperature) and temperature > 0):
                raise ValueError(f"temperature {temperature}, expected a number above 0")
            rows = int(table["rows"])
        with _reading(run / ROWS_FILE) as file:
            tensors = load_file(file)
            logits, labels = tensors["logits"], tensors["labels"]
            kinds = logits.dtype == np.float32 and labels.dtype == np.int64 and logits.ndim == 2
            if not kinds or len(logits) != rows or labels.shape != (rows,):
                raise ValueError(f"expected logits and labels of {rows} rows, as {FILE} says")
            if not np.isfinite(logits).all() or not ((labels >= 0) & (labels < logits.shape[1])).all():
                raise ValueError("a value is out of its range")
        return cls(temperature, before, after, logits, labels)


@contextmanager
def _reading(file: Path) -> Iterator[Path]:
    """Inside, whatever is wrong with a file becomes a RunError that names it."""
    try:
        yield file
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise RunError(f"{file}: cannot be read ({error}); the run is damaged") from error
