"""No slice is called worse where errors have nothing to do with the slices.

Letters: N rows.
"""

from collections.abc import Iterator
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from bertlora.evaluation.gains import SIGNIFICANCE
from bertlora.evaluation.slices import Slice, slice_figures, text_slices
from bertlora.evaluation.value_slices import error_slices
from promises.promise import Promise, Random

VOCABULARY = [f"word{i}" for i in range(60)]


def slices() -> Iterator[Promise]:
    """Yields the promises."""
    for rows, accuracy in ((300, 0.8), (300, 0.97), (2_000, 0.9)):
        case = f"{100 * accuracy:g} % of {rows:,} rows right"
        yield Promise("slices", case, partial(_worse, rows=rows, accuracy=accuracy), high=SIGNIFICANCE)
    for rows in (300, 2_000):
        case = f"errors of {rows:,} numbers"
        yield Promise("slices", case, partial(_larger_errors, rows=rows), high=SIGNIFICANCE)


def drawn_texts(random: Random, rows: int) -> tuple[list[str], None, npt.NDArray[np.int64]]:
    """Returns N texts of 3 to 40 words, some of them frequent, no second texts, and their lengths."""
    lengths = random.integers(3, 40, size=rows)
    weights = 1 / np.arange(1, len(VOCABULARY) + 1)
    texts = [" ".join(random.choice(VOCABULARY, size=n, p=weights / weights.sum())) for n in lengths]
    return texts, None, lengths


@cache
def slices_of(rows: int) -> list[Slice]:
    """Returns the slices of some texts; they are the same in every draw, and only errors are drawn."""
    return list(text_slices(*drawn_texts(np.random.default_rng(rows), rows)))


def _worse(random: Random, rows: int, accuracy: float) -> dict[str, bool]:
    return {"a slice is called worse": slice_figures(random.random(rows) < accuracy, slices_of(rows))["worse"] > 0}


def _larger_errors(random: Random, rows: int) -> dict[str, bool]:
    return {"a slice is called worse": error_slices(random.gamma(1.0, size=rows), slices_of(rows))["worse"] > 0}
