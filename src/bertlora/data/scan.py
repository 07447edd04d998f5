"""One pass over a source: the label of each row, at 4 bytes per row, and what columns say of its split."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bertlora.data.blank import BlankRows
from bertlora.data.columns import Columns, columns_of_splits, unlabelled
from bertlora.data.label_rules import DROPPED
from bertlora.data.label_sets import Marks, is_set, marks_of, names_of
from bertlora.data.labels import MAX_CLASSES, unknown_label
from bertlora.data.named_columns import NamedColumns
from bertlora.data.placement import Placement, PlacementReader
from bertlora.data.rows import no_rows
from bertlora.data.source import Source
from bertlora.data.splits import NO_ID
from bertlora.data.targets import Numbers, not_a_number, number_of
from bertlora.data.text_batches import text_batches
from bertlora.errors import DataError
from bertlora.task import CLASSIFICATION, MULTILABEL

NO_LABEL = "-1"  # GLUE's test sets have this label in every row


@dataclass(frozen=True)
class Scan:
    """What one pass finds in a source of N rows.

    Attributes:
        source: the source.
        columns: its columns.
        first_places: the labels in order of appearance, each with the position of its first row. A set of labels is
            one label here; see `label_sets`.
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

    def marks(self, labels: list[str], trained_by: str) -> Marks:
        """Returns (N, K) which labels each row has; none for a row that is left out. See `ids`.

        Raises:
            DataError: a label is not in `labels`; the message names the first row that has it.
        """
        index = {label: i for i, label in enumerate(labels)}
        for label, position in self.first_places.items():
            for name in names_of(label):
                if name not in index:
                    raise unknown_label(self.source.place(position), name, labels, f", the labels of {trained_by}")
        rows = [[index[name] for name in names_of(label)] for label in self.first_places]
        return marks_of([*rows, []], len(rows) + 1, len(labels))[self.label_ids]


def scan_each(sources: Mapping[str, Source], named: NamedColumns, task: str) -> tuple[dict[str, Scan], list[str]]:
    """Scans every source; see `scan`. A test split without labels is left out, with a note."""
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
    # Numbers may be a regression, and sets are many combinations of few labels.
    label_ids, words, sets = array("i"), task == CLASSIFICATION, task == MULTILABEL
    placement, blank = PlacementReader(source, columns), BlankRows(source)
    for batch in text_batches(source, columns, sets=sets):
        blank.add(batch)
        for label, position, fault in zip(batch.labels or [], batch.positions, batch.faults, strict=True):
            if not fault and label not in ids:
                ids[label] = len(ids)
                first_places[label] = position
                words = words or not (sets or is_set(label) or number_of(label) is not None)
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
