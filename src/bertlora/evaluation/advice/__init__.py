"""Advice after training: what to do next, each piece with the measured figure behind it.

A rule on a fault speaks only if a test at the 5 % level says that its figure is not chance. Two rules have no such
test. Texts that are cut are all counted. The rule on rivals says what the validation rows do not show, so it speaks
unless a test shows that LoRA is better. `benchmarks/simulations.py` counts how often each rule speaks about nothing,
and how often the rule on rivals is silent by chance. No rule recommends what the recipe has already.

Reading order:

- `course`: the measurements, and rules on the course of training.
- `data`: rules on rivals, texts and labels, and the advice of all rules.
"""

from bertlora.evaluation.advice.course import Evidence
from bertlora.evaluation.advice.data import advise

__all__ = ["Evidence", "advise"]
