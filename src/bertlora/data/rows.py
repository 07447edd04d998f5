"""Rows of a raw source, for evaluation and prediction."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from bertlora.data.blank import BlankRows
from bertlora.data.columns import Columns, find_columns
from bertlora.data.label_rules import LabelRules
from bertlora.data.named_columns import ColumnNames
from bertlora.data.readers import PlainTextSource
from bertlora.data.row_targets import NO_RULES, row_target
from bertlora.data.source import Batch, Source
from bertlora.data.sources import AS_FOUND, is_table_file, open_sources
from bertlora.data.text_batches import TextBatch, text_batches
from bertlora.data.text_file import FileFormat, OnFault, TextFile
from bertlora.errors import DataError, suggestion
from bertlora.task import CLASSIFICATION, MULTILABEL, TASKS


@dataclass(frozen=True)
class Split:
    """Labelled texts, N rows.

    Attributes:
        texts: the texts.
        pairs: the second text of each row, or None for single texts.
        labels: the targets: (N,) int64, index of each row's label in the list of labels; (N, K) bool, which labels it
            has; or (N,) float64 numbers.
        rows: (N,) int64, the row in the source, from 0.
        name: the split of its source; empty if the source is one table.
        groups: (N,) int64, the same number for rows of one group of `--group-column`, or None without it.
        notes: what was left out of a raw source.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: NDArray[Any]
    rows: NDArray[np.int64]
    name: str = ""
    groups: NDArray[np.int64] | None = None
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.texts)


def read_rows(
    specs: Sequence[str],
    labels: Sequence[str],
    *,
    task: str = CLASSIFICATION,
    aliases: Sequence[str] = (),
    split: str = "test",
    rules: LabelRules = NO_RULES,
    **columns: Unpack[ColumnNames],
) -> Split:
    """Reads the rows of a labelled source, for evaluation. Blank rows, and those that `rules` drop, are left out.

    Args:
        specs: what to read; see `open_sources`.
        labels: the labels, in order.
        task: what the targets are; in a regression any number is right.
        aliases: other names of the same labels, in the same order.
        split: the split to read, if the source has several.
        rules: what was done with the labels of the training data.
        columns: the columns, found by their names if not given, and how the files are written.

    Raises:
        DataError: the source is broken, does not have the split, or more than 10 % of its rows are blank. Or a label is
            not in `labels`, or is not a number in a regression.
        HubError: the hub cannot be reached.
    """
    sources = open_sources(specs, FileFormat.of(columns))
    source = _one_table(sources, split)
    found = find_columns(
        source, columns.get("text_column"), columns.get("text_pair_column"), columns.get("label_column")
    )
    target_of, blank = row_target(task, labels, aliases, rules), BlankRows(source)
    texts: list[str] = []
    pairs: list[str] = []
    targets: list[Any] = []
    rows: list[int] = []
    for batch in text_batches(source, found, sets=task == MULTILABEL):
        first = blank.rows
        blank.add(batch)
        for i, label in enumerate(batch.labels or []):
            target = None if batch.faults[i] else target_of(label, source.place(batch.positions[i]))
            if target is None:
                continue
            targets.append(target)
            rows.append(first + i)
            texts.append(batch.texts[i])
            pairs += [batch.pairs[i]] if batch.pairs else []
    if not blank.rows:
        raise no_rows(source)
    blank.check()
    if not texts:
        raise DataError(f"{source.name}: has no row that is neither blank nor dropped")
    notes = [*source.notes, *blank.notes()]
    name = "" if "" in sources else split
    typed = np.array(targets, TASKS[task].target_type)
    return Split(texts, pairs if found.text_pair else None, typed, np.array(rows), name, notes=notes)


def read_column(specs: Sequence[str], column: str, split: str = "test", form: FileFormat = AS_FOUND) -> list[str]:
    """Returns the values of any column of a source as texts, one for each of its rows. A blank value is "".

    Args:
        specs: what to read; see `open_sources`.
        column: its name.
        split: the split to read, if the source has several.
        form: how the files are written, as far as the user says it.

    Raises:
        DataError: the source is broken, or does not have the split or the column.
        HubError: the hub cannot be reached.
    """
    source = _one_table(open_sources(specs, form), split)
    require_column(source, column)
    values = (value for batch in source.batches([column]) for value in batch.columns[column])
    return ["" if value is None else str(value).strip() for value in values]


def check_column(specs: Sequence[str], column: str, split: str = "test", form: FileFormat = AS_FOUND) -> None:
    """Raises DataError if a source does not have the split or the column. It reads no rows."""
    require_column(_one_table(open_sources(specs, form), split), column)


