"""What is said of new texts is kept: thresholds, label sets, calibration errors, and intervals of numbers.

Letters: N validation rows, K classes.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from bertlora.confidence.abstention import CONFIDENCE_LEVEL, threshold_for_accuracy, threshold_for_coverage
from bertlora.confidence.calibration import fit_temperature
from bertlora.confidence.label_sets import LabelSets
from bertlora.confidence.probabilities import BINS, CalibrationError, softmax
from bertlora.confidence.spread import Spread
from bertlora.errors import InputError
from promises.intervals import holds
from promises.promise import Promise, Random

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
# Label sets, and a new text's probabilities (1, K) and label.
ChosenSets = tuple[LabelSets, Array, int]

# Standard deviation of the logits of right probabilities, and how many times too large a model's logits are.
SPREAD, HEAT = 2.5, 2.5
MANY_ROWS = 400_000
SETS = ((30, 0.8), (100, 0.9), (400, 0.95))
# Shares of the three classes of `skewed`.
SKEWED = (0.5, 0.4, 0.1)
# The range of the floor is made of percentiles of errors, which are discrete.
RANGE = (0.93, 0.97)


def confidence() -> Iterator[Promise]:
    """Yields the promises."""
    for rows, coverage in ((20, 0.8), (100, 0.95), (500, 0.5)):
        case = f"a threshold for {100 * coverage:g} % of texts, {rows} rows"
        happens = partial(_gets_a_label, rows=rows, coverage=coverage)
        yield Promise("abstention", case, happens, coverage, coverage + 1 / (rows + 1))
    for rows, accuracy in ((400, 0.9), (1_000, 0.9), (1_000, 0.95)):
        case = f"a threshold for an accuracy of {100 * accuracy:g} %, {rows:,} rows"
        broken = partial(_too_few_are_right, rows=rows, accuracy=accuracy)
        yield Promise("abstention", case, broken, high=1 - CONFIDENCE_LEVEL)
    for classes in (2, 4):
        for rows, coverage in SETS:
            case = f"sets for {100 * coverage:g} %, {classes} classes, {rows} rows"
            chosen = partial(_sets, rows=rows, classes=classes, coverage=coverage)
            yield Promise("sets", case, partial(_set_holds_the_label, chosen), coverage)
            yield Promise("sets", case, partial(_label_reaches_the_floor, chosen), high=coverage + 1 / (rows + 1))
    yield Promise("sets", "sets for 90 % of each class, one of them rare", _sets_hold_each_class, 0.9)
    for heat, rows in ((1.0, 300), (1.3, 100), (1.3, 2_000), (3.0, 300)):
        case = f"logits {heat:g} times too large, {rows:,} rows"
        yield Promise("calibration", case, partial(_error_is_held, heat=heat, rows=rows), 0.95)
    for rows in (300, 2_000):
        case = f"perfect probabilities, {rows:,} rows"
        yield Promise("calibration", case, partial(_chance_is_called_error, rows=rows), high=0.025)
        yield Promise("calibration", case, partial(_error_is_in_the_range, rows=rows), *RANGE)
    for rows in (9, 40):
        for coverage in (0.5, 0.9):
            case = f"intervals for {100 * coverage:g} % of numbers, {rows} rows"
            happens = partial(_interval_holds_the_number, rows=rows, coverage=coverage)
            yield Promise("numbers", case, happens, coverage, min(1.0, coverage + 1 / (rows + 1)))


def drawn(random: Random, rows: int, classes: int = 2, heat: float = HEAT) -> tuple[Array, Labels]:
    """Returns logits (N, K) that are `heat` times too large, and labels from the probabilities of the right ones."""
    logits = SPREAD * random.normal(size=(rows, classes))
    return heat * logits, (logits + random.gumbel(size=(rows, classes))).argmax(axis=1)


def perfect(random: Random, rows: int, classes: int = 2) -> tuple[Array, Labels]:
    """Returns probabilities (N, K), and labels that were drawn from them."""
    logits, labels = drawn(random, rows, classes, heat=1.0)
    return softmax(logits), labels


def skewed(random: Random, labels: Labels) -> Array:
    """Returns probabilities (N, 3) for rows with these labels; the last class is mostly missed."""
    logits = 2.0 * np.eye(3)[labels] + random.normal(size=(len(labels), 3)) + np.array([1.0, 1.0, -1.5])
    return softmax(logits)


def true_accuracy(threshold: float) -> float:
    """Returns how often a text of `perfect` is right, of those that reach a threshold."""
    ascending, above = _accuracies()
    return float(above[min(int(np.searchsorted(ascending, threshold)), len(above) - 1)])


@cache
def _accuracies() -> tuple[Array, Array]:
    """Returns confidences of `perfect`, ascending, and the mean of those from each on: it is the accuracy there."""
    ascending = np.sort(perfect(np.random.default_rng(0), MANY_ROWS)[0].max(axis=1))
    return ascending, np.cumsum(ascending[::-1])[::-1] / np.arange(MANY_ROWS, 0, -1)


@cache
def true_error(heat: float) -> float:
    """Returns the calibration error of endlessly many rows of two classes."""
    right = drawn(np.random.default_rng(0), MANY_ROWS, heat=1.0)[0]
    confidence, accuracy = softmax(heat * right).max(axis=1), softmax(right).max(axis=1)
    places = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    return float(np.abs(np.bincount(places, weights=confidence - accuracy)).sum() / MANY_ROWS)


def _gets_a_label(random: Random, rows: int, coverage: float) -> dict[str, bool]:
    threshold = threshold_for_coverage(*perfect(random, rows), coverage)
    return {"a new text gets a label": bool(threshold.answers(perfect(random, 1)[0])[0])}


def _too_few_are_right(random: Random, rows: int, accuracy: float) -> dict[str, bool]:
    event = "of the new texts with a label, fewer are right"
    try:
        threshold = threshold_for_accuracy(*perfect(random, rows), accuracy)
    except InputError:  # nothing is promised
        return {event: False}
    return {event: true_accuracy(threshold.value) < accuracy}


def _sets(random: Random, rows: int, classes: int, coverage: float) -> ChosenSets:
    """Returns sets chosen on rows that gave the temperature too, and a new text's probabilities (1, K) and label."""
    logits, labels = drawn(random, rows, classes)
    temperature = fit_temperature(logits, labels)
    new, (label,) = drawn(random, 1, classes)
    return LabelSets.of(softmax(logits / temperature), labels, coverage), softmax(new / temperature), int(label)


