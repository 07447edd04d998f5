"""Rows of a source in batches, as texts and labels. A row with a blank text or label says so, and is not used."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from bertlora.data.columns import Columns
from bertlora.data.label_sets import NO_LABELS, set_of_columns
from bertlora.data.labels import normalise_label
from bertlora.data.source import Source
from bertlora.data.text_file import OnFault
from bertlora.errors import DataError

# In MNLI and SNLI, `-` says that the annotators did not agree: everyone leaves these rows out.
NO_CONSENSUS = ("gold_label", "-")


class TextBatch(NamedTuple):
    """Some rows of a source. `pairs` and `labels` are None if the source has none, or if labels are not wanted.

    `placing` has the values of the columns of group, time or split, by part. `faults` says why a row cannot be used,
    such as `'text' is blank`; it is empty for the others. What is blank is an empty string.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[str] | None
    positions: list[int]
    placing: dict[str, list[object]]
    faults: list[str]


def text_batches(
    source: Source,
    columns: Columns,
    with_labels: bool = True,
    sets: bool = False,
    on_fault: OnFault | None = None,
) -> Iterator[TextBatch]:
    """Yields the rows of a source in order, blank ones included.

    Args:
        source: the source.
        columns: its columns.
        with_labels: whether labels are wanted.
        sets: whether a row may have any number of labels. An empty cell is then a row without labels.
        on_fault: gets the rows whose text is not a string. They then count as blank. None makes the first one an error.

    Raises:
        DataError: a text or label has the wrong type, or the source is broken.
    """
    label = columns.label if with_labels else None
    placing, wanted = columns.placing(), columns.labels() if with_labels else []
    for values, positions in source.batches([*columns.texts(), *wanted, *placing.values()]):
        found = {name: _texts(source, name, values[name], positions, on_fault) for name in columns.texts()}
        labels = _labels(source, columns, values, positions, sets) if wanted else None
        checked = found | ({label: labels} if label and labels is not None else {})
        yield TextBatch(
            found[columns.text],
            found[columns.text_pair] if columns.text_pair else None,
            labels,
            positions,
            {part: values[column] for part, column in placing.items()},
            [_fault(list(checked), row) if "" in row else "" for row in zip(*checked.values(), strict=True)],
        )


def _fault(columns: Sequence[str], values: Sequence[str]) -> str:
    """Returns which columns of a row are blank: `'text' is blank`."""
    blank = [f"'{column}'" for column, value in zip(columns, values, strict=True) if not value]
    return f"{' and '.join(blank)} {'are' if len(blank) > 1 else 'is'} blank"


def _texts(
    source: Source, column: str, values: Sequence[object], positions: Sequence[int], on_fault: OnFault | None
) -> list[str]:
    texts = []
    for value, position in zip(values, positions, strict=True):
        if value is None or isinstance(value, str):
            texts.append(value if value and not value.isspace() else "")
        elif isinstance(value, bool | int | float):
            texts.append(str(value) if value == value else "")
        else:
            fault = f"'{column}' holds {str(value)[:40]}, expected a text; correct the row, or name another column"
            if on_fault is None:
                raise DataError(f"{source.place(position)}: {fault}")
            on_fault(position, fault)
            texts.append("")
    return texts


def _labels(
    source: Source, columns: Columns, values: Mapping[str, Sequence[object]], positions: Sequence[int], sets: bool
) -> list[str]:
    labels = []
    for row, position in zip(zip(*(values[name] for name in columns.labels()), strict=True), positions, strict=True):
        empty = NO_LABELS if sets and row[0] is not None and row[0] == row[0] else ""  # None and NaN are missing
        try:
            label = set_of_columns(columns.marks, row) if columns.marks else normalise_label(row[0]) or empty
            labels.append("" if (columns.label, label) == NO_CONSENSUS else label)
        except DataError as error:
            raise DataError(f"{source.place(position)}: {error}") from error
    return labels
