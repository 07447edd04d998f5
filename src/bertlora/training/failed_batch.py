"""The batch at which the numbers of a training ceased to be finite: which rows, how long, and their losses."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from bertlora.confidence.probabilities import Array
from bertlora.data.reader import Examples
from bertlora.errors import HealthError
from bertlora.model.engine import ROW_TOKENS, Execution, evaluating
from bertlora.training.objective import Objective

# Row numbers that a message names.
NAMED = 5


@dataclass(frozen=True)
class FailedBatch:
    """Rows of a split.

    Attributes:
        split: `train` or `validation`.
        rows: (B,) their numbers in the split, from 0.
        tokens: (B,) tokens of their inputs.
        losses: (B,) the loss of each row by itself; NaN where it was not computed.
    """

    split: str
    rows: Sequence[int]
    tokens: Sequence[int]
    losses: Sequence[float]

    def suspects(self) -> str:
        """Returns which rows have no finite loss, for a message; empty if this is said of all rows or of none."""
        found = [row for row, loss in zip(self.rows, self.losses, strict=True) if not math.isfinite(loss)]
        if not found or len(found) == len(self.rows):
            return ""
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        return (
            f"; without a finite loss: row {', '.join(map(str, islice(found, NAMED)))}{more} of the {self.split} split"
        )


class FailedBatchError(HealthError):
    """A HealthError with the batch at which it happened."""

    def __init__(self, message: str, batch: FailedBatch) -> None:
        super().__init__(message + batch.suspects())
        self.batch = batch


def failed_batch(
    execution: Execution, objective: Objective, train: Examples, rows: list[int], micro_batch: int
) -> FailedBatch:
    """Returns training rows with the loss of each by itself, by the weights as they are now and without dropout.

    Args:
        execution: the model.
        objective: gives the losses.
        train: all training rows.
        rows: (B,) the rows of the step.
        micro_batch: how many texts fit into memory.
    """
    lengths, losses, one = train.inputs.lengths[rows], [math.nan] * len(rows), np.ones(1)
    with evaluating(execution.model), torch.no_grad():
        for group in execution.batches(lengths, micro_batch, ROW_TOKENS):
            scores = execution.logits(train.inputs, [rows[i] for i in group])
            for place, i in enumerate(group):
                target = train.labels[[rows[i]]]
                summed = objective.sum(scores[place : place + 1], target, one)
                losses[i] = float(summed) / objective.weight(target, one)
    return FailedBatch("train", rows, lengths.tolist(), losses)


def check_logits(scores: Array, validation: Examples, step: int) -> None:
    """Raises FailedBatchError if some logits of the validation texts, (V, K), are not finite after a step."""
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(bad):
        lengths = validation.inputs.lengths[bad].tolist()
        raise FailedBatchError(
            f"training stopped at step {step}: the logits of {len(bad)} of {len(scores)} validation texts are not "
            "finite; try a tenth of the learning rate, or --precision fp32",
            FailedBatch("validation", bad.tolist(), lengths, [math.nan] * len(bad)),
        )
