"""The sources after the first pass: the task, its targets, and the groups in whose proportions rows are split."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bertlora.data.label_rules import DROPPED, LabelRules
from bertlora.data.label_sets import NO_LABEL_NAME, as_set, count_names, find_delimiter, is_set, rarest, renamed_set
from bertlora.data.labels import check_labels, order_labels
from bertlora.data.named_columns import NamedColumns
from bertlora.data.scan import Scan, scan_each
from bertlora.data.source import Source
from bertlora.data.split_file import Target
from bertlora.data.splits import NO_ID, Ids
from bertlora.data.targets import Bins, check_numbers, find_task
from bertlora.errors import DataError
from bertlora.task import AUTO, CLASSIFICATION, MULTILABEL, REGRESSION

Scans = dict[str, Scan]


@dataclass(frozen=True)
class Scanned:
    """The sources after the first pass, by split.

    Attributes:
        scans: what was found in each.
        task: what is predicted.
        labels: the classes or labels in order; the name of the number in a regression.
        targets: of each source, (N,) index of each row's label in `labels`, or its number; or (N, K) which labels it
            has.
        strata: names of the groups in whose proportions rows are drawn and split: the classes, rarest labels, or ranges
            of numbers.
        ids: (N,) int32 of each source: index of each row's group in `strata`.
        rules: what is done with labels, the delimiter that was found included.
    """

    scans: dict[str, Scan]
    task: str
    labels: list[str]
    targets: Mapping[str, NDArray[np.generic]]
    strata: list[str]
    ids: Ids
    rules: LabelRules

    @property
    def classes(self) -> list[str]:
        """The classes; none of any other task."""
        return self.labels if self.task == CLASSIFICATION else []

    def target(self, split: str, row: int) -> Target:
        """Returns the target of a row of a source, as a split's file has it."""
        found = self.targets[split][row]
        return np.flatnonzero(found).tolist() if self.task == MULTILABEL else found.item()

    @property
    def first(self) -> Scan:
        """The table, or its train split."""
        return next(iter(self.scans.values()))

    @property
    def names(self) -> dict[str, str]:
        """The name of each source in messages."""
        return {split: found.source.name for split, found in self.scans.items()}

    @property
    def pairs(self) -> bool:
        """Whether each row has a second text."""
        return self.first.columns.text_pair is not None

    @property
    def groups(self) -> bool:
        """Whether each row has a group."""
        return self.first.columns.group is not None


def scan_all(
    sources: Mapping[str, Source], named: NamedColumns, rules: LabelRules, task: str
) -> tuple[Scanned, list[str]]:
    """Scans all sources. Returns them with notes on what was left out.

    Args:
        sources: by split; a table without splits has an empty name.
        named: the columns that the user named.
        rules: what the user does with labels.
        task: what is predicted; `auto` finds it by the targets.

    Raises:
        DataError: a source is broken, a column or a label is missing, a split has other labels than train, or a target
            is not a number in a regression.
    """
    task = MULTILABEL if task == AUTO and rules.delimiter else task
    scans, notes = scan_each(sources, named, task)
    sets = task == MULTILABEL or _has_sets(scans, task)
    if sets:
        if not rules.delimiter and (sign := _delimiter(scans)):
            rules = replace(rules, delimiter=sign)
            notes.append(f"labels of a row are split at '{sign}'; --label-delimiter names another sign")
        scans = _map_labels(scans, lambda label: as_set(label, rules.delimiter))
    counts = sum((Counter(found.counts) for found in scans.values()), Counter[str]())
    names = rules.mapping(count_names(counts) if sets else counts)
    dropped = sum(rows for label, rows in counts.items() if not sets and names[label] == DROPPED)
    notes += [f"{dropped:,} rows were left out, by --drop-label {', '.join(rules.drop)}"] if dropped else []
    scans = _map_labels(scans, lambda label: renamed_set(label, names.__getitem__) if sets else names[label])
    first = next(iter(scans.values()))
    task = MULTILABEL if sets else find_task(first.source, first.columns.label or "", list(first.first_places), task)
    found, more = TARGETS[task](scans, rules, names)
    return found, notes + more


def _has_sets(scans: Scans, task: str) -> bool:
    """Returns whether a source has sets of labels. Raises DataError if the task takes none."""
    for found in scans.values():
        for label, position in found.first_places.items():
            if is_set(label):
                if task != AUTO:
                    raise DataError(
                        f"{found.source.place(position)}: the label is a list, expected one string or number in each "
                        f"row; give --task multilabel, or leave out --task {task}"
                    )
                return True
    return False


def _delimiter(scans: Scans) -> str:
    return find_delimiter(label for found in scans.values() for label in found.first_places)


def _map_labels(scans: Scans, name: Callable[[str], str]) -> Scans:
    """Returns the scans with other names of labels; see `Scan.renamed`."""
    return {key: found.renamed({label: name(label) for label in found.first_places}) for key, found in scans.items()}


def _classes(scans: Scans, rules: LabelRules, names: Mapping[str, str]) -> tuple[Scanned, list[str]]:
    first = next(iter(scans.values()))
    labels, notes = _labels(first, list(first.first_places), names)
    check_labels(labels, int((first.label_ids >= 0).sum()), first.source.name)
    ids = {name: found.ids(labels, first.source.name) for name, found in scans.items()}
    return Scanned(scans, CLASSIFICATION, labels, ids, labels, ids, rules), notes


def _numbers(scans: Scans, rules: LabelRules, names: Mapping[str, str]) -> tuple[Scanned, list[str]]:
    first = next(iter(scans.values()))
    values = {name: found.values() for name, found in scans.items()}
    trained = next(iter(values.values()))
    check_numbers(trained[~np.isnan(trained)], first.source.name)
    bins = Bins(trained[~np.isnan(trained)])
    strata = {
        name: np.where(np.isnan(found), NO_ID, bins.ids(found)).astype(np.int32) for name, found in values.items()
    }
    return Scanned(scans, REGRESSION, [first.columns.label or ""], values, bins.names, strata, rules), []


def _sets(scans: Scans, rules: LabelRules, names: Mapping[str, str]) -> tuple[Scanned, list[str]]:
    first = next(iter(scans.values()))
    counts = count_names(first.counts)
    # A column of 0 and 1 is a label even if no row has it.
    labels, notes = _labels(first, [*first.columns.marks, *counts] if first.columns.marks else list(counts), names)
    if len(labels) < 2:
        raise DataError(
            f"{first.source.name}: got {len(labels)} label in all ({', '.join(labels)}), expected two or more; check "
            "the label column and --label-delimiter"
        )
    marks = {name: found.marks(labels, first.source.name) for name, found in scans.items()}
    rows = np.array([counts[label] for label in labels])
    strata = {
        name: np.where(found.label_ids == NO_ID, NO_ID, rarest(marks[name], rows)).astype(np.int32)
        for name, found in scans.items()
    }
    return Scanned(scans, MULTILABEL, labels, marks, [*labels, NO_LABEL_NAME], strata, rules), notes


TARGETS = {CLASSIFICATION: _classes, MULTILABEL: _sets, REGRESSION: _numbers}


def _labels(first: Scan, found: Sequence[str], names: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Returns the labels of the table or of train, in order, and a note on each declared label that has no row."""
    name = first.source.name
    declared = first.source.class_names.get(first.columns.label or "", [])
    named = list(dict.fromkeys(names.get(one, one) for one in declared if names.get(one) != DROPPED))
    labels = order_labels(found, named)
    return labels, [f"{name}: no row has the label '{one}', so it was left out" for one in named if one not in labels]
