"""Errors of a regression by slice: which parts of the rows have larger errors than the rest?

Slices are chosen by their number of rows, as in `slices`; so the correction for their number is honest.

Letters: N rows, S slices.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata

from bertlora.confidence.probabilities import Array
from bertlora.evaluation.slices import Rows, Slice, large_enough, ranked, slice_figures, summary
from bertlora.evaluation.values import EvaluatedValues
from bertlora.evaluation.verdict import AnyEvaluated

VALUE_SLICE_COLUMNS = ["slice", "rows", "MAE", "the rest", "p, corrected", "worse"]


def slices_of(evaluated: AnyEvaluated, slices: Sequence[Slice]) -> dict[str, Any]:
    """Returns LoRA's accuracy, or its error, by slice; see `slice_figures` and `error_slices`.

    A row with several labels is right if all its labels are.
    """
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
    kept, ranks = large_enough(slices, len(errors)), rankdata(errors)
    found = ranked(kept, [_larger_than_rest(ranks, one.rows) for one in kept], lambda rows: _figures(errors, rows))
    claims = "has significantly larger errors", "have significantly larger errors"
    return summary(found, *claims, "rank-sum test", _against)


def _figures(errors: Array, rows: Rows) -> dict[str, Any]:
    return {"n": int(rows.sum()), "mae": float(errors[rows].mean()), "rest_mae": float(errors[~rows].mean())}


def _against(one: dict[str, Any]) -> str:
    return f"MAE {one['mae']:.3g} against {one['rest_mae']:.3g}"


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
