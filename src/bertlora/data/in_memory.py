"""Texts and labels in memory, as Python callers have them: lists, arrays, and columns of pandas."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bertlora.data.label_sets import marks_of
from bertlora.errors import DataError

# Missing values of pandas, which is no dependency: they are known by the names of their types.
MISSING = ("NAType", "NaTType")
CONTAINERS = (list, tuple, set, frozenset, dict, np.ndarray)


def labels_of(y: Any, name: str = "y") -> npt.NDArray[Any]:
    """Returns labels, (N,), of one type.

    Args:
        y: a list, an array or a column of pandas.
        name: of the parameter, for messages.

    Raises:
        DataError: it is not one label a row, a label is missing, or the labels have several types.
    """
    values = _values(y, name, "(N,) labels")
    for row, value in enumerate(values):
        if isinstance(value, CONTAINERS):
            raise DataError(f"{name}: row {row} holds a {type(value).__name__}, expected one label a row")
        if is_missing(value):
            raise DataError(f"{name}: row {row} has no label; leave such rows out")
    first = {_kind(value): row for row, value in reversed(list(enumerate(values)))}
    if len(first) > 1:
        listed = ", ".join(f"{kind} (row {row})" for kind, row in sorted(first.items(), key=lambda item: item[1]))
        raise DataError(f"{name}: got labels of types {listed}, expected one type")
    return np.asarray(values)


def label_sets_of(y: Any, name: str = "y") -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Returns the K labels, (K,), and which of them each row has, (N, K).

    Args:
        y: (N, K) 0 and 1, an array or a table of pandas; or N lists of labels.
        name: of the parameter, for messages.

    Raises:
        DataError: it has another form, or a label is missing.
    """
    if hasattr(y, "toarray"):  # a sparse matrix
        y = y.toarray()
    if getattr(y, "ndim", 1) == 2:
        names = np.asarray(getattr(y, "columns", np.arange(np.shape(y)[1])))
        return names, _zeros_and_ones(np.asarray(y), name)
    rows = [list(row) for row in _collections(y, name)]
    labels = np.unique(labels_of([label for row in rows for label in row], name)) if any(rows) else np.array([])
    return labels, _marks(rows, labels, name)


def marks_in(y: Any, classes: npt.NDArray[Any], name: str) -> npt.NDArray[np.bool_]:
    """Returns which of the labels (K,) each row has, (N, K); y as for `label_sets_of`."""
    labels, marks = label_sets_of(y, name)
    if getattr(y, "ndim", 1) == 2:
        if marks.shape[1] != len(classes):
            raise DataError(f"{name}: got {marks.shape[1]} columns, expected one for each of {len(classes)} labels")
        return marks
    return _marks([labels[row].tolist() for row in marks], classes, name)


def texts_of(X: Any, name: str = "X") -> tuple[list[str], list[str] | None]:  # noqa: N803
    """Returns texts and, for (N, 2) input, second texts.

    Args:
        X: (N,) texts, or (N, 2) pairs: a list, an array, or columns of pandas.
        name: of the parameter, for messages.

    Raises:
        DataError: it has another shape, or a row does not hold a text.
    """
    if isinstance(X, str):
        raise DataError(f"{name}: got a single string, expected a list of texts")
    rows = np.asarray(X, dtype=object)
    if rows.ndim == 2 and rows.shape[1] == 1:
        rows = rows[:, 0]
    if rows.ndim != 1 and not (rows.ndim == 2 and rows.shape[1] == 2):
        raise DataError(f"{name}: got shape {rows.shape}, expected (N,) texts or (N, 2) pairs")
    columns = [rows.tolist()] if rows.ndim == 1 else [rows[:, 0].tolist(), rows[:, 1].tolist()]
    for column in columns:
        _check_texts(column, name)
    return columns[0], columns[1] if len(columns) > 1 else None


def weights_of(sample_weight: Any, rows: int) -> npt.NDArray[np.float64] | None:
    """Returns the weights of rows, (N,); None if all count equally.

    Args:
        sample_weight: (N,) numbers, 0 or more; None is all 1.
        rows: N.

    Raises:
        DataError: it is not one finite number a row, a number is negative, or all are 0.
    """
    if sample_weight is None:
        return None
    try:
        found = np.asarray(sample_weight, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"sample_weight: expected numbers ({error})") from error
    if found.shape != (rows,):
        raise DataError(f"sample_weight: got shape {found.shape}, expected ({rows},), a number for each row")
    odd = np.flatnonzero(~(np.isfinite(found) & (found >= 0)))
    if len(odd):
        raise DataError(f"sample_weight: row {odd[0]} has {found[odd[0]]:g}, expected a finite number (0 or more)")
    if rows and not found.any():
        raise DataError("sample_weight: every weight is 0, expected one above 0")
    return None if not np.ptp(found) else found


def is_missing(value: object) -> bool:
    """Returns whether a value stands for no value: None, NaN, and pandas' NA and NaT."""
    if value is None or type(value).__name__ in MISSING:
        return True
    return isinstance(value, float | np.floating) and value != value  # NaN is not itself


def _values(y: Any, name: str, expected: str) -> list[Any]:
    """Returns the rows of a list, an array or a column as values of Python."""
    if isinstance(y, list | tuple):  # numpy would make texts of numbers among texts
        return [value.item() if isinstance(value, np.generic) else value for value in y]
    values = np.asarray(y)
    if values.ndim != 1:
        raise DataError(f"{name}: got shape {values.shape}, expected {expected}")
    return list(values.tolist())


def _collections(y: Any, name: str) -> list[Any]:
    """Returns rows that each hold some labels."""
    rows = list(y)
    for row, value in enumerate(rows):
        if not isinstance(value, list | tuple | set | frozenset | np.ndarray):
            raise DataError(
                f"{name}: row {row} is {str(value)[:40]!r}, expected a list of labels; or give (N, K) 0 and 1"
            )
    return rows


def _zeros_and_ones(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.bool_]:
    odd = np.argwhere((values != 0) & (values != 1))
    if len(odd):
        row, column = odd[0]
        raise DataError(f"{name}: row {row}, column {column} is {values[row, column]}, expected 0 or 1")
    return np.asarray(values == 1)


def _marks(rows: list[list[Any]], labels: npt.NDArray[Any], name: str) -> npt.NDArray[np.bool_]:
    place = {label: i for i, label in enumerate(labels.tolist())}
    for row in rows:
        if unknown := [label for label in row if label not in place]:
            raise DataError(f"{name}: label {unknown[0]!r} is not among the labels of y")
    return marks_of([[place[label] for label in row] for row in rows], len(rows), len(labels))


def _kind(value: object) -> str:
    """Returns the name of a label's type; whole and real numbers go together."""
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def _check_texts(values: Sequence[object], name: str) -> None:
    for row, value in enumerate(values):
        if is_missing(value):
            raise DataError(f"{name}: row {row} has no text; leave such rows out")
        if not isinstance(value, str):
            raise DataError(f"{name}: row {row} holds a value of type {type(value).__name__}, expected a text")
