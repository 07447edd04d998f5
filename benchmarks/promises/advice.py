"""No rule of advice speaks about nothing: in each case a rule must be silent, and only chance makes it speak.

The rule on rivals says what is not shown. So it must speak if LoRA is only as good as its rivals, and be silent if LoRA
is better by a gap that the rows show. Whatever the rows show, it must not call a rival better that is not.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from sklearn.metrics import f1_score

from bertlora.confidence.probabilities import Array
from bertlora.evaluation.advice import advise
from bertlora.evaluation.advice.course import FAR_FROM_LEARNED, UNLEARNED, WORSE_THAN_CHANCE
from bertlora.evaluation.advice.data import WORTH_MORE_POINTS
from bertlora.evaluation.gains import SIGNIFICANCE
from bertlora.evaluation.scores import leading_metric, value_of
from bertlora.recipe import Recipe
from bertlora.rivals.probe import CurvePoint
from bertlora.task import MULTILABEL, REGRESSION
from bertlora.training.checkpoints import Trace
from promises.evidence import course, evidence, history, learned
from promises.promise import Promise, Random
from promises.tasks import ALIKE, BALANCED, RARE, SMALL, Task

EPOCHS, STEPS = 4, 40
# LoRA gets this fraction of the rivals' errors right, or makes its errors smaller by it.
GAIN = 0.6
ROWS = 300
NOT_SHOWN, RIVAL_BETTER = "do not show that LoRA is better", "is better than LoRA on"
CHANCE = float(np.log(2))
FOLDS = 4
LIMITS = {"underfitting": FAR_FROM_LEARNED, "overshoots": WORSE_THAN_CHANCE, "slow to learn": UNLEARNED}


def advice() -> Iterator[Promise]:
    """Yields the promises."""
    for task in (SMALL, BALANCED, RARE):
        equal = partial(_epochs, task=task, loss_rise=1.0)
        yield _silent(f"equal epochs: {task.name}", equal, ("overfitting", "epochs:"))
        rising = partial(_epochs, task=task, loss_rise=1.5)
        yield _silent(f"equal epochs with a rising loss: {task.name}", rising, ("would lower the", "stop earlier"))
    for steps in (4, 40):
        for word, limit in LIMITS.items():
            yield _silent(f"a loss at the limit, {steps} steps", partial(_losses, steps=steps, mean=limit), (word,))
    for classes in (2, 5, 20):
        yield _silent(f"{classes} classes with equal recalls", partial(_equal_recalls, classes=classes), ("skew",))
    for rows in (100, 1_000):
        yield _silent(f"perfect probabilities, {rows:,} rows", partial(_perfect, rows=rows), ("labels",))
    for rows in (200, 2_000):
        yield _silent(f"a flat curve, {rows:,} rows", partial(_curve, rows=rows, gain=0.0), ("likely to raise",))
        risen = partial(_curve, rows=rows, gain=WORTH_MORE_POINTS)
        yield _silent(f"a curve that rises by a point, {rows:,} rows", risen, ("gain little",))
    yield from _on_rivals()


def _on_rivals() -> Iterator[Promise]:
    """Yields the promises of the rule on rivals: equal ones, worse ones, and worse ones on too few rows."""
    drawn: dict[str, Callable[..., dict[str, Any]]] = {
        task.name: partial(_classes, task=task) for task in (SMALL, BALANCED, RARE)
    }
    drawn |= {"numbers": _numbers, "several labels": _labels}
    for name, draw in drawn.items():
        said = partial(_said_of_rivals, made=partial(draw, gain=0.0))
        yield Promise("advice", f"two rivals as good as LoRA: {name}", said, high=SIGNIFICANCE)
        better = partial(draw, gain=GAIN)
        few = name == SMALL.name
        words = (RIVAL_BETTER,) if few else (RIVAL_BETTER, NOT_SHOWN)
        yield _silent(f"LoRA is better{', too few rows' if few else ''}: {name}", better, words)


def _silent(case: str, made: Callable[[Random], dict[str, Any]], words: Sequence[str]) -> Promise:
    """Returns the promise that no advice has one of these words in its topic or text."""

    def happens(random: Random) -> dict[str, bool]:
        said = [f"{one['topic']}: {one['text']}" for one in advise(evidence(**made(random)))]
        return {f"advice: '{word}'": any(word in one for one in said) for word in words}

    return Promise("advice", case, happens, high=SIGNIFICANCE)


def _said_of_rivals(random: Random, made: Callable[[Random], dict[str, Any]]) -> dict[str, bool]:
    """Returns whether the rule on rivals is silent, and whether it calls a rival better."""
    said = [one["text"] for one in advise(evidence(**made(random))) if one["topic"] == "rivals"]
    return {"advice: LoRA is better": not said, f"advice: '{RIVAL_BETTER}'": any(RIVAL_BETTER in one for one in said)}


def _classes(random: Random, task: Task, gain: float) -> dict[str, Any]:
    """Returns two equal rivals, and LoRA: the best of its epochs, which gets a fraction `gain` of missed rows right."""
    y_true, predicted = task.draw(random, EPOCHS + 1)
    metric = leading_metric(y_true)
    epochs = [np.where(random.random(task.rows) < gain, y_true, one) for one in predicted[2:]]
    best = max(epochs, key=lambda one: value_of(metric, y_true, one, task.classes))
    logits = [1.5 * np.eye(task.classes)[one] for one in (best, *predicted[:2])]
    return {"y_true": y_true, "labels": [f"class {k}" for k in range(task.classes)], **_models(logits)}


def _numbers(random: Random, gain: float) -> dict[str, Any]:
    """Returns two equal regressions, and LoRA: the best of its epochs, with errors smaller by a fraction `gain`."""
    y_true, shared = random.normal(size=(2, ROWS))
    errors = ALIKE * shared + (1 - ALIKE**2) ** 0.5 * random.normal(size=(EPOCHS + 2, ROWS))
    best = min(errors[2:], key=lambda one: float(np.mean(one**2)))
    found = [(y_true + one)[:, None] for one in ((1 - gain) * best, *errors[:2])]
    return {"recipe": Recipe(task=REGRESSION), "y_true": y_true, "labels": ["number"], **_models(found)}


def _labels(random: Random, gain: float) -> dict[str, Any]:
    """Returns two equal models of three labels, and LoRA: the best of its epochs, with a fraction `gain` less noise."""
    log_odds, shared = np.array([0.0, -1.0, -2.0]) + 3 * random.normal(size=(ROWS, 3)), random.normal(size=(ROWS, 3))
    y_true = random.random(log_odds.shape) < 1 / (1 + np.exp(-log_odds))
    noise = 3 * (ALIKE * shared + (1 - ALIKE**2) ** 0.5 * random.normal(size=(EPOCHS + 2, ROWS, 3)))
    epochs = [log_odds + (1 - gain) * one for one in noise[2:]]
    best = max(epochs, key=lambda one: float(f1_score(y_true, one > 0, average="macro")))
    found = [best, *(log_odds + one for one in noise[:2])]
    return {"recipe": Recipe(task=MULTILABEL), "y_true": y_true, "labels": ["a", "b", "c"], **_models(found)}


def _models(outputs: Sequence[Array]) -> dict[str, Any]:
    """Returns the outputs (V, K) of LoRA and of its two rivals, and no course of training to advise on."""
    lora, probe, tfidf = outputs
    return {"logits": lora, "rivals": {"probe": probe, "tfidf": tfidf}, "history": []}


def _epochs(random: Random, task: Task, loss_rise: float) -> dict[str, Any]:
    """Returns epochs that are equally good on average; the validation loss rises by a factor per epoch."""
    y_true, predicted = task.draw(random, EPOCHS - 1)
    shared = random.gamma(0.3, 1.0, task.rows)
    losses = [np.where(random.random(task.rows) < ALIKE, shared, random.gamma(0.3, 1.0, task.rows)) for _ in predicted]
    trace = Trace([0.1] * (EPOCHS * STEPS), [part * loss_rise**i for i, part in enumerate(losses)], predicted)
    best = int(np.argmax([np.mean(one == y_true) for one in predicted]))
    lines, logits = history(trace, y_true, STEPS, best), 1.5 * np.eye(task.classes)[y_true]
    return {"trace": trace, "history": lines, "y_true": y_true, "logits": logits}


def _losses(random: Random, steps: int, mean: float) -> dict[str, Any]:
    """Returns two epochs whose step losses have a mean of `mean` times chance."""
    found = course([(0, 0.4, 0.8), (0, 0.4, 0.8)], np.arange(100) % 2, steps)
    found["trace"].step_losses[:] = random.gamma(30, mean * CHANCE / 30, 2 * steps).tolist()
    labels = np.arange(16 * steps) % 2
    return found | {"train": learned(labels)}


def _equal_recalls(random: Random, classes: int) -> dict[str, Any]:
    rows = 20 * classes
    y_true = random.permutation(np.arange(rows) % classes)
    missed = random.random(rows) > 0.75
    predicted = np.where(missed, (y_true + random.integers(1, classes, rows)) % classes, y_true)
    rest = course([(0.2, 0.3, 0.7), (0.1, 0.3, 0.7)], y_true)
    labels = [f"class {k}" for k in range(classes)]
    logits = 1.5 * np.eye(classes)[predicted]
    return rest | {"y_true": y_true, "logits": logits, "labels": labels, "train": learned(np.arange(64) % classes)}


def _perfect(random: Random, rows: int) -> dict[str, Any]:
    """Returns logits whose probabilities are right, most of them near 0 and 1."""
    margin = random.normal(0, 4, rows)
    y_true = (random.random(rows) < 1 / (1 + np.exp(-margin))).astype(np.int64)
    logits = np.stack([np.zeros(rows), margin], axis=1)
    return course([(0.2, 0.3, 0.7), (0.1, 0.3, 0.7)], y_true) | {"y_true": y_true, "logits": logits}


def _curve(random: Random, rows: int, gain: float) -> dict[str, Any]:
    """Returns a learning curve whose last part rises by `gain` points on average; folds share most training rows."""
    spread = (0.2 / (rows / FOLDS)) ** 0.5  # of a fold's gain: a fifth of its rows changes
    shared = random.normal() * (1 / FOLDS) ** 0.5
    gains = gain / 100 + spread * (shared + random.normal(size=FOLDS) * (1 - 1 / FOLDS) ** 0.5)
    before = random.normal(0.8, 0.02, FOLDS)
    return {"curve": [CurvePoint(rows // 2, tuple(before)), CurvePoint(rows, tuple(before + gains))]}
