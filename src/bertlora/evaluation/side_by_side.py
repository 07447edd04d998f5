"""Several runs on the same rows: the metrics of each, their ranking, and a test of every pair."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from bertlora.evaluation.comparison import MOST_ROWS, SIGNIFICANCE, Comparison
from bertlora.evaluation.metrics import classification_metrics
from bertlora.evaluation.verdict import Evaluated

PAIR_COLUMNS = ["run", "against", "gap, points", "95 % CI", "p", "significant", "rows to settle"]


def side_by_side(evaluated: Mapping[str, Evaluated]) -> dict[str, Any]:
    """Returns what `compare --json` prints.

    Args:
        evaluated: by run name, the outputs of each run on the same rows in the same order; two runs or more.

    Returns:
        `n`; `runs` {name: metrics of its LoRA as `classification_metrics` returns them}; `ranking`, the names, most
        accurate first; `pairs`.

        A pair has `first`, `second`, what `Comparison.figures` returns, and `mcnemar_p_holm`, which is p corrected for
        the number of pairs (Holm 1979, "A simple sequentially rejective multiple test procedure"). `significant` uses
        the corrected p, and `rows_to_settle` assumes a significance level of 0.05 divided by the number of pairs.
        `verdict` is about the pair without correction.
    """
    runs = {
        name: classification_metrics(found.logits("lora"), found.y_true, found.labels)
        for name, found in evaluated.items()
    }
    names = list(combinations(evaluated, 2))
    found = [Comparison.of(evaluated[first].right("lora"), evaluated[second].right("lora")) for first, second in names]
    pairs = []
    for (first, second), pair, p in zip(names, found, holm([pair.p for pair in found]), strict=True):
        significant = p < SIGNIFICANCE and pair.excludes_zero
        needed = None if significant else pair.rows_to_settle(SIGNIFICANCE / len(names))
        figures = pair.figures((first, second)) | {"significant": significant, "rows_to_settle": needed}
        pairs.append({"first": first, "second": second, **figures, "mcnemar_p_holm": p})
    ranking = sorted(runs, key=lambda name: -runs[name]["accuracy"])
    return {"n": len(next(iter(evaluated.values())).y_true), "runs": runs, "ranking": ranking, "pairs": pairs}


def pair_rows(ranking: list[str], pairs: list[dict[str, Any]]) -> list[list[str]]:
    """Returns the cells of a table of pairs, under `PAIR_COLUMNS`; in each row the run of the higher rank is first.

    Args:
        ranking: as `side_by_side` returns it.
        pairs: likewise.
    """
    rank = {name: i for i, name in enumerate(ranking)}
    rows = []
    for pair in sorted(pairs, key=lambda pair: sorted((rank[pair["first"]], rank[pair["second"]]))):
        better, other = sorted((pair["first"], pair["second"]), key=rank.__getitem__)
        sign = 1 if better == pair["second"] else -1
        low, high = sorted(sign * end for end in pair["gain_points_ci95"])
        rows.append(
            [
                better,
                other,
                f"{sign * pair['gain_points']:+z.1f}",
                f"{low:+z.1f} to {high:+z.1f}",
                f"{pair['mcnemar_p_holm']:.2g}",
                "yes" if pair["significant"] else "no",
                _rows_to_settle(pair),
            ]
        )
    return rows


def pair_note(pairs: int) -> str:
    """Returns how to read a table with this number of pairs."""
    corrected = f", corrected for {pairs} pairs (Holm)" if pairs > 1 else ""
    return (
        f"p: McNemar's exact test{corrected}. Rows to settle: about how many rows would show the gap if it is as large "
        "as measured."
    )


def _rows_to_settle(pair: dict[str, Any]) -> str:
    needed = pair["rows_to_settle"]
    if needed is None:
        return "" if pair["significant"] else "no gap"
    return f"over {MOST_ROWS:,}" if needed > MOST_ROWS else f"{needed:,}"


def short_names(paths: Sequence[str]) -> list[str]:
    """Returns the folders' names if these differ, otherwise the paths."""
    names = [Path(path).resolve().name for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def holm(values: list[float]) -> list[float]:
    """Returns p values corrected for their number, in their order."""
    order = np.argsort(values, kind="stable")
    adjusted = np.maximum.accumulate(np.array(values)[order] * np.arange(len(values), 0, -1))
    result = np.empty(len(values))
    result[order] = np.minimum(adjusted, 1.0)
    return [float(p) for p in result]
