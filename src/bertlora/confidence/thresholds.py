"""From the logits of several labels to the labels that a text gets: a temperature and a threshold for each label.

Letters: N or V rows, B rows, K labels, R resamples, C cuts.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save

from bertlora.confidence.agreement import resamples
from bertlora.confidence.calibration import FILE, ROWS_FILE, fit_temperature, is_saved, reading
from bertlora.confidence.probabilities import Array, sigmoid
from bertlora.errors import InputError
from bertlora.files import write_whole, writing

Chosen = npt.NDArray[np.bool_]

DEFAULT = 0.5
# With fewer rows that have a label, or that lack it, its threshold stays 0.5 and its temperature 1.
FEWEST = 5
RESAMPLES = 50


@dataclass(frozen=True)
class Thresholds:
    """Temperature and threshold of each of K labels, and the V validation rows on which they were chosen.

    Attributes:
        temperatures: (K,) logits are divided by them before the sigmoid.
        thresholds: (K,) a text gets the labels whose calibrated probability is at least this, in 0..1.
        logits: (V, K) float32, the kept adapter's logits of the validation rows. V is 0 if there were none.
        y_true: (V, K) which labels these rows have.
    """

    temperatures: Array
    thresholds: Array
    logits: npt.NDArray[np.float32]
    y_true: Chosen

    @classmethod
    def fit(cls, logits: Array, y_true: Chosen) -> "Thresholds":
        """Chooses both for the logits (V, K) and labels (V, K) of validation rows; V may be 0.

        A label is fitted as two classes, with the label and without it; see `fit_temperature`. The thresholds are
        chosen on the calibrated probabilities; see `choose_thresholds`.
        """
        kept, y_true = logits.astype(np.float32), np.asarray(y_true, dtype=np.bool_)
        # Fitted on the stored numbers, so that the fit can be repeated from the file.
        exact = kept.astype(np.float64)
        temperatures = np.array([_temperature(z, y) for z, y in zip(exact.T, y_true.T, strict=True)])
        return cls(temperatures, choose_thresholds(sigmoid(exact / temperatures), y_true), kept, y_true)

    @classmethod
    def without_rows(
        cls, labels: int, temperatures: Sequence[float] = (), thresholds: Sequence[float] = ()
    ) -> "Thresholds":
        """Returns temperatures and thresholds of K labels without validation rows: 1 and 0.5 if none are given."""
        none = np.zeros((0, labels))
        warm, cuts = np.array(temperatures or np.ones(labels)), np.array(thresholds or np.full(labels, DEFAULT))
        return cls(warm, cuts, none.astype(np.float32), none.astype(np.bool_))

    @property
    def rows(self) -> int:
        """V, the number of validation rows."""
        return len(self.y_true)

    def scaled(self, logits: Array) -> Array:
        """Returns logits (B, K) divided by the temperatures."""
        return np.asarray(logits / self.temperatures)

    outputs = scaled

    def facts(self) -> dict[str, Any]:
        """Returns what run.json has of it: enough to predict without the validation rows."""
        return {"temperatures": self.temperatures.tolist(), "thresholds": self.thresholds.tolist()}

    def probabilities(self, logits: Array) -> Array:
        """Returns calibrated probabilities (B, K) of each label for logits (B, K). A row's sum need not be 1."""
        return sigmoid(self.scaled(logits))

    def chosen(self, logits: Array) -> Chosen:
        """Returns which labels (B, K) each row of logits (B, K) gets; it may be none."""
        return np.asarray(self.probabilities(logits) >= self.thresholds)

    def predictions(self, labels: list[str], *, raw: bool = False, **options: Any) -> "LabelPredictions":
        """Returns how the logits of the model become predictions.

        Args:
            labels: names of the K labels.
            raw: use neither the temperatures nor the thresholds, but 0.5.
            options: `abstain`, `sets` and `per_class`, which are for texts with one label.

        Raises:
            InputError: an option is for texts with one label.
        """
        for name, value in options.items():
            if value or (name == "sets" and value is not None):
                raise InputError(f"{name}: is for one label per text, and this run predicts several; leave it out")
        return LabelPredictions(labels, Thresholds.without_rows(len(labels)) if raw else self)

    def save(self, run: Path) -> None:
        """Writes RUN/calibration.json and RUN/validation.safetensors.

        Raises:
            OutputError: they cannot be written.
        """
        with writing(run / ROWS_FILE):
            (run / ROWS_FILE).write_bytes(save({"logits": self.logits, "labels": self.y_true}))
        table = {
            "rows": self.rows,
            "temperatures": self.temperatures.tolist(),
            "thresholds": self.thresholds.tolist(),
            "rows_with_label": self.y_true.sum(axis=0).tolist(),
        }
        write_whole(run / FILE, json.dumps(table, indent=2) + "\n")

    @classmethod
    def load(cls, run: Path) -> "Thresholds | None":
        """Returns the thresholds of a run folder, or None if the folder has none.

        Raises:
            RunError: a file is damaged, or one of the two is missing.
        """
        if not is_saved(run):
            return None
        with reading(run / FILE) as file:
            table = json.loads(file.read_text(encoding="utf-8"))
            rows = int(table["rows"])
            temperatures, thresholds = (np.array(table[name], np.float64) for name in ("temperatures", "thresholds"))
            if not (np.isfinite(temperatures) & (temperatures > 0)).all():
                raise ValueError("temperatures: expected numbers above 0")
            if not ((thresholds >= 0) & (thresholds <= 1)).all():
                raise ValueError("thresholds: expected numbers in 0..1")
        with reading(run / ROWS_FILE) as file:
            tensors = load_file(file)
            logits, y_true = tensors["logits"], tensors["labels"]
            shape = (rows, *thresholds.shape)
            if logits.dtype != np.float32 or y_true.dtype != np.bool_ or temperatures.shape != thresholds.shape:
                raise ValueError("expected float32 logits, bool labels, and two numbers of each label")
            if logits.shape != shape or y_true.shape != shape or len(shape) != 2:
                raise ValueError(f"expected logits and labels of {rows} rows, as {FILE} says")
            if not np.isfinite(logits).all():
                raise ValueError("a value is not finite")
        return cls(temperatures, thresholds, logits, y_true)


