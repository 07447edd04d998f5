"""Base, linear probe and LoRA on the same rows: the figures, and what they mean."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertlora.evaluation.comparison import Comparison
from bertlora.evaluation.metrics import judge
from bertlora.model.predict import Array
from bertlora.run import Run
from bertlora.training.events import Examples

# What a temperature changes; it leaves every label as it is.
CALIBRATED = ("loss", "ece", "brier")
RIVALS = {"probe": "the probe", "base": "the base"}


@dataclass(frozen=True)
class Judged:
    """What the classifiers of a run make of the same N labelled rows.

    Attributes:
        labels: names of the K classes.
        given: (N,) int64, the right classes.
        scores: logits (N, K) of `base` (the untrained head), `probe` (not where the run has none) and `lora`.
        temperature: by which LoRA's logits are divided when it predicts.
    """

    labels: list[str]
    given: npt.NDArray[np.int64]
    scores: dict[str, Array]
    temperature: float = 1.0

    def logits(self, name: str) -> Array:
        """Returns a classifier's logits (N, K) as it predicts with them: LoRA's divided by the temperature."""
        return self.scores[name] / self.temperature if name == "lora" else self.scores[name]

    def right(self, name: str) -> npt.NDArray[np.bool_]:
        """Returns which rows a classifier gets right, (N,)."""
        return np.asarray(self.scores[name].argmax(axis=1) == self.given)


def judge_rows(run: Run, examples: Examples, precision: str = "fp32") -> Judged:
    """Runs base, probe and LoRA on labelled rows.

    Args:
        run: the run to judge.
        examples: rows that it has not learned from.
        precision: `fp32` or `bf16`.
    """
    base, features = run.adapted.base_view(examples.inputs, precision)
    scores = {"base": base} | ({} if run.probe is None else {"probe": run.probe.logits(features)})
    scores["lora"] = run.adapted.logits(examples.inputs, precision=precision)
    return Judged(run.manifest.labels, examples.labels, scores, run.adapted.temperature)


def figures(judged: Judged) -> dict[str, Any]:
    """Returns what `evaluate --json` prints.

    Returns:
        `n`; `base`, `probe` (None where the run has none) and `lora`, each as `judge` gives it, LoRA as it predicts;
        `temperature` of its calibration, and `uncalibrated`, its `loss`, `ece` and `brier` without it;
        `improvement_points` and `improvement_relative_percent` of LoRA over the base; `comparisons` of LoRA against
        `probe` (not where the run has none) and against `base`, each as `Comparison.figures` gives it; `mcnemar_p` and
        `verdict` of the first of these.
    """
    found: dict[str, Any] = {"base": None, "probe": None, "lora": None}
    found |= {name: judge(judged.logits(name), judged.given, judged.labels) for name in judged.scores}
    raw = judge(judged.scores["lora"], judged.given, judged.labels)
    comparisons = {
        rival: Comparison.of(judged.right(rival), judged.right("lora")).figures((name, "LoRA"))
        for rival, name in RIVALS.items()
        if rival in judged.scores
    }
    chief = next(iter(comparisons.values()))
    before, after = float(judged.right("base").mean()), float(judged.right("lora").mean())
    return {
        "n": len(judged.given),
        **found,
        "temperature": judged.temperature,
        "uncalibrated": {key: raw[key] for key in CALIBRATED},
        "improvement_points": 100 * (after - before),
        "improvement_relative_percent": 100 * (after - before) / before if before else None,
        "comparisons": comparisons,
        "mcnemar_p": chief["mcnemar_p"],
        "verdict": chief["verdict"],
    }
