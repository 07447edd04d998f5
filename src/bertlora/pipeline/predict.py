"""Predictions for the rows of a file: its columns stay, and the predictions come after them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TextIO

from bertlora.data.json_source import every_column
from bertlora.data.label_sets import DELIMITERS
from bertlora.data.rows import iter_rows, require_column, texts_source
from bertlora.data.source import Source
from bertlora.data.table_file import Part, Write, column_types, safe_cells, table_file, text_rows
from bertlora.data.text_file import FileFormat
from bertlora.errors import InputError
from bertlora.task import MULTILABEL, REGRESSION

ROWS = 1024  # predicted in one call
ENDS = "low", "high"  # of the interval of a number
# A text, its second text or None, and the values of the kept columns.
Row = tuple[str, str | None, tuple[object, ...]]
Line = dict[str, Any]  # of `Run.predict`


class Described(Protocol):
    """What is said of predictions: the part of a manifest that their form depends on."""

    @property
    def labels(self) -> list[str]:
        """Names of the classes."""

    @property
    def task(self) -> str:
        """What is predicted."""

    @property
    def pairs(self) -> bool:
        """Whether pairs of texts are read."""


class Predictor(Protocol):
    """What predicts: a `Run`, or an adapter of a server."""

    @property
    def manifest(self) -> Described:
        """What it predicts."""

    @property
    def predict(self) -> Callable[..., list[Line]]:
        """Labels texts; see `Run.predict`."""

    @property
    def ready(self) -> Callable[[str], AbstractContextManager[None]]:
        """Inside, predictions start at once."""


@dataclass(frozen=True)
class FileRows:
    """The rows of a file to predict.

    Attributes:
        source: the file, opened.
        names: the columns that are written again.
        columns: the options of `iter_rows`, such as `text_column`.
    """

    source: Source
    names: list[str]
    columns: dict[str, Any]

    @classmethod
    def open(cls, spec: str, id_column: str | None = None, **columns: Any) -> "FileRows":
        """Opens a file, and finds its columns.

        Args:
            spec: a file, as `iter_texts` takes it.
            id_column: the only column that is written again; None writes all.
            columns: `text_column`, `text_pair_column`, `split` and `notes`, as for `iter_texts`.

        Raises:
            DataError: the file cannot be read, or does not have a column.
        """
        source = texts_source(spec, columns["split"], FileFormat.of(columns))  # type: ignore[arg-type]
        if id_column:
            require_column(source, id_column)
        columns = {key: value for key, value in columns.items() if key != "split"}
        iter_rows(source, (), **columns | {"notes": None})  # finds the columns of the texts
        return cls(source, [id_column] if id_column else every_column(source), columns)

    def parts(self) -> Iterator[Part]:
        """Yields the columns that are written again, in parts."""
        return (batch.columns for batch in self.source.batches(self.names))

    def rows(self) -> Iterator[Row]:
        """Yields the text, the second text and the kept values of each row."""
        for texts, columns in iter_rows(self.source, self.names, **self.columns):
            values = zip(*(columns[name] for name in self.names), strict=True)
            for (text, pair), kept in zip(texts, values, strict=True):
                yield text, pair, kept


def predicted_names(run: Predictor, options: dict[str, Any], probabilities: bool) -> list[str]:
    """Returns the columns that predictions add.

    Args:
        run: the run.
        options: those of `Run.predict`.
        probabilities: whether each label's probability gets a column.

    Raises:
        InputError: `probabilities` is given, and the run predicts numbers.
    """
    if run.manifest.task == REGRESSION:
        if probabilities:
            raise InputError("probabilities: are of classes, and this run predicts a number; leave it out")
        return ["predicted_value", *ENDS]
    several = run.manifest.task == MULTILABEL
    names = [] if several else ["predicted_label", "confidence"]
    names += ["abstained"] if options.get("abstain") else []
    names += ["predicted_labels"] if several or options.get("sets") is not None else []
    return names + [f"probability of {label}" for label in run.manifest.labels if probabilities]


def check_names(source: str, kept: Sequence[str], names: Sequence[str]) -> None:
    """Raises InputError if one of the columns `kept` of a source has one of these names."""
    if taken := [name for name in names if name in kept]:
        raise InputError(
            f"{source}: has a column '{taken[0]}' already; rename it, or keep one other column by --id-column"
        )


def write_predictions(
    run: Predictor,
    rows: FileRows,
    out: Path | TextIO,
    format: str,
    *,
    probabilities: bool = False,
    safe_csv: bool = False,
    **options: Any,
) -> int:
    """Writes the kept columns of the rows with their predictions, in order and in bounded memory.

    Args:
        run: the run.
        rows: the rows of a file.
        out: the file to write, whole or not at all; or an open one, not for Parquet.
        format: `csv`, `tsv`, `jsonl` or `parquet`. In the first two, several labels are in one cell with `|` between.
        probabilities: give each label's probability a column.
        safe_csv: put `'` before cells that a spreadsheet would take for a formula.
        options: those of `Run.predict`.

    Returns:
        The number of rows.

    Raises:
        InputError: the file has a column with the name of one that predictions add.
        DataError: the file is broken, or a text is blank.
        OutputError: `out` cannot be written.
    """
    names = predicted_names(run, options, probabilities)
    check_names(rows.source.name, rows.names, names)
    target: AbstractContextManager[Write]
    if isinstance(out, Path):
        types = predicted_types(run, rows.parts(), options, probabilities) if format == "parquet" else None
        target = table_file(out, format, types)
    else:
        target = nullcontext(text_rows(out, format))
    count = 0
    with target as write:
        for part in predicted_parts(run, rows, options, probabilities, format in ("csv", "tsv")):
            write(safe_cells(part) if safe_csv else part)
            count += len(part[names[0]])
    return count


def predicted_parts(
    run: Predictor, rows: FileRows, options: dict[str, Any], probabilities: bool, cells: bool = False
) -> Iterator[dict[str, list[object]]]:
    """Yields the kept columns of the rows with their predictions, in parts, in order.

    Args:
        run: the run.
        rows: the rows.
        options: those of `Run.predict`.
        probabilities: whether each label's probability gets a column.
        cells: whether a row's several labels become one text, with `|` between them.
    """
    one_text = cells and run.manifest.task == MULTILABEL
    names = predicted_names(run, options, probabilities)
    for chunk, lines in predicted_chunks(run, rows, options):
        answers = [answer_of(line, row[:2]) for line, row in zip(lines, chunk, strict=True)]
        values = {name: [row[2][i] for row in chunk] for i, name in enumerate(rows.names)}
        yield values | predicted_columns(names, answers, one_text)


def predicted_columns(names: Sequence[str], answers: Sequence[Line], one_text: bool) -> dict[str, list[object]]:
    """Returns the columns that predictions add to some rows.

    Args:
        names: see `predicted_names`.
        answers: the line of `Run.predict` of each row.
        one_text: whether a row's several labels become one text, with `|` between them.
    """
    if one_text:
        answers = [answer | {"labels": DELIMITERS[0].join(answer["labels"] or ())} for answer in answers]
    return {name: [_value(answer, name) for answer in answers] for name in names}


def predicted_chunks(run: Predictor, rows: FileRows, options: dict[str, Any]) -> Iterator[tuple[list[Row], list[Line]]]:
    """Yields some rows at a time, in order, each with its line of `Run.predict`. Blank texts have one too.

    Args:
        run: the run.
        rows: the rows.
        options: those of `Run.predict`.
    """
    every = rows.rows()
    with nullcontext() if options.get("base") else run.ready(options.get("precision", "fp32")):
        while chunk := list(islice(every, ROWS)):
            texts, pairs, _ = zip(*chunk, strict=True)
            seconds = None if pairs[0] is None else list(pairs)
            yield chunk, run.predict(list(texts), seconds, **options)


def predicted_types(
    run: Predictor, parts: Iterable[Part], options: dict[str, Any], probabilities: bool
) -> dict[str, Any]:
    """Returns the Arrow types of the columns that `predicted_parts` yields. `parts`, the kept ones, are read for them.

    Args:
        run: the run.
        parts: the kept columns of all rows.
        options: those of `Run.predict`.
        probabilities: whether each label's probability gets a column.
    """
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    known = {"predicted_label": text, "abstained": pa.bool_(), "predicted_labels": pa.list_(text)}
    names = predicted_names(run, options, probabilities)
    return column_types(parts) | {name: known.get(name, number) for name in names}


def answer_of(line: dict[str, Any], row: tuple[str, str | None]) -> dict[str, Any]:
    """Returns a prediction of a text or pair; for a blank one the same keys without an answer, and `error`."""
    if "" not in row:
        return line
    texts = {key: value for key, value in line.items() if key in ("text", "text_pair")}
    nothing: dict[str, Any] = dict.fromkeys(line)
    if "probabilities" in line:
        nothing["probabilities"] = dict.fromkeys(line["probabilities"])
    return nothing | texts | {"error": "the text is blank"}


def _value(line: dict[str, Any], name: str) -> object:
    """Returns the value of a column that predictions add, from a line of `Run.predict`."""
    if name in ENDS:
        return None if line["interval"] is None else line["interval"][ENDS.index(name)]
    if name.startswith("predicted_"):
        return line[name.removeprefix("predicted_")]
    return line[name] if name in line else line["probabilities"][name.removeprefix("probability of ")]
