"""What a training measured, made up: the input of the rules of advice."""

from typing import Any

import numpy as np
import numpy.typing as npt

from bertlora.data.inputs import Inputs
from bertlora.data.reader import Examples
from bertlora.data.template import InputTemplate
from bertlora.data.tokens import TokenTable
from bertlora.evaluation.advice import Evidence
from bertlora.recipe import Recipe
from bertlora.training.checkpoints import Trace

SPECIAL = np.array([1], dtype=np.int32)
Labels = npt.NDArray[np.int64]


def texts(lengths: list[int], seconds: list[int] | None = None, truncation: str = "right", **keys: Any) -> Examples:
    """Returns training texts, or pairs, of these lengths in tokens; 10 tokens of a text fit, 9 of a pair."""
    framing = InputTemplate((SPECIAL, SPECIAL), (SPECIAL, SPECIAL, SPECIAL), (0, 1), 12, truncation, **keys)
    first, second = ([[5] * length for length in some] for some in (lengths, seconds or []))
    inputs = Inputs(framing, TokenTable.of(first), TokenTable.of(second) if seconds else None)
    return Examples(inputs, np.arange(len(lengths)) % 2)


def learned(labels: Labels) -> Examples:
    """Returns short training texts with these labels."""
    return Examples(texts([5] * len(labels)).inputs, labels)


def evidence(**changes: Any) -> Evidence:
    """Returns the measurements of a training without faults on 64 texts of two classes, with `changes`."""
    y_true = np.arange(100) % 2
    sound = course([(0.5, 0.40, 0.84), (0.3, 0.35, 0.88), (0.2, 0.36, 0.87)], y_true)
    sound |= {"train": learned(np.arange(64) % 2), "y_true": y_true, "logits": 1.5 * np.eye(2)[y_true], "curve": []}
    return Evidence(**{"recipe": Recipe(), "labels": ["bad", "good"], "longest": 12, **sound, **changes})


def course(
    epochs: list[tuple[float, float, float]], y_true: Labels, steps: int = 4, kept: int | None = None
) -> dict[str, Any]:
    """Returns `history` and `trace` of a training.

    Args:
        epochs: training loss, validation loss and accuracy of each; all steps and texts of an epoch have the same loss.
        y_true: (V,) the labels of the validation texts; an epoch gets the first ones right.
        steps: optimiser steps in an epoch.
        kept: the epoch whose adapter is kept, from 0; None is the most accurate one.
    """
    rows = len(y_true)
    wrong = np.where(y_true == 0, 1, 0)
    predicted = [np.where(np.arange(rows) < round(share * rows), y_true, wrong) for _, _, share in epochs]
    trace = Trace(
        [loss + 1e-3 * (-1) ** i for loss, _, _ in epochs for i in range(steps)],
        [np.full(rows, loss) + 1e-3 * (-1.0) ** np.arange(rows) for _, loss, _ in epochs],
        predicted,
    )
    best = int(np.argmax([accuracy for _, _, accuracy in epochs])) if kept is None else kept
    return {"history": history(trace, y_true, steps, best), "trace": trace}


def history(trace: Trace, y_true: Labels, steps: int, best: int) -> list[dict[str, Any]]:
    """Returns the evaluations of a trace, one per epoch."""
    found = zip(trace.row_losses, trace.predicted, strict=True)
    return [
        {
            "epoch": i + 1,
            "step": (i + 1) * steps,
            "train_loss": float(np.mean(trace.step_losses[i * steps : (i + 1) * steps])),
            "validation_loss": float(losses.mean()),
            "accuracy": float(np.mean(predicted == y_true)),
            "best": i == best,
        }
        for i, (losses, predicted) in enumerate(found)
    ]
