"""What to do next, in plain sentences, each with the measured figure that it rests on."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertlora.data.framing import Inputs
from bertlora.model.predict import Array, softmax
from bertlora.recipe import Recipe

Labels = npt.NDArray[np.int64]

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


@dataclass(frozen=True)
class Evidence:
    """What training measured.

    Attributes:
        recipe: as it was resolved.
        labels: names of the K classes.
        history: the evaluations, as in history.jsonl.
        train: the training texts.
        given: (V,) the validation texts' labels; V is 0 where there are none.
        scores: (V, K) the kept adapter's logits of them, temperature applied.
        curve: (rows, accuracy) of the probe; see `learning_curve`.
    """

    recipe: Recipe
    labels: Sequence[str]
    history: Sequence[dict[str, Any]]
    train: Inputs
    given: Labels
    scores: Array
    curve: Sequence[tuple[int, float]]


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
        yield (
            "overfitting",
            "The later epochs learn the training texts by heart: stop earlier (fewer epochs, or best_metric = loss), "
            "or raise lora_dropout or weight_decay.",
            f"validation loss {lowest['validation_loss']:.3f} at epoch {lowest['epoch']:g}, "
            f"{last['validation_loss']:.3f} at epoch {last['epoch']:g}; training loss {last['train_loss']:.3f}",
        )
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


def _head(e: Evidence) -> Iterator[tuple[str, str, str]]:
    """Yields what the first evaluation's training loss says of the head's rate."""
    if not e.history:
        return
    first, chance = e.history[0]["train_loss"], math.log(len(e.labels))
    rate = e.recipe.head_learning_rate or e.recipe.learning_rate
    figure = (
        f"training loss {first:.3f} over the first epoch; a coin toss has {chance:.3f}; the head's rate is {rate:g}"
    )
    if first > WORSE_THAN_CHANCE * chance:
        yield (
            "head",
            f"The head overshoots at the start: try head_learning_rate = {rate / 3:.1g}, or a warm-up.",
            figure,
        )
    elif first > UNLEARNED * chance:
        yield "head", f"The head is slow to learn: try head_learning_rate = {rate * 5:.1g}.", figure


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
        todo = (
            "set class_weights = balanced"
            if counts[worst] < counts[best] and e.recipe.class_weights == "none"
            else "look at the texts of that class that are missed, and add more like them"
        )
        yield (
            "skew",
            f"'{e.labels[worst]}' is missed far more often than '{e.labels[best]}': {todo}.",
            f"recall {recall[worst]:.2f} of {counts[worst]:,} rows against {recall[best]:.2f} of {counts[best]:,}",
        )


def _truncation(e: Evidence) -> Iterator[tuple[str, str, str]]:
    """Yields how much of the training texts was never read."""
    if e.train.second is not None or e.recipe.long_texts == "windows" or not len(e.train):
        return
    whole, room = e.train.first.lengths, e.train.framing.room(pair=False)
    lost = np.maximum(whole - room, 0)
    if lost.sum() > TOKENS_LOST * whole.sum():
        yield (
            "truncation",
            "Much of the long texts is not read: raise max_length where the model allows it, or try "
            "truncation = head-tail or long_texts = windows.",
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
    """Yields whether more data would help, by the slope of the probe's learning curve."""
    if len(e.curve) < 2:
        return
    (fewer, before), (rows, after) = e.curve[-2:]
    gain = 100 * (after - before)
    worth = (
        "More labelled texts are worth it" if gain >= WORTH_MORE_POINTS else "More texts of this kind will add little"
    )
    yield (
        "data",
        f"{worth}, going by the linear probe on the frozen encoder.",
        f"probe accuracy {before:.1%} with {fewer:,} rows, {after:.1%} with {rows:,}: {gain:+.1f} points",
    )
