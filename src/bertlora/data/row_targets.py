"""The target of one row of a raw source, when the labels are known: a class, which labels it has, or a number.

target = row_target("classification", ["good", "bad"])
target("bad", "more.csv line 7")  # 1
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bertlora.data.label_rules import DROPPED, KnownLabels, LabelRules
from bertlora.data.label_sets import as_set, find_delimiter, names_of
from bertlora.data.labels import unknown_label
from bertlora.data.targets import not_a_number, number_of
from bertlora.task import MULTILABEL, REGRESSION

NO_RULES = LabelRules()
# A label and its place → its target; None for a row that the rules leave out.
RowTarget = Callable[[str, str], Any]


def row_target(
    task: str, labels: Sequence[str], aliases: Sequence[str] = (), rules: LabelRules = NO_RULES
) -> RowTarget:
    """Returns the function that gives a row's target: an index in `labels`, (K,) which labels it has, or a number.

    It raises DataError for a label that is not in `labels`, or is not a number in a regression.

    Args:
        task: what the targets are.
        labels: the labels, in order.
        aliases: other names of the same labels, in the same order.
        rules: what was done with the labels of the training data.
    """
    index = {name: i for names in (aliases, labels) for i, name in enumerate(names)}
    known = KnownLabels(rules, list(index))

    def one(label: str, place: str) -> int | None:
        name = known.name(label)
        if name == DROPPED:
            return None
        if name not in index:
            raise unknown_label(place, label, labels)
        return index[name]

    def several(label: str, place: str) -> Any:
        delimiter = "" if label in index else rules.delimiter or find_delimiter([label])
        found = [one(name, place) for name in names_of(as_set(label, delimiter))]
        marks = np.zeros(len(labels), bool)
        marks[[i for i in found if i is not None]] = True
        return marks

    def number(label: str, place: str) -> float | None:
        name = known.name(label)
        value = None if name == DROPPED else number_of(name)
        if name != DROPPED and value is None:
            raise not_a_number(place, label)
        return value

    return {MULTILABEL: several, REGRESSION: number}.get(task, one)