def iter_texts(
    spec: str, *, split: str = "test", notes: list[str] | None = None, **columns: Unpack[ColumnNames]
) -> Iterator[list[tuple[str, str | None]]]:
    """Streams the texts of a source, for prediction. The source needs no labels.

    Args:
        spec: a source, see `open_sources`; a file of any other type is plain text with one text on each line.
        split: the split to read, if the source has several.
        notes: gets what the user should know: a detected encoding at once, and blank rows when all are read.
        columns: the columns of the texts, found by their names if not given, and how the file is written.

    Yields:
        Batches of (text, second text or None), in order. A blank text is an empty string.

    Raises:
        DataError: the source is broken. A missing file or column is reported by the call itself.
        HubError: the hub cannot be reached.
    """
    source = texts_source(spec, split, FileFormat.of(columns))
    return (texts for texts, _ in iter_rows(source, (), notes=notes, **columns))


def iter_rows(
    source: Source, names: Sequence[str], *, notes: list[str] | None = None, **columns: Unpack[ColumnNames]
) -> Iterator[tuple[list[tuple[str, str | None]], dict[str, list[object]]]]:
    """Streams the texts of a source with the columns `names` of the same rows, in one pass.

    Args:
        source: the source; see `texts_source`.
        names: columns of any kind.
        notes: as for `iter_texts`.
        columns: the columns of the texts.

    Yields:
        Batches of (text, second text or None), in order, and the values of each column.

    Raises:
        DataError: the source is broken. A missing column is reported by the call itself.
    """
    notes = [] if notes is None else notes
    notes += source.notes
    return _stream(source, names, text_columns(source, **columns), notes)


def text_columns(source: Source, **columns: Unpack[ColumnNames]) -> Columns:
    """Returns the columns of the texts of a source; found by their names if not given.

    Raises:
        DataError: the source does not have them.
    """
    if isinstance(source, PlainTextSource):
        return Columns("text")
    return find_columns(source, columns.get("text_column"), columns.get("text_pair_column"), need_label=False)


def kept_batches(
    source: Source, names: Sequence[str], columns: Columns, on_fault: OnFault | None = None
) -> Iterator[tuple[TextBatch, dict[str, list[object]]]]:
    """Yields the texts of a source in batches, each with the columns `names` of the same rows; see `text_batches`."""
    keeping = _Keeping(source, names)
    for batch in text_batches(keeping, columns, with_labels=False, on_fault=on_fault):
        yield batch, keeping.kept


def texts_source(spec: str, split: str = "test", form: FileFormat = AS_FOUND) -> Source:
    """Returns the source that `iter_texts` streams.

    Raises:
        DataError: the source is broken, or does not have the split.
        HubError: the hub cannot be reached.
    """
    path = Path(spec)
    if path.exists() and not path.is_dir() and not is_table_file(path):
        return PlainTextSource(TextFile(path, path.name, form.encoding, form.on_fault))
    return _one_table(open_sources([spec], form), split)


def no_rows(source: Source) -> DataError:
    """Returns the error for a source without rows."""
    return DataError(f"{source.name}: has no rows, expected texts below its header")


class _Keeping:
    """A source that keeps some columns of the batch that it yielded last, whatever it was asked for.

    Attributes:
        kept: these columns.
    """

    def __init__(self, source: Source, names: Sequence[str]) -> None:
        self.name, self.columns, self.class_names = source.name, source.columns, source.class_names
        self.notes, self.place = source.notes, source.place
        self.kept: dict[str, list[object]] = {}
        self._source, self._names = source, names

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows in order; see `Source.batches`."""
        for batch in self._source.batches(list(dict.fromkeys([*columns, *self._names]))):
            self.kept = {name: batch.columns[name] for name in self._names}
            yield batch


def _stream(
    source: Source, names: Sequence[str], columns: Columns, notes: list[str]
) -> Iterator[tuple[list[tuple[str, str | None]], dict[str, list[object]]]]:
    blank = BlankRows(source)
    pairs: list[str] | list[None]
    for batch, kept in kept_batches(source, names, columns):
        blank.add(batch)
        pairs = batch.pairs or [None] * len(batch.texts)
        yield list(zip(batch.texts, pairs, strict=True)), kept
    if not blank.rows:
        raise no_rows(source)
    notes += blank.notes("got no label")


def require_column(source: Source, column: str) -> None:
    """Raises DataError if a source does not have the column."""
    if column not in source.columns:
        listed = ", ".join(f"'{name}'" for name in source.columns)
        raise DataError(
            f"{source.name}: column '{column}' is not one of its columns, {listed}{suggestion(column, source.columns)}"
        )


def _one_table(sources: dict[str, Source], split: str) -> Source:
    if "" in sources:
        return sources[""]
    if split not in sources:
        raise DataError(f"the source has no {split} split, only {', '.join(sources)}; name one of these")
    return sources[split]
