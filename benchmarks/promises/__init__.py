"""The promises of evaluation in words, each as a simulation in which the truth is known.

Reading order:

- `promise`: what a promise is.
- `tasks`: classifiers whose true scores are known.
- `intervals`: 95 of 100 intervals hold the true value.
- `comparisons`: equal classifiers seldom "beat" each other; the rows to settle settle; what choosing the best costs.
- `advice`: no rule speaks about nothing.
"""

from promises.advice import advice
from promises.comparisons import comparisons
from promises.intervals import intervals
from promises.promise import Promise

PROMISES: tuple[Promise, ...] = (*intervals(), *comparisons(), *advice())

__all__ = ["PROMISES", "Promise"]
