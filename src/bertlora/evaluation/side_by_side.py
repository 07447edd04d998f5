"""Several runs on the same rows: the metrics of each, their ranking, and a test of every pair."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from bertlora.confidence.probabilities import Labels
from bertlora.evaluation.choice import choose
from bertlora.evaluation.comparison import FEWEST_ROWS, MOST_ROWS, compare_all
from bertlora.evaluation.metrics import classification_metrics
from bertlora.evaluation.scores import METRIC_NAMES, leading_metric
from bertlora.evaluation.verdict import Evaluated

PAIR_COLUMNS = ["run", "against", "gap, points", "95 % CI", "p", "significant", "rows to settle"]


def side_by_side(evaluated: Mapping[str, Evaluated]) -> dict[str, Any]:
    """Returns what `compare --json` prints.

    Args:
        evaluated: by run name, the outputs of each run on the same rows in the same order; two runs or more.

    Returns:
        - `n`; `runs` {name: metrics of its LoRA as `classification_metrics` returns them}.
        - `metric`: `accuracy`, or `macro_f1` if the classes of the rows are imbalanced. It ranks and compares the runs.
        - `ranking`: the names, the best first.
        - `pairs`: objects with `first`, `second`, and what `Comparison.figures` returns. `tested`, `significant`,
          `rows_to_settle` and `verdict` are corrected for the number of pairs.
        - `choice`: what `Choice.figures` returns; None with fewer than 30 rows.
    """
    y_true = next(iter(evaluated.values())).y_true
    metric, classes = leading_metric(y_true), max(len(found.labels) for found in evaluated.values())
    runs = {
        name: classification_metrics(found.logits("lora"), found.y_true, found.labels)
        for name, found in evaluated.items()
    }
    predicted = {name: _predicted(found, y_true, classes) for name, found in evaluated.items()}
    pairs = {pair: (predicted[pair[0]], predicted[pair[1]]) for pair in combinations(evaluated, 2)}
    compared = compare_all(y_true, pairs, classes)
    choice = choose(y_true, predicted, classes, metric).figures() if len(y_true) >= FEWEST_ROWS else None
    return {
        "n": len(y_true),
        "runs": runs,
        "metric": metric,
        "ranking": sorted(runs, key=lambda name: -runs[name][metric]),
        "pairs": [{"first": a, "second": b, **pair.figures((a, b))} for (a, b), pair in compared.items()],
        "choice": choice,
    }


def _predicted(found: Evaluated, y_true: Labels, classes: int) -> Labels:
    """Returns the classes that a run predicts, (N,), in the order of the first run; runs may number theirs otherwise.

    Args:
        found: the outputs of the run.
        y_true: (N,) the right classes in the order of the first run.
        classes: number of classes, K.
    """
    order = np.full(len(found.labels), -1)
    order[found.y_true] = y_true
    # It is not known which is which among the classes that have no rows, and no figure depends on it.
    order[order < 0] = np.setdiff1d(np.arange(classes), order)[: np.sum(order < 0)]
    return np.asarray(order[found.raw_logits["lora"].argmax(axis=1)])


def pair_rows(ranking: list[str], pairs: list[dict[str, Any]]) -> list[list[str]]:
    """Returns the cells of a table of pairs, under `PAIR_COLUMNS`; in each row the run of the higher rank is first.

    Args:
        ranking: as `side_by_side` returns it.
        pairs: likewise.
    """
    return [[*pair_cells(ranking, pair), _rows_to_settle(pair)] for pair in by_rank(ranking, pairs)]


def by_rank(ranking: list[str], pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns pairs in the order of the ranking."""
    return sorted(pairs, key=lambda pair: sorted((ranking.index(pair["first"]), ranking.index(pair["second"]))))


def pair_cells(ranking: list[str], pair: dict[str, Any]) -> list[str]:
    """Returns the cells of a pair under `PAIR_COLUMNS`, without the rows to settle."""
    better, other = sorted((pair["first"], pair["second"]), key=ranking.index)
    sign, tested = 1 if better == pair["second"] else -1, pair["tested"]
    low, high = sorted(sign * end for end in tested["gain_points_ci95"])
    gap, interval = f"{sign * tested['gain_points']:+z.1f}", f"{low:+z.1f} to {high:+z.1f}"
    return [better, other, gap, interval, f"{tested['p']:.2g}", "yes" if pair["significant"] else "no"]


def pair_note(pairs: int, metric: str = "accuracy") -> str:
    """Returns how to read a table with this number of pairs, whose gaps are of this metric."""
    corrected = f" p and intervals are corrected for {pairs} pairs (Holm)." if pairs > 1 else ""
    test = "McNemar's exact test" if metric == "accuracy" else "paired permutation test"
    return (
        f"Gap: of {METRIC_NAMES[metric]}. p: {test}.{corrected} Rows to settle: about how many rows would show the gap "
        "if it is as large as measured."
    )


def _rows_to_settle(pair: dict[str, Any]) -> str:
    needed = pair["rows_to_settle"]
    if needed is None:
        too_few = pair["rows"] < FEWEST_ROWS
        return "" if pair["significant"] else "too few rows to say" if too_few else "no gap"
    return f"over {MOST_ROWS:,}" if needed > MOST_ROWS else f"{needed:,}"


def short_names(paths: Sequence[str]) -> list[str]:
    """Returns the folders' names if these differ, otherwise the paths."""
    names = [Path(path).resolve().name for path in paths]
    return names if len(set(names)) == len(names) else list(paths)
