"""The targets of a source: classes or numbers. Which of them, is found by the values, or named by `--task`.

Letters: N rows.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bertlora.data.source import Source
from bertlora.errors import DataError
from bertlora.task import AUTO, CLASSIFICATION, REGRESSION

# More different whole numbers than this may be classes or amounts, so the user is asked.
WHOLE_CLASSES = 5
# Numbers are sampled and split in this many groups of equal size, so that each split has low and high ones.
BINS = 10
ROWS_PER_BIN = 10

Numbers = NDArray[np.float64]


def number_of(label: str) -> float | None:
    """Returns a label as a number, or None if it is not a finite one."""
    try:
        value = float(label)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in label else None


def not_a_number(place: str, label: str) -> DataError:
    """Returns the error for a target of a regression that is not a number."""
    return DataError(
        f"{place}: the target '{label}' is not a finite number, as regression expects; correct it, or leave out "
        "--task regression"
    )


def find_task(source: Source, column: str, labels: Sequence[str], asked: str) -> str:
    """Returns the task of a source: what the user asked for, otherwise what its targets are.

    Real numbers are regression. Labels that are not numbers, or for which the source declares names, are classes, and
    so are at most five different whole numbers.

    Args:
        source: the source.
        column: its column of targets.
        labels: its labels, each once.
        asked: what the user named; `auto` if nothing.

    Raises:
        DataError: there are more different whole numbers, which may be either.
    """
    if asked != AUTO:
        return asked
    numbers = [number_of(label) for label in labels]
    known = np.array([number for number in numbers if number is not None])
    if len(known) < len(numbers) or source.class_names.get(column):
        return CLASSIFICATION
    if (known != np.round(known)).any():
        return REGRESSION
    if len(known) <= WHOLE_CLASSES:
        return CLASSIFICATION
    raise DataError(
        f"{source.name}: column '{column}' holds {len(known):,} different whole numbers, {known.min():g} to "
        f"{known.max():g}, which may be classes or amounts; give --task classification or --task regression"
    )


def check_numbers(numbers: Numbers, name: str) -> None:
    """Raises DataError if all targets of a regression are equal. `name` is the source's, for the message."""
    if numbers.min() == numbers.max():
        raise DataError(f"{name}: every target is {numbers[0]:g}, expected numbers that differ; check the label column")


class Bins:
    """Groups of numbers of about equal size, by which rows are sampled and split, and splits are compared.

    Args:
        numbers: (N,) the targets that decide the edges.
    """

    def __init__(self, numbers: Numbers) -> None:
        count = max(1, min(BINS, len(numbers) // ROWS_PER_BIN))
        edges = np.quantile(numbers, np.arange(1, count) / count, method="inverted_cdf")
        self._edges = np.unique(edges[edges < numbers.max()])

    @property
    def names(self) -> list[str]:
        """The groups in words, from the lowest on."""
        if not len(self._edges):
            return ["all"]
        between = [f"{low:g} to {high:g}" for low, high in zip(self._edges, self._edges[1:], strict=False)]
        return [f"up to {self._edges[0]:g}", *between, f"over {self._edges[-1]:g}"]

    def ids(self, numbers: Numbers) -> NDArray[np.int32]:
        """Returns the group of each number, (N,)."""
        return np.searchsorted(self._edges, numbers).astype(np.int32)
