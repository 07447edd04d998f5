"""What the tests of training share: sixteen short texts, a recipe for tiny models, and a run in a few lines."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import PLAIN
from torch import Tensor

from bertlora.data.reader import Examples
from bertlora.model.adapted import Adapted
from bertlora.model.engine import Execution
from bertlora.model.state import trained_state
from bertlora.recipe import Recipe
from bertlora.training.events import Evaluation, Step
from bertlora.training.loop import Training

GOOD = [
    "a joy",
    "i loved it",
    "brilliant and moving",
    "wonderful",
    "a lovely story",
    "great fun",
    "superb cast",
    "see it",
]
BAD = ["a mess", "i hated it", "boring and far too long", "awful", "a dull story", "no fun", "weak cast", "skip it"]
TEXTS = [text for both in zip(GOOD, BAD, strict=True) for text in both]
IDS = [1, 0] * len(GOOD)
LABELS = ["negative", "positive"]

# Differs from one run to the next, even when all else is equal.
TIMINGS = ("seconds", "examples_per_s")


def small_recipe(model: Path | str, **changes: Any) -> Recipe:
    """Full precision, no warm-up, sixteen texts in four steps."""
    settings = {"batch_size": 4, "epochs": 2, "learning_rate": 1e-2, "precision": "fp32", "max_length": 32}
    return Recipe(model=str(model), **(PLAIN | settings | changes))


def examples(adapted: Adapted, texts: Sequence[str] = (), ids: Sequence[int] = ()) -> Examples:
    return Examples(adapted.reader.read(list(texts)), np.array(ids, dtype=np.int64))


def small_training(
    recipe: Recipe,
    *,
    texts: Sequence[str] = TEXTS,
    ids: Sequence[int] = IDS,
    validate: bool = True,
    labels: Sequence[str] = LABELS,
    **options: Any,
) -> Training:
    """A training that has not started; it is evaluated on its training texts."""
    adapted = Adapted.fresh(recipe, labels)
    train = examples(adapted, texts, ids)
    return Training(adapted, recipe, train, train if validate else examples(adapted), **options)


def run_all(training: Training) -> tuple[list[Step], list[Evaluation]]:
    events = list(training.run())
    return [e for e in events if isinstance(e, Step)], [e for e in events if isinstance(e, Evaluation)]


def losses(training: Training) -> list[float]:
    return [step.loss for step in run_all(training)[0]]


def state(training: Training) -> dict[str, Tensor]:
    return trained_state(training.plain)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def without_timings(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in history]


def script(monkeypatch: pytest.MonkeyPatch, outcomes: list[tuple[int, float]]) -> None:
    """Decides the evaluations to come: (right answers, how sure of the wrong ones, above 0)."""
    coming = iter(outcomes)

    def scripted(execution: Any, inputs: Any, *args: Any) -> Any:
        right, sure = next(coming)
        scores = np.zeros((len(inputs), 2))
        for i, given in enumerate(IDS[: len(inputs)]):
            scores[i, given if i < right else 1 - given] = 2.0 if i < right else sure
        return scores

    monkeypatch.setattr(Execution, "predict", scripted)
