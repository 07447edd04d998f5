"""Temperature scaling: the one number that corrects the confidence of a run.

Of a hundred predictions with a confidence of 80 %, eighty should be right. Later epochs make a model overconfident;
dividing its logits by a temperature corrects this and changes no label.

Letters: N validation rows, B rows, K classes.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from bertlora.confidence.probabilities import Array, Labels, calibration_error, softmax
from bertlora.errors import RunError
from bertlora.files import write_whole, writing
from bertlora.hashes import is_part

FILES = FILE, ROWS_FILE = "calibration.json", "validation.safetensors"
FEWEST_ROWS = 30
HOTTEST = 100.0
# 95 % of the chi-square distribution with one degree of freedom: twice a log-likelihood gains less by chance.
CRITICAL = 3.84


@dataclass(frozen=True)
class Calibration:
    """The temperature of a run, and the N validation rows on which it was fitted.

    This class owns the temperature: nothing else divides logits by it.

    Attributes:
        temperature: logits are divided by it before softmax. Above 1 the raw probabilities were overconfident.
        logits: (N, K) float32, the kept adapter's logits of the validation rows. N is 0 if there were none.
        y_true: (N,) int64 in 0..K-1, their labels.
    """

    temperature: float
    logits: npt.NDArray[np.float32]
    y_true: Labels

    @classmethod
    def fit(cls, logits: Array, y_true: Labels) -> "Calibration":
        """Fits the temperature to the logits (N, K) and labels (N,) of validation rows; N may be 0."""
        kept = logits.astype(np.float32)
        # Fitted on the stored numbers, so that the fit can be repeated from the file.
        return cls(fit_temperature(kept.astype(np.float64), y_true), kept, np.asarray(y_true, dtype=np.int64))

    @classmethod
    def without_rows(cls, classes: int, temperature: float = 1.0) -> "Calibration":
        """Returns the calibration of an adapter without validation rows."""
        return cls(temperature, np.zeros((0, classes), np.float32), np.zeros(0, np.int64))

    @property
    def rows(self) -> int:
        """N, the number of validation rows."""
        return len(self.y_true)

    def scaled(self, logits: Array) -> Array:
        """Returns logits (B, K) divided by the temperature."""
        return logits / self.temperature

    outputs = scaled

    def facts(self) -> dict[str, Any]:
        """Returns what run.json has of it: enough to predict without the validation rows."""
        return {"temperature": self.temperature}

    def probabilities(self, logits: Array) -> Array:
        """Returns calibrated probabilities (B, K) for logits (B, K). The most probable class stays the same."""
        return softmax(self.scaled(logits))

    @property
    def validation(self) -> Array:
        """Calibrated probabilities (N, K) of the validation rows. Thresholds and label sets are chosen on them."""
        return self.probabilities(self.logits.astype(np.float64))

    @property
    def ece_before(self) -> float:
        """Expected calibration error on the validation rows with raw probabilities."""
        return calibration_error(softmax(self.logits.astype(np.float64)), self.y_true)

    @property
    def ece_after(self) -> float:
        """The same with the temperature, which was fitted to these rows. On new rows it is slightly higher."""
        return calibration_error(self.validation, self.y_true)

    def save(self, run: Path) -> None:
        """Writes RUN/calibration.json and RUN/validation.safetensors.

        Raises:
            OutputError: they cannot be written.
        """
        with writing(run / ROWS_FILE):
            (run / ROWS_FILE).write_bytes(save({"logits": self.logits, "labels": self.y_true}))
        table = {
            "temperature": self.temperature,
            "rows": self.rows,
            "ece_before": self.ece_before,
            "ece_after": self.ece_after,
        }
        write_whole(run / FILE, json.dumps(table, indent=2) + "\n")

    @classmethod
    def load(cls, run: Path) -> "Calibration | None":
        """Returns the calibration of a run folder, or None if the folder has none.

        Raises:
            RunError: a file is damaged, or one of the two is missing.
        """
        if not is_saved(run):
            return None
        with reading(run / FILE) as file:
            table = json.loads(file.read_text(encoding="utf-8"))
            temperature, rows = float(table["temperature"]), int(table["rows"])
            if not (math.isfinite(temperature) and temperature > 0):
                raise ValueError(f"temperature {temperature}, expected a number above 0")
        with reading(run / ROWS_FILE) as file:
            tensors = load_file(file)
            logits, y_true = tensors["logits"], tensors["labels"]
            kinds = logits.dtype == np.float32 and y_true.dtype == np.int64 and logits.ndim == 2
            if not kinds or len(logits) != rows or y_true.shape != (rows,):
                raise ValueError(f"expected logits and labels of {rows} rows, as {FILE} says")
            if not np.isfinite(logits).all() or not ((y_true >= 0) & (y_true < logits.shape[1])).all():
                raise ValueError("a value is out of its range")
        return cls(temperature, logits, y_true)


UNCALIBRATED = Calibration.without_rows(0)


def is_saved(run: Path) -> bool:
    """Returns whether a run folder has what validation rows taught.

    Raises:
        RunError: a file of it is not the one that was saved.
    """
    there = [is_part(run / name) for name in FILES]  # each is checked, also behind one that is there
    return any(there)


@contextmanager
def reading(file: Path) -> Iterator[Path]:
    """Inside, any fault of the file becomes a RunError that names it."""
    # JSON may hold a list where an object is expected, numbers that are infinite, or be nested too deep.
    damaged = OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError
    try:
        yield file
    except (*damaged, SafetensorError) as error:
        raise RunError(f"{file}: cannot be read ({error}); the run is damaged") from error


def fit_temperature(logits: Array, labels: Labels) -> float:
    """Returns the temperature: logits divided by it give the probabilities that fit the labels best.

    Guo et al. 2017, "On Calibration of Modern Neural Networks": the temperature minimises the negative log-likelihood,
    here over 0.01..100. The labels are smoothed as in Platt 1999, "Probabilistic outputs for support vector machines":
    each label gives 1 / (N + 1) of its weight to all classes equally. Without smoothing, N right rows would make the
    model certain of each new row.

    There may be few rows, and the logits of a model that has learned little fit some of them by chance. So the
    temperature stays 1.0 unless a likelihood-ratio test (Wilks 1938, "The large-sample distribution of the likelihood
    ratio for testing composite hypotheses") rejects it at the 95 % level: 2 N (gain in mean log-likelihood) > 3.84.

    Args:
        logits: (N, K) of rows that the model was not trained on.
        labels: (N,) their right classes.

    Returns:
        The temperature; 1.0 with fewer than 30 rows, or if no temperature fits significantly better.
    """
    from scipy.optimize import minimize_scalar  # scipy takes a second to import, and predictions do not need it

    rows = len(labels)
    if rows < FEWEST_ROWS:
        return 1.0
    doubt = 1 / (rows + 1)
    # The highest logit of a row is 0, so no power overflows at any temperature.
    below = logits - logits.max(axis=1, keepdims=True)
    right = float(np.mean((1 - doubt) * below[np.arange(rows), labels] + doubt * below.mean(axis=1)))

    def loss(log_temperature: float) -> float:
        scale = float(np.exp(-log_temperature))
        return float(np.mean(np.log(np.exp(below * scale).sum(axis=1)))) - right * scale

    bounds = -np.log(HOTTEST), np.log(HOTTEST)
    found = float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)
    return float(np.exp(found)) if 2 * rows * (loss(0.0) - loss(found)) > CRITICAL else 1.0
