"""Rows with any number of labels: lists, cells with a delimiter, or a column of 0 and 1 for each label.

The scan knows a row's label as one string. So a set of labels is one too: each name after a separator, in order.

    joined(["drama", "comedy"])           # "\\x1fcomedy\\x1fdrama"
    names_of(as_set("comedy|drama", "|"))  # ["comedy", "drama"]

Letters: N rows, K labels.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bertlora.errors import DataError

Marks = NDArray[np.bool_]

# ASCII's unit separator: no label holds it.
SEPARATOR = "\x1f"
NO_LABELS = SEPARATOR
# The first of these that any label holds separates them.
DELIMITERS = ("|", ";", ",")
NO_LABEL_NAME = "no label"
YES, NO = ("1", "true", "yes", "y", "t"), ("0", "false", "no", "n", "f")


def joined(names: Iterable[str]) -> str:
    """Returns a set of labels as one string."""
    return SEPARATOR + SEPARATOR.join(sorted(set(names)))


def is_set(label: str) -> bool:
    """Returns whether a label is a set."""
    return label.startswith(SEPARATOR)


def names_of(label: str) -> list[str]:
    """Returns the names in a set, in order."""
    return [name for name in label.split(SEPARATOR) if name]


def as_set(label: str, delimiter: str) -> str:
    """Returns a label as a set: one that is none yet is split at the delimiter."""
    if is_set(label):
        return label
    parts = label.split(delimiter) if delimiter else [label]
    return joined(part.strip() for part in parts if part.strip())


def find_delimiter(labels: Iterable[str]) -> str:
    """Returns what separates the names in labels that are no sets: `|`, `;` or `,`; empty if none of them occurs."""
    found = {sign for label in labels if not is_set(label) for sign in DELIMITERS if sign in label}
    return next((sign for sign in DELIMITERS if sign in found), "")


def renamed_set(label: str, name: Callable[[str], str]) -> str:
    """Returns a set with other names. A name that becomes empty is left out."""
    return joined(new for new in map(name, names_of(label)) if new)


def set_of_columns(names: Sequence[str], values: Sequence[object]) -> str:
    """Returns the set of those names whose value is 1; an empty string if a value is blank.

    Args:
        names: columns.
        values: a row's value in each: 0 or 1, or words such as true and no.

    Raises:
        DataError: a value is neither.
    """
    found = []
    for name, value in zip(names, values, strict=True):
        plain = _plain(value)
        if not plain:
            return ""
        if plain not in (*YES, *NO):
            raise DataError(f"'{name}' is {str(value)[:40]}, expected 0 or 1, as each of several label columns")
        found += [name] if plain in YES else []
    return joined(found)


def _plain(value: object) -> str:
    if value is None or value != value:  # NaN is not itself
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().casefold()


def count_names(counts: Mapping[str, int]) -> Counter[str]:
    """Returns how many rows have each label, from the number of rows of each set."""
    found: Counter[str] = Counter()
    for label, rows in counts.items():
        found.update(dict.fromkeys(names_of(label), rows))
    return found


def marks_of(rows: Iterable[Sequence[int]], count: int, labels: int) -> Marks:
    """Returns which labels each row has, (N, K), from the indices of its labels.

    Args:
        rows: the indices of each row.
        count: N.
        labels: K.
    """
    found = np.zeros((count, labels), bool)
    for row, indices in enumerate(rows):
        found[row, list(indices)] = True
    return found


def rarest(marks: Marks, counts: NDArray[np.int64]) -> NDArray[np.int32]:
    """Returns each row's rarest label, (N,): K for a row without labels.

    Rows are drawn and split in the proportions of these groups. So every part has its share of the rare labels.

    Args:
        marks: (N, K).
        counts: (K,) the rows of each label.
    """
    order = np.argsort(counts, kind="stable")
    first = marks[:, order].argmax(axis=1)
    return np.asarray(np.where(marks.any(axis=1), order[first], marks.shape[1]), np.int32)