@dataclass(frozen=True)
class LabelPredictions:
    """How the logits of K labels become predictions.

    Attributes:
        labels: names of the K labels.
        thresholds: turn logits into probabilities, and these into labels.
    """

    labels: list[str]
    thresholds: Thresholds

    @property
    def notes(self) -> list[str]:
        """What people should know, in sentences; nothing here."""
        return []

    def __call__(self, logits: Array) -> list[dict[str, Any]]:
        """Returns `labels` and `probabilities` for each row of logits (B, K).

        `labels` are the chosen ones, the most probable first; there may be none. `probabilities` {label: p}: each is in
        0..1, and their sum need not be 1.
        """
        probabilities = self.thresholds.probabilities(logits)
        return [
            {
                "labels": [self.labels[k] for k in (-row).argsort(kind="stable") if held[k]],
                "probabilities": dict(zip(self.labels, row.tolist(), strict=True)),
            }
            for row, held in zip(probabilities, self.thresholds.chosen(logits), strict=True)
        ]


def choose_thresholds(probabilities: Array, y_true: Chosen, seed: int = 0) -> Array:
    """Returns the threshold (K,) of each label that gives it a high F1 on new rows, in 0..1.

    It is the mean over 50 resamples of the rows of the threshold with the highest F1 (bagging: Breiman 1996, "Bagging
    predictors"). The best threshold of the rows themselves follows their chance. If several are best, the middle one
    counts. A label stays at 0.5 if fewer than 5 rows have it, or lack it.

    Measured by `benchmarks/label_thresholds.py`: labels in 2 % to 30 % of rows, logits that are right, or too low or
    too high by 1. With 5 rows that have the label, F1 on new rows is on average 0.059 higher than with 0.5; with 20
    rows 0.075, and with 50 rows 0.080. In the worst case it is 0.027, 0.011 and 0.007 lower. The best threshold of the
    rows themselves gains 0.040, 0.065 and 0.074, and loses 0.059, 0.024 and 0.013.

    Args:
        probabilities: (N, K) of rows that the model was not trained on; N may be 0.
        y_true: (N, K) which labels they have.
        seed: seed of the resampling.
    """
    thresholds = np.full(y_true.shape[1], DEFAULT)
    if not len(y_true):
        return thresholds
    times = np.concatenate(list(resamples(len(y_true), seed, RESAMPLES)))
    for k in np.flatnonzero(_enough(y_true)):
        thresholds[k] = best_threshold(probabilities[:, k], y_true[:, k], times)
    return thresholds


def best_threshold(probabilities: Array, y_true: Chosen, times: Array) -> float:
    """Returns the mean over resamples of the threshold with the highest F1; rows (N,) occur `times` (R, N)."""
    order = np.argsort(-probabilities, kind="stable")
    falling, drawn = probabilities[order], times[:, order]
    after = np.append(falling[1:], 0.0)
    # A threshold between two neighbours; equal probabilities are not parted.
    parts = falling > after
    parts[-1] = True
    hits = np.cumsum(drawn * y_true[order], axis=1)[:, parts]  # (R, C)
    f1 = 2 * hits / np.maximum(np.cumsum(drawn, axis=1)[:, parts] + hits[:, -1:], 1)
    # If several thresholds are equally good, the middle one.
    ties = np.cumsum(f1 >= f1.max(axis=1, keepdims=True) - 1e-12, axis=1)
    middle = np.argmax(ties >= (ties[:, -1:] + 1) // 2, axis=1)
    cuts = ((falling + after) / 2)[parts][middle]
    return float(cuts[hits[:, -1] > 0].mean())


def _temperature(logits: Array, y_true: Chosen) -> float:
    """Returns the temperature of a label by its logits (V,)."""
    if not _enough(y_true):
        return 1.0
    return fit_temperature(np.stack([np.zeros(len(logits)), logits], axis=1), y_true.astype(np.int64))


def _enough(y_true: Chosen) -> Any:
    """Returns whether enough rows have a label, and enough lack it, by column of (N, ...)."""
    having = y_true.sum(axis=0)
    return np.minimum(having, len(y_true) - having) >= FEWEST
