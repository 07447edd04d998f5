"""Advice after training: what to do next, each piece with the measured figure behind it.

A rule speaks only if a test at the 5 % level says that its figure is not chance. `benchmarks/simulations.py` counts how
often each rule speaks about nothing. No rule recommends what the recipe has already.

Reading order:

- `course`: the measurements, and rules on the course of training.
- `data`: rules on texts and labels, and the advice of all rules.
- `rivals`: a rival that is as good, for regressions and several labels.
"""

from bertlora.evaluation.advice.course import Evidence
from bertlora.evaluation.advice.data import advise

__all__ = ["Evidence", "advise"]
