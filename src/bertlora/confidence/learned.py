"""What a run has learned from its validation rows, and how outputs become predictions by it: one kind for each task."""

from pathlib import Path
from typing import Any

import numpy as np

from bertlora.confidence.calibration import Calibration
from bertlora.confidence.predictions import Predictions
from bertlora.confidence.probabilities import Array
from bertlora.confidence.spread import Spread, Values
from bertlora.confidence.thresholds import LabelPredictions, Thresholds
from bertlora.task import MULTILABEL, REGRESSION

# Classes have a temperature, numbers have a spread, several labels have a temperature and a threshold each.
Learned = Calibration | Spread | Thresholds
Answers = Predictions | Values | LabelPredictions
# Task → its kind; other tasks have a Calibration.
KINDS: dict[str, type[Spread] | type[Thresholds]] = {REGRESSION: Spread, MULTILABEL: Thresholds}


def answers_of(learned: Learned, labels: list[str], **options: Any) -> Answers:
    """Returns how the outputs of a model become predictions.

    Args:
        learned: of the run.
        labels: names of the classes, of the number, or of the labels.
        options: `raw`, `abstain`, `sets` and `per_class`; see `Predictions.of`, `Spread.predictions` and
            `Thresholds.predictions`.

    Raises:
        InputError: an option does not fit the task, or is out of its range.
    """
    if isinstance(learned, Calibration):
        return Predictions.of(labels, learned, **options)
    return learned.predictions(labels, **options)


def divisors(learned: Learned, outputs: int) -> Array:
    """Returns by what each of the K outputs is divided before softmax or sigmoid, (K,): the temperatures, or ones."""
    return np.ones(outputs) if isinstance(learned, Spread) else 1 / learned.scaled(np.ones((1, outputs)))[0]


def load_learned(run: Path, task: str) -> Learned | None:
    """Returns what a run folder holds, or None if it has no validation rows.

    Raises:
        RunError: a file is damaged.
    """
    return KINDS.get(task, Calibration).load(run)
