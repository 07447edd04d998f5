"""How far results move between bf16 and fp32, and between one thread and two: a short training for each recipe.

    python faults/drift.py

The recipes keep their adapter, head, loss and rates. The recipes of MiniLM have MiniLM itself. For the others, a tiny
random model of their architecture takes the place of the base, whose weights are not here. Each line on stderr:

    logit    largest difference of a logit when the adapter that was trained in fp32 predicts in bf16
    spread   standard deviation of the logits, for comparison
    same     share of the texts with the same predicted class (numbers: within a tenth of the spread)
    loss     difference of the mean training loss of the last steps, trained in bf16 and in fp32
    threads  largest difference of a weight or a logit, trained and predicted with one thread and with two
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from conftest import NEGATIVE, POSITIVE, tiny_model

from bertlora.confidence.probabilities import Array
from bertlora.data.reader import Examples
from bertlora.model.adapted import Adapted
from bertlora.model.state import trained_state
from bertlora.recipe import RECIPES, Recipe
from bertlora.task import REGRESSION
from bertlora.training.events import Step
from bertlora.training.loop import Training

# Of random words: losses fall, and no text is far from all others.
TEXTS, WORDS, ROWS_A_STEP = 64, 14, 8
STEPS, LAST = 16, 8
ARCHITECTURES = {"minilm": "", "distil": "distilbert", "roberta": "roberta", "bert": "bert"}
# What is promised: of a text's class in bf16, of the loss in bf16, and of anything on two threads.
SAME, LOSS, THREADS = 0.95, 0.05, 1e-5


class Trained(NamedTuple):
    """A short training: its model, weights, mean loss of the last steps, and the logits of all texts."""

    adapted: Adapted
    inputs: Any
    weights: dict[str, torch.Tensor]
    loss: float
    logits: Array


class Drift(NamedTuple):
    """The differences of one recipe; see the top of the file."""

    logit: float
    spread: float
    same: float
    loss: float
    threads: float

    @property
    def kept(self) -> bool:
        """Whether they are within what is promised."""
        return self.same >= SAME and self.loss <= LOSS and self.threads <= THREADS


def main() -> int:
    """Measures each recipe, and prints the worst figures."""
    found: dict[str, Drift] = {}
    with tempfile.TemporaryDirectory(prefix="bertlora-drift-") as folder:
        tiny = cache(lambda kind: tiny_model(kind, Path(folder) / kind))
        for name in sorted(path.stem for path in RECIPES.glob("*.toml")):
            began, recipe = time.perf_counter(), Recipe.named(name)
            kind = next(kind for start, kind in ARCHITECTURES.items() if recipe.model.startswith(start))
            found[name] = drift(short(recipe, str(tiny(kind)) if kind else recipe.model))
            figures = ", ".join(f"{key} {value:.2g}" for key, value in found[name]._asdict().items())
            print(f"{name} ({kind or 'MiniLM'}): {figures}; {time.perf_counter() - began:.0f} s", file=sys.stderr)
    worst = {
        "recipes": len(found),
        "bf16: largest difference of a logit, parts of their spread": max(d.logit / d.spread for d in found.values()),
        "bf16: least share of texts with the same prediction": min(d.same for d in found.values()),
        "bf16: largest difference of the training loss": max(d.loss for d in found.values()),
        "1 and 2 threads: largest difference of a weight or logit": max(d.threads for d in found.values()),
    }
    print(json.dumps({key: float(f"{value:.2g}") for key, value in worst.items()}))
    return int(not all(one.kept for one in found.values()))


def short(recipe: Recipe, model: str) -> Recipe:
    """Returns the recipe with another base, for a few small steps; its rates, adapter and loss stay."""
    return recipe.replace(
        model=model,
        batch_size=ROWS_A_STEP,
        gradient_accumulation=1,
        epochs=STEPS * ROWS_A_STEP // TEXTS,
        max_length=min(recipe.max_length, 64),
        head_start="random",
        label_names=(),
        samples=(),
    )


def drift(recipe: Recipe) -> Drift:
    """Trains a recipe in fp32 with one thread and two, and in bf16, and compares."""
    with threads(1):
        one, half = trained(recipe, "fp32"), trained(recipe, "bf16")
        in_half = logits(one, "bf16")
    with threads(2):
        two = trained(recipe, "fp32")
    apart = [float((one.weights[name] - two.weights[name]).abs().max()) for name in one.weights]
    spread = float(one.logits.std())
    if recipe.task == REGRESSION:
        same = np.abs(in_half - one.logits)[:, 0] < 0.1 * spread
    else:
        same = in_half.argmax(1) == one.logits.argmax(1)
    return Drift(
        logit=float(np.abs(in_half - one.logits).max()),
        spread=spread,
        same=float(same.mean()),
        loss=abs(half.loss - one.loss),
        threads=max([*apart, float(np.abs(one.logits - two.logits).max())]),
    )


def trained(recipe: Recipe, precision: str) -> Trained:
    """Trains a recipe on the texts, and predicts them."""
    labels = ["number"] if recipe.task == REGRESSION else ["bad", "good"]
    recipe = recipe.replace(precision=precision)
    adapted = Adapted.fresh(recipe, labels)
    targets = np.array([i % 2 for i in range(TEXTS)], np.float64 if recipe.task == REGRESSION else np.int64)
    train = Examples(adapted.reader.read(texts()), targets)
    training = Training(adapted, recipe, train, Examples(adapted.reader.read([]), targets[:0]))
    losses = [event.loss for event in training.run() if isinstance(event, Step)]
    found = Trained(adapted, train.inputs, trained_state(adapted.model), float(np.mean(losses[-LAST:])), np.empty(0))
    return found._replace(logits=logits(found, precision))


def texts() -> Sequence[str]:
    """Returns texts of random words, of one label and the other in turn."""
    draws = np.random.default_rng(0)
    words = [" ".join(group).replace(",", "").split() for group in (NEGATIVE, POSITIVE)]
    return [" ".join(draws.choice(words[i % 2], int(draws.integers(3, WORDS)))) for i in range(TEXTS)]


def logits(found: Trained, precision: str) -> Array:
    """Returns the logits of all texts; the few tokens of these texts would otherwise be computed in fp32."""
    with found.adapted.execution(precision) as execution:
        return execution.predict(found.inputs)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, torch has this number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    sys.exit(main())
