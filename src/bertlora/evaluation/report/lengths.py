"""The lengths of texts in tokens, and how much of them the model reads."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bertlora.data.inputs import Inputs

Counts = npt.NDArray[np.int64]

BINS = 24
# The chart covers all but the longest half per cent of the texts.
SHOWN = 0.995


def length_facts(inputs: Inputs, where: str) -> dict[str, Any] | None:
    """Returns the lengths of texts in tokens, and the fractions of texts and tokens that are not read.

    None if there are no texts. Special tokens are not counted. `bins` are [low, high, count], `low` included and `high`
    excluded. `longer` counts the texts beyond the last bin. `room` is the number of text tokens that fit in one input.
    """
    if not len(inputs):
        return None
    template = inputs.template
    room = template.room(inputs.second is not None)
    whole, lost = inputs.whole, inputs.unread
    edges = bin_edges(whole, room)
    counts, _ = np.histogram(whole, bins=[*edges[:-1], np.nextafter(edges[-1], 0)])
    return {
        "where": where,
        "n": len(inputs),
        "median": float(np.median(whole)),
        "longest": int(whole.max()),
        "room": room,
        "max_length": template.max_length,
        "truncation": template.truncation,
        "long_texts": template.long_texts,
        "over": int(np.sum(whole > room)),
        "over_share": float(np.mean(whole > room)),
        "cut": int(np.sum(lost > 0)),
        "cut_share": float(np.mean(lost > 0)),
        "tokens": int(whole.sum()),
        "tokens_lost_share": float(lost.sum() / max(whole.sum(), 1)),
        "ways": way_facts(inputs),
        "bins": [[low, high, int(count)] for low, high, count in zip(edges, edges[1:], counts, strict=False)],
        "longer": int(np.sum(whole >= edges[-1])),
    }


def way_facts(inputs: Inputs) -> dict[str, dict[str, float]]:
    """Returns the costs of truncation and of windows: the fraction of tokens not read, and tokens run per text token.

    Truncation loses the same number of tokens on every side. Windows overlap, and are for single texts only.
    """
    found = {}
    for way in ("truncate", "windows") if inputs.second is None else ("truncate",):
        other = Inputs(replace(inputs.template, long_texts=way), inputs.first, inputs.second)
        total = max(int(inputs.whole.sum()), 1)
        found[way] = {
            "tokens_lost_share": float(other.unread.sum()) / total,
            "run_share": float(other.lengths.sum()) / total,
        }
    return found


def bin_edges(whole: Counts, room: int) -> list[int]:
    """Returns the edges of about 24 bins, from 0 to nearly the longest text.

    `room` + 1 is an edge if it is in this range, so that no bin mixes texts that fit with texts that do not.
    """
    upper = max(int(np.quantile(whole, SHOWN)) + 1, 2)
    if upper <= room + 1:
        step = max(1, math.ceil(upper / BINS))
        return list(range(0, upper + step, step))
    step = max(1, math.ceil(upper / BINS))
    below = sorted({room + 1 - i * step for i in range((room + 1) // step + 1)} | {0})
    return [*below, *range(room + 1 + step, upper + step, step)]
