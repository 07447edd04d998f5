"""Advice after training: what to do next, each piece with the measured figure behind it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertlora.confidence.probabilities import Array, softmax
from bertlora.data.checks.find import IMBALANCE_RATIO
from bertlora.data.examples import Examples
from bertlora.model.probe import CurvePoint
from bertlora.recipe import Recipe

Labels = npt.NDArray[np.int64]
Line = dict[str, Any]

LOSS_RISE = 1.15
# Multiples of ln K, the loss of chance with K classes.
UNLEARNED, FAR_FROM_LEARNED, WORSE_THAN_CHANCE = 0.95, 0.6, 1.05
STILL_RISING_POINTS = 0.5
RECALL_GAP = 0.2
FEWEST_OF_A_CLASS = 10
TOKENS_LOST = 0.05
CONFIDENT = 0.95
DOUBTFUL_SHARE = 0.02
WORTH_MORE_POINTS = 1.0
# The rule of three: if an event is not seen in N rows, 3/N is the upper 95 % bound of its probability.
NONE_SEEN = 3


@dataclass(frozen=True)
class Evidence:
    """The measurements of a training.

    Attributes:
        recipe: the resolved recipe.
        labels: names of the K classes.
        history: the evaluations, as in history.jsonl.
        train: the training texts and their labels.
        y_true: (V,) labels of the validation texts; V is 0 if there are none.
        logits: (V, K) of the validation texts, from the saved adapter, with its temperature.
        curve: of the linear probe; see `learning_curve`.
    """

    recipe: Recipe
    labels: Sequence[str]
    history: Sequence[Line]
    train: Examples
    y_true: Labels
    logits: Array
    curve: Sequence[CurvePoint]


def advise(found: Evidence) -> list[dict[str, str]]:
    """Returns objects with `topic`, `text` (what to do) and `figure` (what was measured)."""
    parts = (_fit, _head, _classes, _truncation, _labels, _more_data)
    return [{"topic": topic, "text": text, "figure": figure} for part in parts for topic, text, figure in part(found)]


def _fit(e: Evidence) -> Iterator[tuple[str, str, str]]:
    """Yields overfitting, underfitting, and an accuracy that still rose at the end."""
    evaluated = [line for line in e.history if line["validation_loss"] is not None]
    if not evaluated:
        return
    last, lowest = evaluated[-1], min(evaluated, key=lambda line: line["validation_loss"])
    if last["validation_loss"] > LOSS_RISE * lowest["validation_loss"]:
        yield _overfitting(evaluated, last, lowest)
        return
    chance = math.log(len(e.labels))
    if last["train_loss"] > FAR_FROM_LEARNED * chance:
        yield (
            "underfitting",
            "The model has not learned the training texts yet: raise epochs, learning_rate or rank, or use "
            "targets = all-linear.",
            f"training loss {last['train_loss']:.3f} at the end; chance is {chance:.3f}",
        )
    if len(evaluated) > 1 and last["best"]:
        gain = 100 * (last["accuracy"] - max(line["accuracy"] for line in evaluated[:-1]))
        if gain >= STILL_RISING_POINTS:
            yield (
                "epochs",
                "The accuracy was still rising when training ended: try more epochs.",
                f"{gain:+.1f} points in the last evaluation",
            )


def _overfitting(evaluated: list[Line], last: Line, lowest: Line) -> tuple[str, str, str]:
    """Returns what to do about a rising validation loss: it can cost accuracy, or only calibration."""
    kept = next((line for line in reversed(evaluated) if line["best"]), lowest)
    figure = (
        f"validation loss {lowest['validation_loss']:.3f} at epoch {lowest['epoch']:g}, "
        f"{last['validation_loss']:.3f} at epoch {last['epoch']:g}; training loss {last['train_loss']:.3f}"
    )
    if kept["accuracy"] > lowest["accuracy"]:
        return (
            "overfitting",
            "The later epochs raise the accuracy, but also the confidence of wrong predictions. The temperature "
            "corrects the confidence. Stopping earlier would lower the accuracy.",
            f"{figure}; accuracy {lowest['accuracy']:.1%} at epoch {lowest['epoch']:g}, "
            f"{kept['accuracy']:.1%} at epoch {kept['epoch']:g}, which is kept",
        )
    return (
        "overfitting",
        "The later epochs overfit the training texts: stop earlier (fewer epochs, or best_metric = loss), or raise "
        "hidden_dropout or average_weights.",
        figure,
    )


def _head(e: Evidence) -> Iterator[tuple[str, str, str]]:
    """Yields a learning rate of the head that is too high or too low, by the training loss.

    If the first evaluation comes before the end of the first epoch, its loss says too little.
    """
    if not e.history or e.history[0]["epoch"] < 1:
        return
    first, last, chance = e.history[0]["train_loss"], e.history[-1]["train_loss"], math.log(len(e.labels))
    rate = e.recipe.head_learning_rate or e.recipe.learning_rate
    start = f"training loss {first:.3f} up to epoch {e.history[0]['epoch']:g}"
    figure = f"chance is {chance:.3f}; the head's learning rate is {rate:g}"
    if first > WORSE_THAN_CHANCE * chance:
        yield (
            "head",
            f"The head overshoots at the start: try head_learning_rate = {rate / 3:.1g}, or a warm-up.",
            f"{start}; {figure}",
        )
    # In every short run the first epoch's mean loss is near chance. Only a later one shows that nothing is learned.
    elif len(e.history) > 1 and min(first, last) > UNLEARNED * chance:
        yield (
            "head",
            f"The head is slow to learn: try head_learning_rate = {rate * 5:.1g}.",
            f"{start} and {last:.3f} at the end; {figure}",
        )


def _classes(e: Evidence) -> Iterator[tuple[str, str, str]]:
    """Yields a class whose recall is much lower than another class's."""
    counts = np.bincount(e.y_true, minlength=len(e.labels))
    classes = np.flatnonzero(counts >= FEWEST_OF_A_CLASS)
    if len(classes) < 2:
        return
    predicted = e.logits.argmax(axis=1)
    recall = {k: float(np.mean(predicted[e.y_true == k] == k)) for k in classes.tolist()}
    worst, best = min(recall, key=recall.__getitem__), max(recall, key=recall.__getitem__)
    if recall[best] - recall[worst] > RECALL_GAP:
        learned = np.bincount(e.train.labels, minlength=len(e.labels))
        todo = (
            "set class_weights = balanced"
            if learned[worst] * IMBALANCE_RATIO < learned.max() and e.recipe.class_weights == "none"
            else "look at its missed texts, and add more texts like them"
        )
        yield (
            "skew",
            f"'{e.labels[worst]}' is missed much more often than '{e.labels[best]}': {todo}.",
            f"recall {recall[worst]:.2f} of {counts[worst]:,} rows against {recall[best]:.2f} of {counts[best]:,}",
        )


