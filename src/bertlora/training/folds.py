"""Cross-validation: K adapters, trained in turn on one frozen prefix.

The layers below the lowest adapter run once for each text, and all folds share the result. A fold is a set of row
numbers; no text is copied.

Letters: N rows, B rows of a step, K classes.
"""

import hashlib
import time
from collections.abc import Callable

import numpy as np
import torch
from safetensors.numpy import load_file, save

from bertlora.confidence.probabilities import Array
from bertlora.data.reader import Examples
from bertlora.model.adapted import Adapted
from bertlora.model.draws import Draws
from bertlora.model.engine import Execution, evaluating, row_tokens, unwrapped
from bertlora.model.state import load_trained_state, trained_state
from bertlora.recipe import Recipe
from bertlora.sealed import Kept, sealing
from bertlora.training.events import Step
from bertlora.training.optimiser import (
    Average,
    Loss,
    Rows,
    build_optimiser,
    descend,
    for_classes,
    micro_batch,
    step_rows,
)

LOGITS = "logits.safetensors"


def out_of_fold_logits(
    adapted: Adapted,
    recipe: Recipe,
    examples: Examples,
    fold: Rows,
    on_step: Callable[[Step], None] = lambda _: None,
    kept: Kept | None = None,
) -> Array:
    """Returns logits, (N, K); those of a row come from the adapter that did not learn from the row's fold.

    Every fold starts from the same fresh adapter and a random head: a linear probe on all rows would know the held-out
    labels. A fold trains for all epochs, and its last adapter is evaluated. With `adapt_last_layers` the layers below
    run once for each text, otherwise in every step.

    Args:
        adapted: a fresh adapter; it is unchanged afterwards.
        recipe: the recipe of each fold.
        examples: all rows.
        fold: (N,) the fold of each row, from 0.
        on_step: called after each step; steps are counted over all folds.
        kept: where the frozen layers' output and each fold's logits are kept, and taken from if they are there.

    Raises:
        HealthError: the loss is not finite.
    """
    recipe = for_classes(recipe, examples.labels)
    start, scores = trained_state(adapted.model), np.zeros((len(examples), len(adapted.labels)))
    pack = not recipe.encoder_dropout
    precision = adapted.training_precision(recipe.precision, examples.inputs, pack)
    if kept is not None:
        dealt = hashlib.sha256(fold.tobytes()).hexdigest()
        kept = Kept(kept.folder, kept.facts | {"precision": precision, "fold": dealt})
    with adapted.execution(precision, training=True, pack=pack) as execution:
        folds = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(int(fold.max()) + 1)]
        parts = [kept and kept.part(f"fold-{k}") for k in range(len(folds))]
        done = [_kept_logits(part) for part in parts]
        steps = [recipe.steps(len(learned)) for learned, _ in folds]
        count = _Counter(sum(steps), on_step, sum(n for n, found in zip(steps, done, strict=True) if found is not None))
        if any(found is None for found in done):
            execution.keep_prefix(examples.inputs, row_tokens(execution.device), None, kept and kept.part("prefix"))
        for (learned, held_out), part, found in zip(folds, parts, done, strict=True):
            if found is None:
                load_trained_state(adapted.model, start)
                _train(execution, recipe, adapted.labels, examples, learned, count)
                found = _logits(execution, examples, held_out)
                _keep_logits(part, found)
            scores[held_out] = found
    load_trained_state(adapted.model, start)
    adapted.model.eval()
    return scores


class _Counter:
    """Counts steps over all folds and reports each."""

    def __init__(self, steps: int, on_step: Callable[[Step], None], done: int = 0) -> None:
        self._steps, self._on_step, self._done = steps, on_step, done
        self._examples = 0
        self._began = time.perf_counter()

    def __call__(self, loss: float, examples: int) -> None:
        self._done += 1
        self._examples += examples
        pace = self._examples / max(time.perf_counter() - self._began, 1e-9)
        self._on_step(Step(self._done, self._steps, loss, pace))


def _train(
    execution: Execution, recipe: Recipe, names: list[str], examples: Examples, rows: Rows, count: _Counter
) -> None:
    """Trains the model on these rows; afterwards it has the average over the last steps."""
    model, inputs, labels = execution.model, examples.inputs, examples.labels
    steps = recipe.steps(len(rows))
    optimiser, average = build_optimiser(model, recipe), Average(model, recipe, steps)
    weights, device = examples.weights_of(), execution.device
    size = micro_batch(recipe, inputs, execution.packs, device)
    loss = Loss(recipe, labels[rows], names, weights[rows], device)
    draws = Draws(recipe.seed, device)
    model.train()
    for step, chosen in enumerate(step_rows(recipe, len(rows))):
        batch = rows[chosen]
        whole, total = loss.weight(labels[batch], weights[batch]), torch.zeros((), device=device)
        with draws.used():
            for part in execution.batches(inputs.lengths[batch], *size):
                found = batch[part]
                mean = loss.sum(execution.logits(inputs, found.tolist()), labels[found], weights[found]) / whole
                mean.backward()  # type: ignore[no-untyped-call]
                total += mean.detach()
        value = descend(optimiser, recipe, step, steps, total)
        average.add()
        count(value, len(batch))
    load_trained_state(model, average.state())


def _keep_logits(kept: Kept | None, logits: Array) -> None:
    """Keeps the logits of a fold, if they are to be kept."""
    if kept is not None:
        with sealing(*kept) as folder:
            (folder / LOGITS).write_bytes(save({"logits": logits}))


def _kept_logits(kept: Kept | None) -> Array | None:
    """Returns the logits of a fold that an earlier process trained; None if it did not."""
    return load_file(kept.folder / LOGITS)["logits"] if kept is not None and kept.whole() else None


def _logits(execution: Execution, examples: Examples, rows: Rows) -> Array:
    """Returns the logits of these rows, in their order."""
    scores = np.zeros((len(rows), unwrapped(execution.model).config.num_labels))
    with evaluating(execution.model), torch.inference_mode():
        for part in execution.batches(examples.inputs.lengths[rows], len(rows), row_tokens(execution.device)):
            scores[part] = execution.logits(examples.inputs, rows[part].tolist()).double().cpu().numpy()
    return scores
