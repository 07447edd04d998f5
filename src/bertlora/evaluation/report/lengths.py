"""How long texts are in tokens, and what of them a model reads."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bertlora.data.inputs import Inputs

Counts = npt.NDArray[np.int64]

BINS = 24
# The chart ends where the longest half per cent of the texts begins.
SHOWN = 0.995


def length_facts(inputs: Inputs, where: str) -> dict[str, Any] | None:
    """Returns the lengths of texts in tokens, special tokens aside, and the shares of texts and tokens not read.

    None where there are no texts. `bins` are [low, high, count], `low` included and `high` not; `longer` counts the
    texts beyond the last; `room` is how many tokens of a text one input takes.
    """
    if not len(inputs):
        return None
    framing = inputs.framing
    room = framing.room(inputs.second is not None)
    whole, lost = inputs.whole, inputs.unread
    edges = bin_edges(whole, room)
    counts, _ = np.histogram(whole, bins=[*edges[:-1], np.nextafter(edges[-1], 0)])
    return {
        "where": where,
        "n": len(inputs),
        "median": float(np.median(whole)),
        "longest": int(whole.max()),
        "room": room,
        "max_length": framing.max_length,
        "truncation": framing.truncation,
        "long_texts": framing.long_texts,
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
    """Returns for each way with long texts the share of tokens not read, and the tokens it runs for each it is given.

    A cut loses the same wherever it is made. Windows overlap, and are of single texts.
    """
    found = {}
    for way in ("truncate", "windows") if inputs.second is None else ("truncate",):
        other = Inputs(replace(inputs.framing, long_texts=way), inputs.first, inputs.second)
        total = max(int(inputs.whole.sum()), 1)
        found[way] = {
            "tokens_lost_share": float(other.unread.sum()) / total,
            "run_share": float(other.lengths.sum()) / total,
        }
    return found


def bin_edges(whole: Counts, room: int) -> list[int]:
    """Returns the edges of about 24 bins from 0 to nearly the longest text; `room` + 1 is one if it lies among them.

    So a bin holds texts that fit, or texts that do not, and never both.
    """
    upper = max(int(np.quantile(whole, SHOWN)) + 1, 2)
    if upper <= room + 1:
        step = max(1, math.ceil(upper / BINS))
        return list(range(0, upper + step, step))
    step = max(1, math.ceil(upper / BINS))
    below = sorted({room + 1 - i * step for i in range((room + 1) // step + 1)} | {0})
    return [*below, *range(room + 1 + step, upper + step, step)]
