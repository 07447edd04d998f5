"""A few rows that cost as much, each, as all rows do on average: what `costs.py` times."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bertlora.data.inputs import Inputs
from bertlora.data.reader import Examples
from bertlora.rivals.probe import FrozenView


def typical(examples: Examples, count: int, longest: int) -> Examples:
    """Returns `count` examples whose lengths are spread as those of all; some repeat if there are too few.

    Args:
        examples: all of them; if there are none, they are returned.
        count: how many.
        longest: tokens at which they are cut.
    """
    if not len(examples):
        return examples
    rows = rows_of_typical_length(examples.inputs.lengths, count)
    taken, labels, template = examples.inputs.take(rows), examples.labels[rows], examples.inputs.template
    if longest < template.max_length:
        taken = Inputs(replace(template, max_length=longest, long_texts="truncate"), taken.first, taken.second)
    if labels.dtype.kind == "f" and np.ptp(labels) == 0:  # a regression does not learn from equal numbers
        labels = labels + np.arange(len(labels))
    return Examples(taken, labels)


def rows_of_typical_length(lengths: npt.NDArray[np.int64], count: int) -> list[int]:
    """Returns `count` rows at evenly spaced quantiles of the lengths (N,), in random order."""
    order = np.argsort(lengths, kind="stable")
    places = ((np.arange(count) + 0.5) / count * len(lengths)).astype(np.int64)
    return [int(row) for row in np.random.default_rng(0).permutation(order[places])]


def repeated(view: FrozenView, rows: int) -> FrozenView:
    """Returns a view with `rows` rows: those of `view` again and again, each time with other noise."""
    chosen = np.arange(rows) % len(view.labels)
    noise = np.random.default_rng(0).normal(0.0, 0.5, (rows, view.features.shape[1]))
    return FrozenView(view.features[chosen] + noise * view.features.std(axis=0), view.labels[chosen], view.classes)
