"""What a training measured, as the rules of advice read it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from bertlora.confidence.probabilities import Array, Labels
from bertlora.data.reader import Examples
from bertlora.evaluation.comparison import Comparison, compare_all
from bertlora.evaluation.mcnemar import SIGNIFICANCE
from bertlora.evaluation.scores import confusion_of, leading_metric, score
from bertlora.recipe import Recipe
from bertlora.rivals.probe import CurvePoint
from bertlora.training.checkpoints import Trace

Line = dict[str, Any]
# A piece of advice: its topic, what to do, and what was measured.
Piece = tuple[str, str, str]


@dataclass(frozen=True)
class Evidence:
    """The measurements of a training.

    Attributes:
        recipe: the resolved recipe.
        labels: names of the K classes.
        history: the E evaluations, as in history.jsonl.
        trace: the loss of each step, and what each evaluation predicts.
        train: the training texts and their labels.
        y_true: (V,) labels of the validation texts; V is 0 if there are none.
        logits: (V, K) of the validation texts, from the saved adapter, with its temperature.
        curve: of the linear probe; see `learning_curve`.
        longest: the longest input in tokens that the base model reads.
        rivals: logits (V, K) of the validation texts, from the linear probe and from TF-IDF, by name.
    """

    recipe: Recipe
    labels: Sequence[str]
    history: Sequence[Line]
    trace: Trace
    train: Examples
    y_true: Labels
    logits: Array
    curve: Sequence[CurvePoint]
    longest: int
    rivals: Mapping[str, Array] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The metric that compares evaluations: `accuracy`, or `macro_f1` if the validation classes are imbalanced."""
        return leading_metric(self.y_true)

    def value(self, evaluation: int) -> float:
        """Returns this metric of an evaluation, counted from 0; it is in 0..1."""
        predicted = self.trace.predicted[evaluation]
        if self.metric == "accuracy":
            return float(np.mean(predicted == self.y_true))
        return score(self.metric, confusion_of(self.y_true, predicted, len(self.labels)))

    def change(self, before: int, after: int) -> Comparison:
        """Compares two evaluations on the same validation texts by this metric."""
        pair = self.trace.predicted[before], self.trace.predicted[after]
        return compare_all(self.y_true, {0: pair}, len(self.labels))[0]

    @property
    def chance(self) -> float:
        """The training loss in nats of a model that knows only how frequent each class is.

        It is ln K with `class_weights = balanced`, or if the classes are equally frequent; otherwise it is lower.
        """
        if self.recipe.class_weights == "balanced":
            return math.log(len(self.labels))
        shares = np.bincount(self.train.labels) / max(len(self.train), 1)
        shares = shares[shares > 0]
        return float(-(shares * np.log(shares)).sum())


def clearly_above(values: Sequence[float] | npt.NDArray[np.float64], limit: float, tests: int = 1) -> bool:
    """Returns whether the mean of a sample is above a limit by a one-sided t test at the 5 % level.

    Args:
        values: the sample; with fewer than two values nothing is clear.
        limit: the limit.
        tests: how many samples were looked at to choose this one (Bonferroni).
    """
    if len(values) < 2:
        return False
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return bool(np.mean(values) - limit > error * t.ppf(1 - SIGNIFICANCE / tests, len(values) - 1))