def _set_holds_the_label(chosen: Callable[[Random], ChosenSets], random: Random) -> dict[str, bool]:
    sets, new, label = chosen(random)
    return {"the set of a new text holds its label": bool(sets(new)[0, label])}


def _label_reaches_the_floor(chosen: Callable[[Random], ChosenSets], random: Random) -> dict[str, bool]:
    sets, new, label = chosen(random)
    return {"the label of a new text reaches the floor": bool(new[0, label] >= sets.floors[label])}


def _sets_hold_each_class(random: Random) -> dict[str, bool]:
    labels = random.choice(3, 300, p=SKEWED)
    sets = LabelSets.of(skewed(random, labels), labels, 0.9, per_class=True)
    new = sets(skewed(random, np.arange(3)))
    return {f"the set of a new text of class {k} holds it": bool(new[k, k]) for k in range(3)}


def _error_is_held(random: Random, heat: float, rows: int) -> dict[str, bool]:
    logits, labels = drawn(random, rows, heat=heat)
    found = CalibrationError.of(softmax(logits), labels)
    return {"95 % CI of the calibration error holds it": holds(found.ci95, true_error(heat))}


def _chance_is_called_error(random: Random, rows: int) -> dict[str, bool]:
    return {"they are called miscalibrated": CalibrationError.of(*perfect(random, rows)).above_chance}


def _error_is_in_the_range(random: Random, rows: int) -> dict[str, bool]:
    found = CalibrationError.of(*perfect(random, rows))
    return {"their error is in the range of the floor": holds(found.floor_range95, found.value)}


def _interval_holds_the_number(random: Random, rows: int, coverage: float) -> dict[str, bool]:
    """Draws errors with heavy tails: the promise needs no distribution."""
    *errors, new = random.standard_cauchy(rows + 1)
    spread = Spread.of(0.0, 1.0, np.array(errors)[:, None], np.zeros(rows))
    interval = spread.predictions(["score"], sets=coverage)(np.zeros((1, 1)))[0]["interval"]
    return {"the interval of a new text holds its number": holds(interval, float(new))}
