"""Several multi-label runs on the same rows: the figures of each, their ranking, and a test of every pair."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from bertlora.confidence.label_agreement import Chosen
from bertlora.errors import InputError
from bertlora.evaluation.label_gains import compare_labels
from bertlora.evaluation.multilabel import EvaluatedLabels
from bertlora.task import MULTILABEL

LABEL_PAIR_NOTE = (
    "Gap: of macro F1. p: paired bootstrap. p and intervals are corrected for the number of pairs (Holm). Rows to "
    "settle: about how many rows would show the gap if it is as large as measured."
)


def labels_side_by_side(evaluated: Mapping[str, EvaluatedLabels]) -> dict[str, Any]:
    """Returns what `compare --json` prints for runs that give several labels.

    Args:
        evaluated: by run name, the outputs of each run for the same rows in the same order; two runs or more.

    Returns:
        `task`, `n`, `runs` {name: figures of its LoRA}, `metric` (`macro_f1`), `ranking` (the highest macro F1 first),
        `pairs` (objects with `first`, `second`, and what `Comparison.figures` returns), and `choice`, which is None.

    Raises:
        InputError: the runs have different labels, or no row has a label.
    """
    first_name, first = next(iter(evaluated.items()))
    for name, found in evaluated.items():
        if set(found.labels) != set(first.labels):
            raise InputError(f"RUN: {first_name} and {name} have different labels")
    if not first.y_true.any():
        raise InputError("no row has a label, so runs cannot be compared by F1; give rows with labels")
    runs = {name: found.figures("lora") for name, found in evaluated.items()}
    chosen = {name: _in_order(found, first.labels) for name, found in evaluated.items()}
    compared = compare_labels(first.y_true, {(a, b): (chosen[a], chosen[b]) for a, b in combinations(evaluated, 2)})
    return {
        "task": MULTILABEL,
        "n": len(first.y_true),
        "runs": runs,
        "metric": "macro_f1",
        "ranking": sorted(runs, key=lambda name: -runs[name]["macro_f1"]),
        "pairs": [{"first": a, "second": b, **pair.figures((a, b))} for (a, b), pair in compared.items()],
        "choice": None,
    }


def _in_order(found: EvaluatedLabels, labels: list[str]) -> Chosen:
    """Returns the labels (N, K) that a run chooses, with columns in the order of `labels`."""
    return found.chosen("lora")[:, [found.labels.index(label) for label in labels]]