def _truncation(e: Evidence) -> Iterator[tuple[str, str, str]]:
    """Yields how much of the training texts is not read."""
    if not len(e.train):
        return
    inputs, template = e.train.inputs, e.train.inputs.template
    cut = template.long_texts == "truncate"
    others = ["truncation = head-tail"] if cut and template.truncation != "head-tail" else []
    others += ["long_texts = windows"] if cut and inputs.second is None else []
    whole, lost = inputs.whole, inputs.unread
    if lost.sum() > TOKENS_LOST * whole.sum():
        yield (
            "truncation",
            "Much of the long texts is not read: raise max_length if the model allows it"
            f"{', or try ' if others else ''}{' or '.join(others)}.",
            f"{np.mean(lost > 0):.1%} of the training texts are cut, {lost.sum() / whole.sum():.1%} of the tokens lost",
        )


def _labels(e: Evidence) -> Iterator[tuple[str, str, str]]:
    """Yields how many validation labels the model contradicts with high confidence."""
    if not len(e.y_true):
        return
    probabilities = softmax(e.logits)
    contradicted = (probabilities.max(axis=1) >= CONFIDENT) & (probabilities.argmax(axis=1) != e.y_true)
    if contradicted.mean() >= DOUBTFUL_SHARE:
        yield (
            "labels",
            "Some labels may be wrong: 'bertlora audit DATA' ranks the doubtful ones.",
            f"{contradicted.sum():,} of {len(contradicted):,} validation labels are contradicted with a confidence of "
            f"{CONFIDENT} or more",
        )


def _more_data(e: Evidence) -> Iterator[tuple[str, str, str]]:
    """Yields whether more data would help, from the slope of the linear probe's learning curve, if the folds agree.

    The margin of the slope is two standard errors of its mean over folds, but at least three of the training rows,
    because folds that agree by chance prove little.
    """
    if len(e.curve) < 2:
        return
    before, after = e.curve[-2:]
    gains = 100 * (np.array(after.accuracies) - np.array(before.accuracies))
    gain = float(gains.mean())
    margin = max(2 * float(gains.std(ddof=1)) / len(gains) ** 0.5, 100 * NONE_SEEN / after.rows)
    if gain >= WORTH_MORE_POINTS and gain > margin:
        text = "More labelled texts are likely to raise the accuracy"
    elif gain + margin < WORTH_MORE_POINTS:
        text = "More texts of this kind are unlikely to raise the accuracy much"
    else:
        return
    yield (
        "data",
        f"{text}: this is the trend of the linear probe on the frozen encoder.",
        f"linear probe accuracy {before.accuracy:.1%} with {before.rows:,} rows, {after.accuracy:.1%} with "
        f"{after.rows:,}: {gain:+.1f} points, plus or minus {margin:.1f}",
    )
