"""No more labels are wrong than the audit says, if errors are as frequent in sure texts as in hard ones.

Letters: N rows, K classes.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from bertlora.confidence.probabilities import softmax
from bertlora.evaluation.audit import Audit, doubts
from promises.promise import Promise, Random

# Standard deviation of the logits. Models of two classes then have an accuracy of 79, 92 and 99 %.
SPREADS = {"weak": 1.5, "good": 5.0, "nearly perfect": 30.0}
Wrong = npt.NDArray[np.bool_]


def audits() -> Iterator[Promise]:
    """Yields the promises."""
    for rows in (400, 1_500):
        for models, spread in SPREADS.items():
            for share in (0.02, 0.1):
                case = f"{models} models, {100 * share:g} % of {rows:,} labels wrong"
                yield Promise("audit", case, partial(_bounded, rows=rows, spread=spread, share=share), 0.95)
    case = "good models, 5 classes, 5 % of 1,500 labels wrong"
    yield Promise("audit", case, partial(_bounded, rows=1_500, spread=5.0, share=0.05, classes=5), 0.95)


def audited(random: Random, rows: int, spread: float, share: float, classes: int = 2) -> tuple[Audit, Wrong]:
    """Returns an audit by models with right probabilities, and (N,) which labels were exchanged at random.

    Args:
        random: draws rows and errors.
        rows: N.
        spread: standard deviation of the models' logits; the larger, the better they are.
        share: the probability, 0..1, that a label is exchanged.
        classes: K.
    """
    logits = spread * random.normal(size=(rows, classes))
    true = (logits + random.gumbel(size=(rows, classes))).argmax(axis=1)
    wrong = random.random(rows) < share
    given = np.where(wrong, (true + random.integers(1, classes, rows)) % classes, true)
    return doubts(softmax(logits), given, np.zeros(rows, dtype=np.int64)), wrong


def _bounded(random: Random, rows: int, spread: float, share: float, classes: int = 2) -> dict[str, bool]:
    found, wrong = audited(random, rows, spread, share, classes)
    return {"no more labels are wrong than it says": int(wrong.sum()) <= found.most_errors}
