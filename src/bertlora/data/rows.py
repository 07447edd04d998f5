"""Rows of a source as texts and labels. A blank text or label is an error that names its place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bertlora.data.columns import Columns, find_columns
from bertlora.data.labels import normalise_label, unknown_label
from bertlora.data.readers import PlainTextSource
from bertlora.data.source import Source
from bertlora.data.sources import SUFFIXES, open_sources
from bertlora.errors import DataError, suggestion


@dataclass(frozen=True)
class Split:
    """Labelled texts, N rows.

    Attributes:
        texts: the texts.
        pairs: the second text of each row, or None for single texts.
        labels: (N,) int64, index of each row's label in the list of labels.
        rows: (N,) int64, the row in the source, from 0.
        name: the split of its source; empty if the source is one table.
        groups: (N,) int64, the same number for rows of one group of `--group-column`, or None without it.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]
    name: str = ""
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.texts)


class TextBatch(NamedTuple):
    """Some rows of a source. `pairs` and `labels` are None if the source has none, or if labels are not wanted.

    `placing` has the values of the columns of group, time or split, by part.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[str] | None
    positions: list[int]
    placing: dict[str, list[object]]


def text_batches(source: Source, columns: Columns, with_labels: bool = True) -> Iterator[TextBatch]:
    """Yields the rows of a source in order.

    Raises:
        DataError: a text or label is blank or has the wrong type, or the source is broken.
    """
    label = columns.label if with_labels else None
    placing = columns.placing()
    for values, positions in source.batches([*columns.texts(), *([label] if label else []), *placing.values()]):
        pair = columns.text_pair
        yield TextBatch(
            _texts(source, columns.text, values[columns.text], positions),
            _texts(source, pair, values[pair], positions) if pair else None,
            _labels(source, label, values[label], positions) if label else None,
            positions,
            {part: values[column] for part, column in placing.items()},
        )


def read_rows(
    specs: Sequence[str],
    labels: Sequence[str],
    *,
    aliases: Sequence[str] = (),
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    split: str = "test",
) -> Split:
    """Reads all rows of a labelled source, for evaluation.

    Args:
        specs: what to read; see `open_sources`.
        labels: the labels, in order.
        aliases: other names of the same labels, in the same order.
        text_column: the text's column; found by its name if None.
        text_pair_column: the second text's column; found by its name if None.
        label_column: the label's column; found by its name if None.
        split: the split to read, if the source has several.

    Raises:
        DataError: the source is broken, does not have the split, or has a label that is not in `labels`.
        HubError: the hub cannot be reached.
    """
    sources = open_sources(specs)
    source = _one_table(sources, split)
    columns = find_columns(source, text_column, text_pair_column, label_column)
    index = {name: i for names in (aliases, labels) for i, name in enumerate(names)}
    texts: list[str] = []
    pairs: list[str] = []
    ids: list[int] = []
    for batch in text_batches(source, columns):
        for label, position in zip(batch.labels or [], batch.positions, strict=True):
            if label not in index:
                raise unknown_label(source.place(position), label, labels)
            ids.append(index[label])
        texts += batch.texts
        pairs += batch.pairs or []
    if not texts:
        raise no_rows(source)
    name = "" if "" in sources else split
    return Split(texts, pairs if columns.text_pair else None, np.array(ids, np.int64), np.arange(len(texts)), name)


def read_column(specs: Sequence[str], column: str, split: str = "test") -> list[str]:
    """Returns the values of any column of a source as texts, in the order of `read_rows`. A blank value is "".

    Args:
        specs: what to read; see `open_sources`.
        column: its name.
        split: the split to read, if the source has several.

    Raises:
        DataError: the source is broken, or does not have the split or the column.
        HubError: the hub cannot be reached.
    """
    source = _one_table(open_sources(specs), split)
    require_column(source, column)
    values = (value for batch in source.batches([column]) for value in batch.columns[column])
    return ["" if value is None else str(value).strip() for value in values]


def check_column(specs: Sequence[str], column: str, split: str = "test") -> None:
    """Raises DataError if a source does not have the split or the column. It reads no rows."""
    require_column(_one_table(open_sources(specs), split), column)


def iter_texts(
    spec: str, *, text_column: str | None = None, text_pair_column: str | None = None, split: str = "test"
) -> Iterator[list[tuple[str, str | None]]]:
    """Streams the texts of a source, for prediction. The source needs no labels.

    Args:
        spec: a source, see `open_sources`; a file of any other type is plain text with one text on each line.
        text_column: the text's column; found by its name if None.
        text_pair_column: the second text's column; found by its name if None.
        split: the split to read, if the source has several.

    Yields:
        Batches of (text, second text or None), in order.

    Raises:
        DataError: the source is broken, or a text is blank. A missing file or column is reported by the call itself.
        HubError: the hub cannot be reached.
    """
    source = texts_source(spec, split)
    if isinstance(source, PlainTextSource):
        return _stream(source, Columns("text"))
    return _stream(source, find_columns(source, text_column, text_pair_column, need_label=False))


def texts_source(spec: str, split: str = "test") -> Source:
    """Returns the source that `iter_texts` streams; the rows of both are in the same order.

    Raises:
        DataError: the source is broken, or does not have the split.
        HubError: the hub cannot be reached.
    """
    path = Path(spec)
    if path.suffix.lower() not in SUFFIXES and path.exists() and not path.is_dir():
        return PlainTextSource(path, path.name)
    return _one_table(open_sources([spec]), split)


def no_rows(source: Source) -> DataError:
    """Returns the error for a source without rows."""
    return DataError(f"{source.name}: has no rows, expected texts below its header")


def _stream(source: Source, columns: Columns) -> Iterator[list[tuple[str, str | None]]]:
    empty = True
    pairs: list[str] | list[None]
    for batch in text_batches(source, columns, with_labels=False):
        empty = False
        pairs = batch.pairs or [None] * len(batch.texts)
        yield list(zip(batch.texts, pairs, strict=True))
    if empty:
        raise no_rows(source)


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


def _texts(source: Source, column: str, values: Sequence[object], positions: Sequence[int]) -> list[str]:
    texts = [_text(value) for value in values]
    for text, value, position in zip(texts, values, positions, strict=True):
        if text is None:
            wrong_type = isinstance(value, (list, tuple, dict, bytes))
            fault = f"'{column}' holds {str(value)[:40]}" if wrong_type else f"'{column}' is blank"
            advice = "fill it in or remove the row"
            raise DataError(f"{source.place(position)}: {fault}, expected a text; {advice}")
    return [text for text in texts if text is not None]


def _text(value: object) -> str | None:
    """Returns a value as text, or None if it is blank or cannot be one."""
    if isinstance(value, str):
        return value if value and not value.isspace() else None
    is_number = isinstance(value, (bool, int, float)) and value == value
    return str(value) if is_number else None


def _labels(source: Source, column: str, values: Sequence[object], positions: Sequence[int]) -> list[str]:
    labels = []
    for value, position in zip(values, positions, strict=True):
        try:
            label = normalise_label(value)
        except DataError as error:
            raise DataError(f"{source.place(position)}: {error}") from error
        if label is None:
            advice = "fill it in or remove the row"
            raise DataError(f"{source.place(position)}: '{column}' is blank, expected a label; {advice}")
        labels.append(label)
    return labels
