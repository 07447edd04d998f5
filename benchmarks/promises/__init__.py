"""The promises of evaluation in words, each as a simulation in which the truth is known.

Reading order:

- `promise`: what a promise is.
- `tasks`: classifiers whose true scores are known.
- `intervals`: 95 of 100 intervals hold the true value.
- `comparisons`: equal classifiers seldom "beat" each other; the rows to settle settle; what choosing the best costs.
- `advice`: no rule speaks about nothing.
- `confidence`: thresholds, label sets, calibration errors and intervals of numbers hold for new texts.
- `slices`: no slice is called worse by chance.
- `audit`: no more labels are wrong than it says.
"""

from promises.advice import advice
from promises.audit import audits
from promises.comparisons import comparisons
from promises.confidence import confidence
from promises.intervals import intervals
from promises.promise import Promise
from promises.slices import slices

PROMISES: tuple[Promise, ...] = (
    *intervals(),
    *comparisons(),
    *advice(),
    *confidence(),
    *slices(),
    *audits(),
)

__all__ = ["PROMISES", "Promise"]
