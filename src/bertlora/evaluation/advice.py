"""What to do next, in plain sentences, each with the measured figure that it rests on."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertlora.data.checks.find import IMBALANCE_RATIO
from bertlora.evaluation.probe import CurvePoint
from bertlora.model.predict import Array, softmax
from bertlora.recipe import Recipe
from bertlora.training.events import Examples

Labels = npt.NDArray[np.int64]
Line = dict[str, Any]

LOSS_RISE = 1.15
# Shares of the loss of a coin toss between K classes, ln K.
UNLEARNED, FAR_FROM_LEARNED, WORSE_THAN_CHANCE = 0.95, 0.6, 1.05
STILL_RISING_POINTS = 0.5
RECALL_GAP = 0.2
FEWEST_OF_A_CLASS = 10
TOKENS_LOST = 0.05
SURE_OF_ANOTHER = 0.95
DOUBTFUL_SHARE = 0.02
WORTH_MORE_POINTS = 1.0
# Of N rows none of which shows a thing, up to 3/N may: the 95 % bound known as the rule of three.
NONE_SEEN = 3


@dataclass(frozen=True)
class Evidence:
    """What training measured.

    Attributes:
        recipe: as it was resolved.
        labels: names of the K classes.
        history: the evaluations, as in history.jsonl.
        train: the training texts and their labels.
        given: (V,) the validation texts' labels; V is 0 where there are none.
        scores: (V, K) the kept adapter's logits of them, temperature applied.
        curve: of the probe; see `learning_curve`.
    """

    recipe: Recipe
    labels: Sequence[str]
    history: Sequence[Line]
    train: Examples
    given: Labels
    scores: Array
    curve: Sequence[CurvePoint]


def advise(found: Evidence) -> list[dict[str, str]]:
    """Returns objects with `topic`, `text` (what to do) and `figure` (what was measured)."""
    parts = (_fit, _head, _classes, _truncation, _labels, _more_data)
    return [{"topic": topic, "text": text, "figure": figure} for part in parts for topic, text, figure in part(found)]


def _fit(e: Evidence) -> Iterator[tuple[str, str, str]]:
    """Yields overfitting, underfitting, and training that ended while accuracy still rose."""
    judged = [line for line in e.history if line["validation_loss"] is not None]
    if not judged:
        return
    last, lowest = judged[-1], min(judged, key=lambda line: line["validation_loss"])
    if last["validation_loss"] > LOSS_RISE * lowest["validation_loss"]:
        yield _overfitting(judged, last, lowest)
        return
    if last["train_loss"] > FAR_FROM_LEARNED * math.log(len(e.labels)):
        yield (
            "underfitting",
            "The training texts are not learned yet: raise epochs, learning_rate or rank, or adapt all-linear targets.",
            f"training loss {last['train_loss']:.3f} at the end; a coin toss has {math.log(len(e.labels)):.3f}",
        )
    if len(judged) > 1 and last["best"]:
        gain = 100 * (last["accuracy"] - max(line["accuracy"] for line in judged[:-1]))
        if gain >= STILL_RISING_POINTS:
            yield (
                "epochs",
                "Accuracy was still rising when training ended: try more epochs.",
                f"{gain:+.1f} points in the last evaluation",
            )


def _overfitting(judged: list[Line], last: Line, lowest: Line) -> tuple[str, str, str]:
    """Returns what to do about a validation loss that turned up: it may cost accuracy, or confidence alone."""
    kept = next((line for line in reversed(judged) if line["best"]), lowest)
    figure = (
        f"validation loss {lowest['validation_loss']:.3f} at epoch {lowest['epoch']:g}, "
        f"{last['validation_loss']:.3f} at epoch {last['epoch']:g}; training loss {last['train_loss']:.3f}"
    )
    if kept["accuracy"] > lowest["accuracy"]:
        return (
            "overfitting",
            "The later epochs make the model more accurate, but too sure of its mistakes: what suffers is the "
            "confidence, which the temperature is there to mend; to stop earlier would cost accuracy.",
            f"{figure}; accuracy {lowest['accuracy']:.1%} at epoch {lowest['epoch']:g}, "
            f"{kept['accuracy']:.1%} at epoch {kept['epoch']:g}, which is kept",
        )
    return (
        "overfitting",
        "The later epochs learn the training texts by heart: stop earlier (fewer epochs, or best_metric = loss), "
        "or raise hidden_dropout or average_weights.",
        figure,
    )


def _head(e: Evidence) -> Iterator[tuple[str, str, str]]:
    """Yields what the training loss says of the head's rate: a start worse than chance, or one that never gets off it.

    A first evaluation within the first epoch says too little.
    """
    if not e.history or e.history[0]["epoch"] < 1:
        return
    first, last, chance = e.history[0]["train_loss"], e.history[-1]["train_loss"], math.log(len(e.labels))
    rate = e.recipe.head_learning_rate or e.recipe.learning_rate
    start = f"training loss {first:.3f} up to epoch {e.history[0]['epoch']:g}"
    figure = f"a coin toss has {chance:.3f}; the head's rate is {rate:g}"
    if first > WORSE_THAN_CHANCE * chance:
        yield (
            "head",
            f"The head overshoots at the start: try head_learning_rate = {rate / 3:.1g}, or a warm-up.",
            f"{start}; {figure}",
        )
    # The first epoch's mean is near chance in every short run; only a second look shows that nothing is learned.
    elif len(e.history) > 1 and min(first, last) > UNLEARNED * chance:
        yield (
            "head",
            f"The head is slow to learn: try head_learning_rate = {rate * 5:.1g}.",
            f"{start} and {last:.3f} at the end; {figure}",
        )


def _classes(e: Evidence) -> Iterator[tuple[str, str, str]]:
    """Yields classes that are found much less often than others."""
    counts = np.bincount(e.given, minlength=len(e.labels))
    classes = np.flatnonzero(counts >= FEWEST_OF_A_CLASS)
    if len(classes) < 2:
        return
    predicted = e.scores.argmax(axis=1)
    recall = {k: float(np.mean(predicted[e.given == k] == k)) for k in classes.tolist()}
    worst, best = min(recall, key=recall.__getitem__), max(recall, key=recall.__getitem__)
    if recall[best] - recall[worst] > RECALL_GAP:
        learned = np.bincount(e.train.labels, minlength=len(e.labels))
        todo = (
            "set class_weights = balanced"
            if learned[worst] * IMBALANCE_RATIO < learned.max() and e.recipe.class_weights == "none"
            else "look at the texts of that class that are missed, and add more like them"
        )
        yield (
            "skew",
            f"'{e.labels[worst]}' is missed far more often than '{e.labels[best]}': {todo}.",
            f"recall {recall[worst]:.2f} of {counts[worst]:,} rows against {recall[best]:.2f} of {counts[best]:,}",
        )


def _truncation(e: Evidence) -> Iterator[tuple[str, str, str]]:
    """Yields how much of the training texts was never read."""
    if not len(e.train):
        return
    inputs, framing = e.train.inputs, e.train.inputs.framing
    cut = framing.long_texts == "truncate"
    others = ["truncation = head-tail"] if cut and framing.truncation != "head-tail" else []
    others += ["long_texts = windows"] if cut and inputs.second is None else []
    whole, lost = inputs.whole, inputs.unread
    if lost.sum() > TOKENS_LOST * whole.sum():
        yield (
            "truncation",
            "Much of the long texts is not read: raise max_length where the model allows it"
            f"{', or try ' if others else ''}{' or '.join(others)}.",
            f"{np.mean(lost > 0):.1%} of the training texts are cut, {lost.sum() / whole.sum():.1%} of the tokens lost",
        )


def _labels(e: Evidence) -> Iterator[tuple[str, str, str]]:
    """Yields how many validation labels the model contradicts with much confidence."""
    if not len(e.given):
        return
    probabilities = softmax(e.scores)
    sure = (probabilities.max(axis=1) >= SURE_OF_ANOTHER) & (probabilities.argmax(axis=1) != e.given)
    if sure.mean() >= DOUBTFUL_SHARE:
        yield (
            "labels",
            "Some labels may be wrong: 'bertlora audit DATA' ranks the doubtful ones.",
            f"{sure.sum():,} of {len(sure):,} validation labels are contradicted with a confidence of 0.95 or more",
        )


def _more_data(e: Evidence) -> Iterator[tuple[str, str, str]]:
    """Yields whether more data would help, by the slope of the probe's learning curve, where the folds agree on it.

    The doubt of the slope is two standard errors of its mean over folds, and no less than three rows of those learned
    from: folds that agree by chance prove little.
    """
    if len(e.curve) < 2:
        return
    before, after = e.curve[-2:]
    gains = 100 * (np.array(after.accuracies) - np.array(before.accuracies))
    gain = float(gains.mean())
    doubt = max(2 * float(gains.std(ddof=1)) / len(gains) ** 0.5, 100 * NONE_SEEN / after.rows)
    if gain >= WORTH_MORE_POINTS and gain > doubt:
        worth = "More labelled texts are worth it"
    elif gain + doubt < WORTH_MORE_POINTS:
        worth = "More texts of this kind will add little"
    else:
        return
    yield (
        "data",
        f"{worth}, going by the linear probe on the frozen encoder.",
        f"probe accuracy {before.accuracy:.1%} with {before.rows:,} rows, {after.accuracy:.1%} with {after.rows:,}: "
        f"{gain:+.1f} points, give or take {doubt:.1f}",
    )
