"""Base, linear probe and LoRA on the same rows: the figures, and what they mean."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertlora.confidence.calibration import UNCALIBRATED, Calibration
from bertlora.confidence.intervals import accuracy_interval
from bertlora.confidence.probabilities import Array
from bertlora.data.examples import Examples
from bertlora.evaluation.comparison import Comparison
from bertlora.evaluation.metrics import classification_metrics
from bertlora.run.loaded import Run

# The figures that a temperature changes. It changes no label.
CALIBRATED = ("loss", "ece", "brier")
# How the rows of an evaluation are named: `test split`, `more.csv, test split`, `test split of the data of runs/a`.
PLACE = re.compile(r"(?:(?P<source>.*), )?(?P<split>train|validation|test) split(?: of the data of .*)?")
RIVALS = {"probe": "the linear probe", "base": "the base model"}


@dataclass(frozen=True)
class Evaluated:
    """The outputs of a run's classifiers on the same N labelled rows.

    Attributes:
        labels: names of the K classes.
        y_true: (N,) int64, the right classes.
        raw_logits: logits (N, K) of `base` (with its untrained head), `probe` (if the run has one) and `lora`, before
            temperature scaling.
        calibration: scales LoRA's logits in prediction.
        rows_name: what the sentences call the rows, such as `test reviews`.
    """

    labels: list[str]
    y_true: npt.NDArray[np.int64]
    raw_logits: dict[str, Array]
    calibration: Calibration = UNCALIBRATED
    rows_name: str = "rows"

    def logits(self, name: str) -> Array:
        """Returns a classifier's logits (N, K) as used in prediction: LoRA's are calibrated."""
        return self.calibration.scaled(self.raw_logits[name]) if name == "lora" else self.raw_logits[name]

    def right(self, name: str) -> npt.NDArray[np.bool_]:
        """Returns which rows a classifier gets right, (N,)."""
        return np.asarray(self.raw_logits[name].argmax(axis=1) == self.y_true)

    def compare(self, rival: str) -> Comparison:
        """Returns LoRA against `probe` or `base`."""
        return Comparison.of(self.right(rival), self.right("lora"))


def evaluate_rows(run: Run, examples: Examples, precision: str = "fp32", rows_name: str = "rows") -> Evaluated:
    """Runs base, linear probe and LoRA on labelled rows.

    Args:
        run: the run to evaluate.
        examples: rows that it was not trained on.
        precision: `fp32`, `bf16` or `auto`.
        rows_name: what the sentences call the rows, such as `test reviews`.
    """
    base, features = run.adapted.base_features(examples.inputs, precision)
    logits = {"base": base} | ({} if run.probe is None else {"probe": run.probe.logits(features)})
    logits["lora"] = run.adapted.logits(examples.inputs, precision=precision)
    return Evaluated(run.manifest.labels, examples.labels, logits, run.calibration, rows_name)


def figures(evaluated: Evaluated) -> dict[str, Any]:
    """Returns what `evaluate --json` prints.

    Returns:
        - `n`: number of rows.
        - `base`, `probe` (None if the run has none), `lora`: what `classification_metrics` returns; LoRA is calibrated.
        - `majority_share`: the accuracy of always naming the largest class.
        - `temperature`: LoRA's.
        - `uncalibrated`: LoRA's `loss`, `ece` and `brier` without the temperature.
        - `improvement_points`, `improvement_relative_percent`: LoRA over the base.
        - `comparisons`: LoRA against `probe` (if the run has one) and `base`, each as `Comparison.figures` returns it.
        - `mcnemar_p`: the p of the first comparison.
        - `verdict`: see `verdict`.
    """
    e = evaluated
    found: dict[str, Any] = {"base": None, "probe": None, "lora": None}
    found |= {name: classification_metrics(e.logits(name), e.y_true, e.labels) for name in e.raw_logits}
    raw = classification_metrics(e.raw_logits["lora"], e.y_true, e.labels)
    comparisons = {
        rival: e.compare(rival).figures((name, "LoRA")) for rival, name in RIVALS.items() if rival in e.raw_logits
    }
    before, after = float(e.right("base").mean()), float(e.right("lora").mean())
    return {
        "n": len(e.y_true),
        **found,
        "majority_share": float(np.bincount(e.y_true).max() / len(e.y_true)),
        "temperature": e.calibration.temperature,
        "uncalibrated": {key: raw[key] for key in CALIBRATED},
        "improvement_points": 100 * (after - before),
        "improvement_relative_percent": 100 * (after - before) / before if before else None,
        "comparisons": comparisons,
        "mcnemar_p": next(iter(comparisons.values()))["mcnemar_p"],
        "verdict": verdict(e),
    }


def verdict(evaluated: Evaluated) -> str:
    """Returns the verdict in one to three sentences, one a line.

    1. How many rows LoRA gets right.
    2. Whether it beats the linear probe, and by how much. Without a linear probe, LoRA is compared with the base model;
       without both, this line is left out.
    3. Only if that is open: how many rows would settle the measured gap.
    """
    e = evaluated
    right = e.right("lora")
    low, high = (100 * end for end in accuracy_interval(right))
    accuracy = f"{100 * right.mean():.1f} % of {len(right):,} {e.rows_name} right"
    lines = [f"LoRA gets {accuracy}, 95 % CI {low:.1f} to {high:.1f}."]
    for rival, name in RIVALS.items():
        if rival in e.raw_logits:
            found = e.compare(rival)
            lines += [found.sentence((name, "LoRA")), found.open_sentence]
            break
    return "\n".join(line for line in lines if line)


def legacy_lines(result: dict[str, Any]) -> list[str]:
    """Returns the four lines that compare the base model with LoRA, in the wording of earlier systems.

    The relative improvement is shown only if the base is more accurate than always naming the largest class.

    Args:
        result: as `figures` returns it.
    """
    base, lora, chance = result["base"]["accuracy"], result["lora"]["accuracy"], result["majority_share"]
    relative = f"{result['improvement_relative_percent']:.2f}%" if base > chance else ""
    return [
        f"Base BERT Accuracy: {base:.4f} ({100 * base:.2f}%)",
        f"BERT + LoRA Accuracy: {lora:.4f} ({100 * lora:.2f}%)",
        f"Improvement: {result['improvement_points']:.2f} percentage points",
        f"Relative Improvement: {relative or f'not shown, the base is not above chance ({100 * chance:.2f}%)'}",
    ]


def rows_of(where: str) -> str:
    """Returns what to call the rows of a place: `test rows` for `more.csv, test split`, `rows` without a split."""
    found = PLACE.fullmatch(where)
    return f"{found['split']} rows" if found else "rows"


def source_of(where: str) -> str:
    """Returns the source of a place: `more.csv` for `more.csv, test split`; empty for a run's own split."""
    found = PLACE.fullmatch(where)
    return found["source"] or "" if found else where
