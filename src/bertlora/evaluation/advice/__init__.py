"""Advice after training: what to do next, each piece with the measured figure behind it.

A rule speaks only if a test at the 5 % level says that its figure is not chance. `benchmarks/simulations.py` counts how
often each rule speaks about nothing. No rule recommends what the recipe has already.

Reading order:

- `evidence`: the measurements.
- `fit`: rules on the course of training.
- `data`: rules on texts and labels.
"""

from bertlora.evaluation.advice.data import labels, more_data, simpler, skew, truncation
from bertlora.evaluation.advice.evidence import Evidence
from bertlora.evaluation.advice.fit import fit, head

RULES = (fit, head, simpler, skew, truncation, labels, more_data)


def advise(found: Evidence) -> list[dict[str, str]]:
    """Returns objects with `topic`, `text` (what to do) and `figure` (what was measured)."""
    return [{"topic": topic, "text": text, "figure": figure} for rule in RULES for topic, text, figure in rule(found)]


__all__ = ["Evidence", "advise"]
