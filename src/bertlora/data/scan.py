"""The first pass over the sources: their targets, at 4 bytes per row, and what columns say of each row's split."""

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bertlora.data.blank import BlankRows
from bertlora.data.columns import Columns, columns_of_splits, unlabelled
from bertlora.data.label_rules import DROPPED, LabelRules
from bertlora.data.labels import MAX_CLASSES, check_labels, order_labels, unknown_label
from bertlora.data.named_columns import NamedColumns
from bertlora.data.placement import Placement, PlacementReader
from bertlora.data.rows import no_rows
from bertlora.data.source import Source
from bertlora.data.splits import NO_ID, Ids
from bertlora.data.targets import Bins, Numbers, check_numbers, find_task, not_a_number, number_of
from bertlora.data.text_batches import text_batches
from bertlora.errors import DataError
from bertlora.task import CLASSIFICATION

NO_LABEL = "-1"  # GLUE's test sets have this label in every row


@dataclass(frozen=True)
class Scan:
    """What one pass finds in a source of N rows.

    Attributes:
        source: the source.
        columns: its columns.
        first_places: the labels in order of appearance, each with the position of its first row.
        label_ids: (N,) int32, index of each row's label in `first_places`; NO_ID for a row that is left out.
        placement: what columns say about the split of each row.
        blank: its blank rows, which are left out.
    """

    source: Source
    columns: Columns
    first_places: dict[str, int]
    label_ids: NDArray[np.int32]
    placement: Placement
    blank: BlankRows

    @property
    def counts(self) -> dict[str, int]:
        """The number of rows of each label."""
        rows = np.bincount(self.label_ids[self.label_ids >= 0], minlength=len(self.first_places))
        return dict(zip(self.first_places, rows.tolist(), strict=True))

    def renamed(self, names: Mapping[str, str]) -> "Scan":
        """Returns the scan with other names of labels. Rows whose label becomes DROPPED are left out."""
        first_places: dict[str, int] = {}
        for label, position in self.first_places.items():
            if names[label] != DROPPED:
                first_places.setdefault(names[label], position)
        index = {label: i for i, label in enumerate(first_places)}
        new = [*(index.get(names[label], NO_ID) for label in self.first_places), NO_ID]
        return replace(self, first_places=first_places, label_ids=np.array(new, np.int32)[self.label_ids])

    def ids(self, labels: list[str], trained_by: str) -> NDArray[np.int32]:
        """Returns (N,) int32, the index of each row's label in `labels`; NO_ID for a row that is left out.

        Args:
            labels: the labels of training, in order.
            trained_by: name of the source of these labels, for the message.

        Raises:
            DataError: a label is not in `labels`; the message names the first row that has it.
        """
        for label, position in self.first_places.items():
            if label not in labels:
                raise unknown_label(self.source.place(position), label, labels, f", the labels of {trained_by}")
        index = {label: i for i, label in enumerate(labels)}
        return np.array([*(index[label] for label in self.first_places), NO_ID], np.int32)[self.label_ids]

    def values(self) -> Numbers:
        """Returns (N,) the targets of a regression; NaN for a row that is left out.

        Raises:
            DataError: one is not a number; the message names the first row that has it.
        """
        numbers = [number_of(label) for label in self.first_places]
        for (label, position), number in zip(self.first_places.items(), numbers, strict=True):
            if number is None:
                raise not_a_number(self.source.place(position), label)
        return np.array([*numbers, np.nan], np.float64)[self.label_ids]


