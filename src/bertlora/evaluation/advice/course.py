"""What a training measured, and the rules on its course: overfitting, not learned yet, still rising, the head's rate.

Letters: E evaluations, V validation texts, K classes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from bertlora.confidence.probabilities import Array, Labels
from bertlora.data.inputs import Unread
from bertlora.data.reader import Examples
from bertlora.evaluation.comparison import Comparison, compare_all
from bertlora.evaluation.gains import SIGNIFICANCE
from bertlora.evaluation.scores import METRIC_NAMES, leading_metric, value_of
from bertlora.recipe import Recipe
from bertlora.rivals.probe import CurvePoint
from bertlora.training.checkpoints import Trace
from bertlora.training.optimiser import weights_of_classes

Line = dict[str, Any]
# A piece of advice: its topic, what to do, and what was measured.
Piece = tuple[str, str, str]

LOSS_RISE = 1.15
# Multiples of the loss of chance.
UNLEARNED, FAR_FROM_LEARNED, WORSE_THAN_CHANCE = 0.95, 0.6, 1.05
STILL_RISING_POINTS = 0.5
# The last part of an epoch: a quarter of its steps, or this many if that is more.
LAST_PART, LAST_STEPS = 4, 8
# Beyond these values more seldom helps, so no rule recommends it.
MOST_EPOCHS, MOST_RANK, MOST_RATE, MOST_HEAD_RATE, MOST_DROPOUT, MOST_AVERAGE = 10, 32, 1e-3, 5e-2, 0.3, 0.5


@dataclass(frozen=True)
class Evidence:
    """The measurements of a training. All rules of advice read them.

    Attributes:
        recipe: the resolved recipe.
        labels: names of the K classes.
        history: the E evaluations, as in history.jsonl.
        trace: the loss of each step, and what each evaluation predicts.
        train: the training texts and their labels.
        y_true: (V,) labels, or numbers, of the validation texts; (V, K) of several labels. V is 0 without such texts.
        logits: (V, K) of the validation texts, from the saved adapter, with its temperatures; (V, 1) numbers.
        curve: of the linear probe; see `learning_curve`.
        longest: the longest input in tokens that the base model reads.
        rivals: logits (V, K) of the validation texts, from the linear probe and from TF-IDF, by name.
        thresholds: (K,) of several labels, by the model's name, `lora` included; 0.5 of one that is not there.
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
    thresholds: Mapping[str, Array] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The metric that compares evaluations: `accuracy`, or `macro_f1` if the validation classes are imbalanced."""
        return leading_metric(self.y_true)

    def value(self, evaluation: int) -> float:
        """Returns this metric of an evaluation, counted from 0; it is in 0..1."""
        return value_of(self.metric, self.y_true, self.trace.predicted[evaluation], len(self.labels))

    @cached_property
    def unread(self) -> Unread:
        """What is not read of the training texts."""
        return Unread.of(self.train.inputs, self.longest)

    def change(self, before: int, after: int) -> Comparison:
        """Compares two evaluations on the same validation texts by this metric."""
        pair = self.trace.predicted[before], self.trace.predicted[after]
        return compare_all(self.y_true, {0: pair}, len(self.labels))[0]

    @property
    def chance(self) -> float:
        """The training loss in nats of a model that knows only how frequent each class is.

        It is ln K with `class_weights = balanced`, or if the classes are equally frequent; otherwise it is lower. With
        label smoothing it is 0, which means unknown: no training loss comes near 0 then, so no rule compares them.
        """
        if self.recipe.label_smoothing:
            return 0.0
        if self.recipe.class_weights == "balanced":
            return math.log(len(self.labels))
        weights = weights_of_classes(self.recipe, self.train.labels, self.labels, self.train.weights_of())
        counts = np.bincount(self.train.labels, weights, len(self.labels))
        shares = counts[counts > 0] / counts.sum()
        return float(-(shares * np.log(shares)).sum())


def fit(e: Evidence) -> Iterator[Piece]:
    """Yields overfitting; or that little was learned, and that the accuracy still rose at the end."""
    if not len(e.y_true) or not e.history:
        return
    if overfitting := list(_overfitting(e)):
        yield from overfitting
        return
    yield from _underfitting(e)
    yield from _still_rising(e)


def _overfitting(e: Evidence) -> Iterator[Piece]:
    """Yields what to do if the validation loss of the last evaluation is above the lowest one."""
    losses = [line["validation_loss"] for line in e.history]
    last, lowest = len(losses) - 1, int(np.argmin(losses))
    rise = e.trace.row_losses[last] - e.trace.row_losses[lowest]
    if not (losses[last] > LOSS_RISE * losses[lowest] and clearly_above(rise, 0, last)):
        return
    kept = max((i for i, line in enumerate(e.history) if line["best"]), default=last)
    later = kept if kept > lowest else last
    change, name = e.change(lowest, later), METRIC_NAMES[e.metric]
    text = _less_training(e.recipe) if change.gain < 0 else _keep_training(name)
    # One of several evaluations is the best or the worst by chance, so the test counts them all.
    if change.p * last >= SIGNIFICANCE:
        text = (
            "The later epochs raise the confidence of wrong predictions; the temperature corrects it. The validation "
            f"rows do not show whether these epochs raise or lower the {name}."
        )
    at = [f"at epoch {line['epoch']:g}" for line in e.history]
    kept_one = ", which is kept" if later == kept else ""
    yield (
        "overfitting",
        text,
        f"validation loss {losses[lowest]:.3f} {at[lowest]}, {losses[last]:.3f} {at[last]}; training loss "
        f"{e.history[last]['train_loss']:.3f}; {name} {e.value(lowest):.1%} {at[lowest]}, "
        f"{e.value(later):.1%} {at[later]}{kept_one} ({change.test})",
    )


def _keep_training(metric: str) -> str:
    return (
        f"The later epochs raise the {metric}, but also the confidence of wrong predictions. The temperature corrects "
        f"the confidence. Stopping earlier would lower the {metric}."
    )


def _less_training(recipe: Recipe) -> str:
    stop = ["fewer epochs"] * (recipe.epochs > 1) + ["best_metric = loss"] * (recipe.best_metric != "loss")
    others = [f"stop earlier ({' or '.join(stop)})"] if stop else []
    others += ["raise hidden_dropout"] * (recipe.hidden_dropout < MOST_DROPOUT)
    others += ["raise average_weights"] * (recipe.average_weights < MOST_AVERAGE)
    return f"The later epochs overfit the training texts: {' or '.join(others) or 'add training texts'}."


def _underfitting(e: Evidence) -> Iterator[Piece]:
    """Yields what to raise if the last part of the last epoch has a high training loss."""
    last = _last_losses(e)
    if not e.chance or not clearly_above(last, FAR_FROM_LEARNED * e.chance):
        return
    r = e.recipe
    raised = ["max_steps" if r.max_steps else "epochs"] * bool(r.max_steps or r.epochs < MOST_EPOCHS)
    raised += ["learning_rate"] * (r.learning_rate < MOST_RATE) + ["rank"] * (r.rank < MOST_RANK)
    todo = [f"raise {' or '.join(raised)}"] if raised else []
    todo += ["use targets = all-linear"] * (r.targets != ("all-linear",))
    yield (
        "underfitting",
        f"The model has not learned the training texts yet: {', or '.join(todo) or 'use a larger base model'}.",
        f"training loss {np.mean(last):.3f} in the last {len(last)} steps; chance is {e.chance:.3f}",
    )


def _last_losses(e: Evidence) -> list[float]:
    """Returns the training losses of the steps in the last part of the last epoch."""
    epoch = e.trace.step_losses[-e.recipe.steps_per_epoch(max(len(e.train), 1)) :]
    return epoch[-max(math.ceil(len(epoch) / LAST_PART), LAST_STEPS) :]


def _still_rising(e: Evidence) -> Iterator[Piece]:
    """Yields more epochs if the last evaluation is clearly the best one."""
    *before, last = (e.value(evaluation) for evaluation in range(len(e.history)))
    if not before or not (e.recipe.max_steps or e.recipe.epochs < MOST_EPOCHS):
        return
    change = e.change(int(np.argmax(before)), -1)
    if change.gain >= STILL_RISING_POINTS and change.p < SIGNIFICANCE:
        yield (
            "epochs",
            f"The {METRIC_NAMES[e.metric]} was still rising when training ended: try "
            f"{'a larger max_steps' if e.recipe.max_steps else 'more epochs'}.",
            f"{change.gain:+.1f} points in the last evaluation, from {max(before):.1%} to {last:.1%} ({change.test})",
        )


def head(e: Evidence) -> Iterator[Piece]:
    """Yields a learning rate of the head that is too high or too low, by the training loss.

    If the first evaluation comes before the end of the first epoch, its loss says too little.
    """
    if not e.history or e.history[0]["epoch"] < 1 or not e.chance:
        return
    rate = e.recipe.head_learning_rate or e.recipe.learning_rate
    first, last = e.trace.step_losses[: e.history[0]["step"]], _last_losses(e)
    start = f"training loss {np.mean(first):.3f} up to epoch {e.history[0]['epoch']:g}"
    figure = f"chance is {e.chance:.3f}; the head's learning rate is {rate:g}"
    if clearly_above(first, WORSE_THAN_CHANCE * e.chance):
        warm_up = "" if e.recipe.warmup_fraction else ", or a warm-up"
        yield (
            "head",
            f"The head overshoots at the start: try head_learning_rate = {rate / 3:.1g}{warm_up}.",
            f"{start}; {figure}",
        )
    # In every short run the first epoch's mean loss is near chance. Only a later one shows that nothing is learned.
    elif len(e.history) > 1 and 5 * rate <= MOST_HEAD_RATE and clearly_above(last, UNLEARNED * e.chance):
        yield (
            "head",
            f"The head is slow to learn: try head_learning_rate = {rate * 5:.1g}.",
            f"{start} and {np.mean(last):.3f} in the last {len(last)} steps; {figure}",
        )


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
