"""Base, linear probe and LoRA on the same rows: the figures, and what they mean."""

from typing import Any

from bertlora.evaluation.comparison import mcnemar, verdict
from bertlora.evaluation.metrics import judge
from bertlora.run import Run
from bertlora.training.events import Examples


def evaluate_run(run: Run, examples: Examples, precision: str = "fp32") -> dict[str, Any]:
    """Returns what `evaluate --json` prints.

    Args:
        run: the run to judge.
        examples: labelled rows that it has not learned from.
        precision: `fp32` or `bf16`.

    Returns:
        `n`; `base` (the untrained head), `probe` (None where the run has none) and `lora`, each as `judge` gives it;
        `improvement_points` and `improvement_relative_percent` of LoRA over the base; `mcnemar_p` and `verdict` of
        LoRA against the probe, or against the base where there is no probe.
    """
    given, labels = examples.labels, run.manifest.labels
    base, features = run.adapted.base_view(examples.inputs, precision)
    scores = {
        "base": base,
        "probe": None if run.probe is None else run.probe.logits(features),
        "lora": run.adapted.logits(examples.inputs, precision=precision),
    }
    figures = {name: None if found is None else judge(found, given, labels) for name, found in scores.items()}
    right = {name: found.argmax(axis=1) == given for name, found in scores.items() if found is not None}
    rival, rival_name = ("probe", "the probe") if "probe" in right else ("base", "the base")
    before, after = float(right["base"].mean()), float(right["lora"].mean())
    return {
        "n": len(given),
        **figures,
        "improvement_points": 100 * (after - before),
        "improvement_relative_percent": 100 * (after - before) / before if before else None,
        "mcnemar_p": mcnemar(right[rival], right["lora"]),
        "verdict": verdict((rival_name, "LoRA"), right[rival], right["lora"]),
    }
