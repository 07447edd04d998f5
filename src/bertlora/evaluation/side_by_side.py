"""Several runs on the same rows: the figures of each, and every pair compared."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from bertlora.evaluation.comparison import Comparison
from bertlora.evaluation.metrics import judge
from bertlora.evaluation.verdict import Judged


def side_by_side(judged: Mapping[str, Judged]) -> dict[str, Any]:
    """Returns what `compare --json` prints.

    Args:
        judged: what each run makes of the same rows in the same order, by the run's name; two runs or more.

    Returns:
        `n`; `runs` {name: figures of its LoRA as `judge` gives them}; `pairs`, each with `first`, `second` and what
        `Comparison.figures` gives, and `mcnemar_p_holm`: p as it must be read where several pairs are tested
        (Holm 1979, "A simple sequentially rejective multiple test procedure").
    """
    runs = {name: judge(found.logits("lora"), found.given, found.labels) for name, found in judged.items()}
    pairs = [
        {"first": first, "second": second}
        | Comparison.of(judged[first].right("lora"), judged[second].right("lora")).figures((first, second))
        for first, second in combinations(judged, 2)
    ]
    for pair, p in zip(pairs, holm([pair["mcnemar_p"] for pair in pairs]), strict=True):
        pair["mcnemar_p_holm"] = p
    return {"n": len(next(iter(judged.values())).given), "runs": runs, "pairs": pairs}


def holm(values: list[float]) -> list[float]:
    """Returns p values adjusted for their number, in their order."""
    order = np.argsort(values, kind="stable")
    adjusted = np.maximum.accumulate(np.array(values)[order] * np.arange(len(values), 0, -1))
    result = np.empty(len(values))
    result[order] = np.minimum(adjusted, 1.0)
    return [float(p) for p in result]
