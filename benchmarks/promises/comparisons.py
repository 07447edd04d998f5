"""Equal classifiers seldom "beat" each other, the rows to settle settle, and choosing the best costs what is said."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import combinations

import numpy as np

from bertlora.evaluation.choice import choose
from bertlora.evaluation.comparison import compare_all
from bertlora.evaluation.gains import SIGNIFICANCE
from bertlora.evaluation.recipes import RecipeGain
from bertlora.evaluation.scores import leading_metric
from promises.intervals import recipe_points
from promises.promise import Promise, Random
from promises.tasks import BALANCED, FEW_RARE, FIVE, RARE, SMALL, TWENTY, Task

RUNS = 10
RIVALS = 3
# The better classifier of a pair gets this fraction of the missed rows right.
GAP = 0.25
PILOT_ROWS = 1_000_000


def comparisons() -> Iterator[Promise]:
    """Yields the promises."""
    for task in (SMALL, BALANCED, FEW_RARE, RARE, FIVE, TWENTY):
        yield _seldom(f"two equal runs: {task.name}", partial(_one_beats, task=task, runs=2))
    for task in (BALANCED, RARE):
        yield _seldom(f"{RUNS} equal runs: {task.name}", partial(_one_beats, task=task, runs=RUNS))
        yield _seldom(f"LoRA and {RIVALS} equal rivals: {task.name}", partial(_rival_beats, task=task))
    for seeds in (3, 5, 10):
        for spread in (0.0, 0.01):
            case = f"two equal recipes under {seeds} seeds that differ by {100 * spread:g} points"
            yield _seldom(case, partial(_recipe_beats, seeds=seeds, spread=spread))
    for task in (BALANCED, RARE):
        yield Promise("power", f"as many rows as settle a gap: {task.name}", partial(_settled, task=task), 0.77, 0.84)
    for task in (BALANCED, RARE):
        case = f"the best of {RUNS} equal runs: {task.name}"
        yield Promise("choice", case, partial(_better_than_expected, task=task), 0.4, 0.6)


def _seldom(case: str, happens: Callable[[Random], dict[str, bool]]) -> Promise:
    return Promise("chance", case, happens, high=SIGNIFICANCE)


def _one_beats(random: Random, task: Task, runs: int) -> dict[str, bool]:
    y_true, predicted = task.draw(random, runs - 1)
    pairs = dict(enumerate(combinations(predicted, 2)))
    found = compare_all(y_true, pairs, task.classes).values()
    return {"one beats another": any(pair.significant for pair in found)}


def _rival_beats(random: Random, task: Task) -> dict[str, bool]:
    y_true, (lora, *rivals) = task.draw(random, RIVALS)
    found = compare_all(y_true, {i: (rival, lora) for i, rival in enumerate(rivals)}, task.classes).values()
    return {"LoRA beats a rival, or a rival LoRA": any(pair.significant for pair in found)}


def _recipe_beats(random: Random, seeds: int, spread: float) -> dict[str, bool]:
    return {"one beats the other": RecipeGain(recipe_points(random, seeds, spread)).p < SIGNIFICANCE}


@cache
def _rows_to_settle(task: Task) -> int:
    """Returns the rows that the true gap needs, by a draw so large that it measures the true gap."""
    y_true, first, second = replace(task, rows=PILOT_ROWS).with_better(np.random.default_rng(0), GAP)
    needed = compare_all(y_true, {0: (first, second)}, task.classes)[0].difference.rows_needed(SIGNIFICANCE)
    assert needed is not None
    return round(needed)


def _settled(random: Random, task: Task) -> dict[str, bool]:
    y_true, first, second = replace(task, rows=_rows_to_settle(task)).with_better(random, GAP)
    return {"the gap is shown": compare_all(y_true, {0: (first, second)}, task.classes)[0].significant}


def _better_than_expected(random: Random, task: Task) -> dict[str, bool]:
    y_true, predicted = task.draw(random, RUNS - 1)
    metric = leading_metric(y_true)
    choice = choose(y_true, {str(i): one for i, one in enumerate(predicted)}, task.classes, metric)
    return {"its true figure is above the expected one": task.true_score(metric) > choice.expected}