@dataclass(frozen=True)
class Scanned:
    """The sources after the first pass, by split.

    Attributes:
        scans: what was found in each.
        task: what is predicted.
        labels: the classes in order; the name of the number in a regression.
        targets: (N,) of each source: index of each row's label in `labels`, or its number.
        strata: names of the groups in whose proportions rows are drawn and split: the classes, or ranges of numbers.
        ids: (N,) int32 of each source: index of each row's group in `strata`.
    """

    scans: dict[str, Scan]
    task: str
    labels: list[str]
    targets: Mapping[str, NDArray[np.generic]]
    strata: list[str]
    ids: Ids

    @property
    def classes(self) -> list[str]:
        """The classes; none in a regression."""
        return self.labels if self.task == CLASSIFICATION else []

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
    scans, notes = _scan_each(sources, named, task)
    counts = sum((Counter(found.counts) for found in scans.values()), Counter[str]())
    names = rules.mapping(counts)
    dropped = sum(rows for label, rows in counts.items() if names[label] == DROPPED)
    notes += [f"{dropped:,} rows were left out, by --drop-label {', '.join(rules.drop)}"] if dropped else []
    scans = {name: found.renamed(names) for name, found in scans.items()}
    first = next(iter(scans.values()))
    column = first.columns.label or ""
    task = find_task(first.source, column, list(first.first_places), task)
    if task == CLASSIFICATION:
        labels, unused = _labels(first, names)
        ids = {name: found.ids(labels, first.source.name) for name, found in scans.items()}
        return Scanned(scans, task, labels, ids, labels, ids), notes + unused
    values = {name: found.values() for name, found in scans.items()}
    trained = next(iter(values.values()))
    check_numbers(trained[~np.isnan(trained)], first.source.name)
    bins = Bins(trained[~np.isnan(trained)])
    strata = {
        name: np.where(np.isnan(found), NO_ID, bins.ids(found)).astype(np.int32) for name, found in values.items()
    }
    return Scanned(scans, task, [column], values, bins.names, strata), notes


def _scan_each(sources: Mapping[str, Source], named: NamedColumns, task: str) -> tuple[dict[str, Scan], list[str]]:
    """Scans every source. A test split without labels is left out, with a note."""
    scans: dict[str, Scan] = {}
    notes: list[str] = []
    for name, source, columns in columns_of_splits(sources, named, notes):
        found = scan(source, columns, task)
        if name == "test" and set(found.first_places) == {NO_LABEL} and NO_LABEL not in scans["train"].first_places:
            notes.append(unlabelled(source))
            continue
        scans[name] = found
    return scans, notes


def scan(source: Source, columns: Columns, task: str) -> Scan:
    """Reads a source once.

    Raises:
        DataError: the source is broken, has no rows, or more than 10 % blank ones. Or it has more than 10,000 labels
            that are not all numbers, or a time or split that cannot be read.
    """
    first_places: dict[str, int] = {}
    ids: dict[str, int] = {}
    label_ids, words = array("i"), task == CLASSIFICATION
    placement, blank = PlacementReader(source, columns), BlankRows(source)
    for batch in text_batches(source, columns):
        blank.add(batch)
        for label, position, fault in zip(batch.labels or [], batch.positions, batch.faults, strict=True):
            if not fault and label not in ids:
                ids[label] = len(ids)
                first_places[label] = position
                words = words or number_of(label) is None
            label_ids.append(NO_ID if fault else ids[label])
        placement.add(batch.placing, batch.positions, batch.faults)
        if len(ids) > MAX_CLASSES and words:
            raise DataError(
                f"{source.name}: column '{columns.label}' has more than {MAX_CLASSES:,} different labels; "
                "name the right column with --label-column"
            )
    if not label_ids:
        raise no_rows(source)
    blank.check()
    return Scan(source, columns, first_places, np.frombuffer(label_ids, np.int32), placement.placement(), blank)


def _labels(first: Scan, names: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Returns the labels of the table or of train, in order, and a note on each declared label that has no row."""
    name = first.source.name
    declared = first.source.class_names.get(first.columns.label or "", [])
    named = list(dict.fromkeys(names.get(one, one) for one in declared if names.get(one) != DROPPED))
    labels = order_labels(first.first_places, named)
    check_labels(labels, int((first.label_ids >= 0).sum()), name)
    return labels, [f"{name}: no row has the label '{one}', so it was left out" for one in named if one not in labels]
