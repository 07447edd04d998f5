"""Errors of a regression by slice: which parts of the rows have larger errors than the rest?

Slices are chosen by their number of rows, as in `slices`; so the correction for their number is honest.

Letters: N rows, S slices.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata

from bertlora.confidence.probabilities import Array
from bertlora.evaluation.comparison import holm
from bertlora.evaluation.mcnemar import SIGNIFICANCE
from bertlora.evaluation.slices import FEWEST, NAMED, Slice, slice_figures
from bertlora.evaluation.values import EvaluatedValues
from bertlora.evaluation.verdict import AnyEvaluated

VALUE_SLICE_COLUMNS = ["slice", "rows", "MAE", "the rest", "p, corrected", "worse"]


def slices_of(evaluated: AnyEvaluated, slices: Sequence[Slice]) -> dict[str, Any]:
    """Returns LoRA's accuracy, or its error, by slice; see `slice_figures` and `error_slices`."""
    if isinstance(evaluated, EvaluatedValues):
        return error_slices(np.abs(evaluated.values["lora"] - evaluated.y_true), slices)
    return slice_figures(evaluated.right("lora"), slices)


def error_slices(errors: Array, slices: Sequence[Slice]) -> dict[str, Any]:
    """Returns the mean absolute error of each slice, and which slices are significantly worse than the rest.

    The test is the rank-sum test of Mann and Whitney (1947), one-sided, of the slice's errors against the rest. The
    correction for the S slices is Holm's.

    Args:
        errors: (N,) absolute errors.
        slices: chosen without a look at `errors`. Those with fewer than 20 rows, or fewer than 20 others, are left out.

    Returns:
        `looked_at`, `worse` and `verdict` as `slice_figures`; and `found`, the slices, lowest p first. Each has `kind`,
        `name`, `n`, `mae`, `rest_mae`, `p`, `p_holm` and `worse`.
    """
    kept = [one for one in slices if min(one.rows.sum(), len(errors) - one.rows.sum()) >= FEWEST]
    ranks = rankdata(errors)
    p_values = [_larger_than_rest(ranks, one.rows) for one in kept]
    found: list[dict[str, Any]] = [
        {
            "kind": one.kind,
            "name": one.name,
            "n": int(one.rows.sum()),
            "mae": float(errors[one.rows].mean()),
            "rest_mae": float(errors[~one.rows].mean()),
            "p": p,
            "p_holm": corrected,
            "worse": corrected < SIGNIFICANCE,
        }
        for one, p, (corrected, _) in zip(kept, p_values, holm(p_values), strict=True)
    ]
    found.sort(key=lambda one: one["p"])
    worse = [one for one in found if one["worse"]]
    return {"looked_at": len(found), "worse": len(worse), "verdict": _verdict(len(found), worse), "found": found}


def error_slice_rows(found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Returns the cells of a table of slices, under `VALUE_SLICE_COLUMNS`."""
    return [
        [
            one["name"],
            f"{one['n']:,}",
            f"{one['mae']:.4g}",
            f"{one['rest_mae']:.4g}",
            f"{one['p_holm']:.2g}",
            "yes" if one["worse"] else "no",
        ]
        for one in found
    ]


def _larger_than_rest(ranks: Array, rows: Any) -> float:
    """Returns the p value of a rank sum at least as large, by its normal approximation with ties."""
    n, others = int(rows.sum()), int((~rows).sum())
    gap = ranks[rows].mean() - ranks[~rows].mean()
    # If errors have nothing to do with the slice, its ranks are drawn at random, without replacement.
    error = float(ranks.std(ddof=1)) * (1 / n + 1 / others) ** 0.5
    return float(norm.sf(gap / error)) if error else 1.0


def _verdict(looked_at: int, worse: Sequence[dict[str, Any]]) -> str:
    """Returns how many slices are worse, and the first of them, in a sentence."""
    if not looked_at:
        return f"No slice has {FEWEST} rows or more, so none was looked at."
    start = f"Of {looked_at} {'slices' if looked_at > 1 else 'slice'} looked at, {len(worse) or 'none'}"
    named = "; ".join(f"{one['name']}, MAE {one['mae']:.3g} against {one['rest_mae']:.3g}" for one in worse[:NAMED])
    test = "(rank-sum test, corrected for their number by Holm's method)"
    verb = "have" if len(worse) > 1 else "has"
    return f"{start} {verb} significantly larger errors than the rest {test}{': ' if worse else ''}{named}."
