"""Several regression runs on the same rows: the figures of each, their ranking, and a test of every pair."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from bertlora.evaluation.paired_errors import compare_errors
from bertlora.evaluation.side_by_side import by_rank
from bertlora.evaluation.values import EvaluatedValues
from bertlora.task import REGRESSION

VALUE_PAIR_COLUMNS = ["run", "against", "RMSE lower by", "95 % CI", "p", "significant", "rows to settle"]
VALUE_PAIR_NOTE = (
    "p: paired bootstrap. p and intervals are corrected for the number of pairs (Holm). Rows to settle: about how many "
    "rows would show the gap if it is as large as measured."
)


def values_side_by_side(evaluated: Mapping[str, EvaluatedValues]) -> dict[str, Any]:
    """Returns what `compare --json` prints for regressions.

    Args:
        evaluated: by run name, the numbers of each run for the same rows in the same order; two runs or more.

    Returns:
        `task`, `n`, `runs` {name: figures of its LoRA}, `metric` (`rmse`), `ranking` (the lowest RMSE first), `pairs`
        (objects with `first`, `second`, and what `ErrorComparison.figures` returns), and `choice`, which is None.
    """
    y_true = next(iter(evaluated.values())).y_true
    values = {name: found.values["lora"] for name, found in evaluated.items()}
    runs = {name: found.figures("lora") for name, found in evaluated.items()}
    compared = compare_errors(y_true, {(a, b): (values[a], values[b]) for a, b in combinations(evaluated, 2)})
    return {
        "task": REGRESSION,
        "n": len(y_true),
        "runs": runs,
        "metric": "rmse",
        "ranking": sorted(runs, key=lambda name: runs[name]["rmse"]),
        "pairs": [{"first": a, "second": b, **pair.figures((a, b))} for (a, b), pair in compared.items()],
        "choice": None,
    }


def value_pair_rows(ranking: list[str], pairs: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Returns the cells of a table of pairs, under `VALUE_PAIR_COLUMNS`; in each row the better run is first."""
    rows = []
    for pair in by_rank(ranking, list(pairs)):
        better, other = sorted((pair["first"], pair["second"]), key=ranking.index)
        sign = 1 if better == pair["second"] else -1
        low, high = sorted(sign * end for end in pair["gain_ci95"])
        needed = "" if pair["rows_to_settle"] is None else f"{pair['rows_to_settle']:,}"
        gap = [f"{sign * pair['gain']:.3g}", f"{low:.3g} to {high:.3g}", f"{pair['p']:.2g}"]
        rows.append([better, other, *gap, "yes" if pair["significant"] else "no", needed])
    return rows
