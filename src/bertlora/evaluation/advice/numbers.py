"""Rules for regressions: a rival that is as good.

Letters: V validation texts.
"""

from collections.abc import Iterator

import numpy as np

from bertlora.evaluation.advice.course import Evidence, Piece
from bertlora.evaluation.comparison import FEWEST_ROWS, RIVALS
from bertlora.evaluation.paired_errors import compare_errors


def simpler_numbers(e: Evidence) -> Iterator[Piece]:
    """Yields the rival with the lowest error if LoRA does not beat it on the validation texts.

    The texts chose LoRA's epoch and no rival's, so a test on them favours LoRA.
    """
    if len(e.y_true) < FEWEST_ROWS or not e.rivals:
        return
    ours, y_true = e.logits[:, 0], e.y_true.astype(np.float64)
    pairs = {name: (found[:, 0], ours) for name, found in e.rivals.items()}
    name, best = min(compare_errors(y_true, pairs).items(), key=lambda pair: pair[1].rmse[0])
    if best.gain > 0 and best.significant:
        return
    rival = RIVALS[name]
    yield (
        "rivals",
        f"{rival[0].upper()}{rival[1:]} may do as well as LoRA: try more training texts, longer inputs if texts are "
        "cut, or another base model.",
        f"validation RMSE {best.rmse[0]:.4g}, LoRA {best.rmse[1]:.4g} (paired bootstrap, p = {best.p:.2g})",
    )
