"""How far the numbers of a regression are from the truth: intervals that contain it with a wanted probability.

Split conformal prediction (Lei et al. 2018, "Distribution-free predictive inference for regression"): an interval is
the prediction plus or minus a quantile of the absolute errors on the validation rows. The guarantee holds for new rows
from the same distribution (exchangeability).

Letters: N validation rows, B rows.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save

from bertlora.confidence.calibration import FILE, ROWS_FILE, is_saved, reading
from bertlora.confidence.probabilities import Array
from bertlora.errors import InputError
from bertlora.files import write_whole, writing

COVERAGE = 0.9
LEVELS = (0.5, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Spread:
    """The targets' mean and scale in training, and the N validation rows by which intervals are chosen.

    Attributes:
        mean: of the training targets. The base model answers it for every text.
        scale: their standard deviation.
        values: (N,) float32, the kept adapter's predictions for the validation rows. N is 0 if there were none.
        y_true: (N,) float64, the right numbers.
    """

    mean: float
    scale: float
    values: npt.NDArray[np.float32]
    y_true: Array

    @classmethod
    def of(cls, mean: float, scale: float, outputs: Array, y_true: Array) -> "Spread":
        """Returns the spread for a model's outputs (N, 1) for validation rows; N may be 0."""
        return cls(mean, scale, outputs.reshape(-1).astype(np.float32), np.asarray(y_true, np.float64))

    @classmethod
    def without_rows(cls, mean: float = 0.0, scale: float = 1.0) -> "Spread":
        """Returns the spread of an adapter without validation rows."""
        return cls(mean, scale, np.zeros(0, np.float32), np.zeros(0))

    @property
    def rows(self) -> int:
        """N, the number of validation rows."""
        return len(self.y_true)

    def outputs(self, logits: Array) -> Array:
        """Returns the validation rows' numbers, (N, 1), in the unit of the targets; the logits are standardised."""
        return self.values[:, None].astype(np.float64)

    def facts(self) -> dict[str, Any]:
        """Returns what run.json has of it: enough to predict without the validation rows."""
        return {"target_mean": self.mean, "target_scale": self.scale}

    @property
    def errors(self) -> Array:
        """(N,) absolute errors on the validation rows, ascending."""
        return np.asarray(np.sort(np.abs(self.values - self.y_true)))

    def half_width(self, coverage: float) -> float | None:
        """Returns half the width of intervals that contain the truth with this probability, 0..1.

        It is the k-th smallest error of N, with k = (N + 1) coverage, rounded up. None if there are fewer than k rows.
        """
        place = math.ceil((self.rows + 1) * coverage - 1e-9)
        return float(self.errors[place - 1]) if 0 < place <= self.rows else None

    def predictions(self, labels: list[str], *, sets: float | None = None, **options: Any) -> "Values":
        """Returns how the outputs of the model become predictions.

        Args:
            labels: the name of the number.
            sets: the probability, 0..1, with which an interval contains the truth; None is 0.9, where the validation
                rows allow it.
            options: `raw`, `abstain` and `per_class`, which are for classes.

        Raises:
            InputError: an option is for classes, `sets` is out of its range, or there are too few validation rows.
        """
        for name, value in options.items():
            if value:
                raise InputError(f"{name}: is for classes, and this run predicts a number; leave it out")
        if sets is None:
            return Values(self.half_width(COVERAGE))
        if not 0 < sets < 1:
            raise InputError(f"sets: got {sets}, expected the share of intervals that contain the truth, in 0..1")
        half = self.half_width(sets)
        if half is None:
            from bertlora.confidence.label_sets import rows_needed  # brings scipy, which most predictions do not need

            needed = rows_needed(sets)
            raise InputError(
                f"sets: intervals for {sets:g} need {needed:,} validation rows, and the run has {self.rows:,}"
            )
        return Values(half, [f"intervals: the value plus or minus {half:.4g}, chosen on {self.rows:,} validation rows"])

    def save(self, run: Path) -> None:
        """Writes RUN/calibration.json and RUN/validation.safetensors.

        Raises:
            OutputError: they cannot be written.
        """
        with writing(run / ROWS_FILE):
            (run / ROWS_FILE).write_bytes(save({"values": self.values, "targets": self.y_true}))
        halves = {f"{level:g}": self.half_width(level) for level in LEVELS}
        table = {"mean": self.mean, "scale": self.scale, "rows": self.rows, "half_widths": halves}
        write_whole(run / FILE, json.dumps(table, indent=2) + "\n")

    @classmethod
    def load(cls, run: Path) -> "Spread | None":
        """Returns the spread of a run folder, or None if the folder has none.

        Raises:
            RunError: a file is damaged, or one of the two is missing.
        """
        if not is_saved(run):
            return None
        with reading(run / FILE) as file:
            table = json.loads(file.read_text(encoding="utf-8"))
            mean, scale, rows = float(table["mean"]), float(table["scale"]), int(table["rows"])
        with reading(run / ROWS_FILE) as file:
            tensors = load_file(file)
            values, y_true = tensors["values"], tensors["targets"]
            if values.dtype != np.float32 or values.shape != (rows,) or y_true.shape != (rows,):
                raise ValueError(f"expected values and targets of {rows} rows, as {FILE} says")
            if not (np.isfinite(values).all() and np.isfinite(y_true).all()):
                raise ValueError("a value is not finite")
        return cls(mean, scale, values, y_true.astype(np.float64))


@dataclass(frozen=True)
class Values:
    """How the outputs of a regression become predictions.

    Attributes:
        half: half the width of the intervals; None if there are too few validation rows.
        notes: what people should know about the intervals, in sentences.
    """

    half: float | None = None
    notes: list[str] | tuple[str, ...] = ()

    def __call__(self, outputs: Array) -> list[dict[str, Any]]:
        """Returns `value` and `interval` ([low, high] or None) for each row of outputs (B, 1)."""
        half = self.half
        return [
            {"value": value, "interval": None if half is None else [value - half, value + half]}
            for value in outputs[:, 0].tolist()
        ]
