"""Labels: any value as a string, the order of labels, and their errors."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from bertlora.data.label_sets import joined
from bertlora.errors import DataError, suggestion

# With more classes than this, the column holds texts or numbers and not labels.
MAX_CLASSES = 10_000
SHOWN = 10
# Labels look like an ID if there are more than this fraction of the rows. Fewer rows say nothing.
IDENTIFIER_SHARE = 0.5
FEW_ROWS = 20
# Numbers look like a quantity if there are more different ones than this, or, with fractions, more than that.
MOST_NUMBERS = 20
MOST_FRACTIONS = 5
# A class is small if it has less than a quarter of the rows of the largest one.
IMBALANCE_RATIO = 4


def normalise_label(value: object) -> str | None:
    """Returns a label as a string, or None if it is blank (None, NaN, white space).

    Booleans become `true` and `false`, whole floats lose their `.0`, strings their outer white space. A list becomes a
    set of labels; see `label_sets`.

    Raises:
        DataError: the value is a table, not a label.
    """
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | tuple | set):
        return joined(filter(None, map(normalise_label, value)))
    if isinstance(value, dict | bytes):
        raise DataError(f"the label is {str(value)[:40]}, expected a string, a number or a list in each row")
    return str(value).strip() or None


def order_labels(found: Iterable[str], named: Sequence[str] = ()) -> list[str]:
    """Returns each label once: in the order of `named` if the source names them, else by number, else A to Z."""
    labels = set(found)
    if named and labels <= set(named):
        return [label for label in named if label in labels]
    if all(re.fullmatch(r"-?\d+", label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels, key=lambda label: (label.casefold(), label))


def check_labels(labels: Sequence[str], rows: int, name: str) -> None:
    """Checks that there are at least two classes, and at least as many rows.

    Args:
        labels: the classes, each once.
        rows: the number of rows.
        name: the source's name, for messages.

    Raises:
        DataError: there is one class only, or fewer rows than classes.
    """
    if not labels:
        raise DataError(f"{name}: no row has a label, expected two classes or more; check the label column")
    if len(labels) == 1:
        raise DataError(f"{name}: every label is '{labels[0]}', expected two classes or more; check the label column")
    if rows < len(labels):
        raise DataError(
            f"{name}: {rows} rows for {len(labels)} classes ({quoted(labels)}), expected at least one for each"
            f"{label_fault(labels, rows)}"
        )


def are_identifiers(labels: Sequence[str], rows: int) -> bool:
    """Returns whether labels look like an ID: nearly every row has its own."""
    return rows >= FEW_ROWS and len(labels) > IDENTIFIER_SHARE * rows and not _are_numbers(labels, fractions=True)


def are_quantities(labels: Sequence[str]) -> bool:
    """Returns whether labels look like a quantity: many different numbers, or several with a fraction."""
    if not _are_numbers(labels):
        return False
    return len(labels) > MOST_NUMBERS or (len(labels) > MOST_FRACTIONS and _are_numbers(labels, fractions=True))


def label_fault(labels: Sequence[str], rows: int) -> str:
    """Returns what is probably wrong with labels, as the end of an error; empty if nothing is known."""
    if are_identifiers(labels, rows):
        return "; the label column may be an ID: name the right one by --label-column"
    if are_quantities(labels):
        return "; the labels may be a quantity and not classes: put them into a few ranges first"
    return ""


def _are_numbers(labels: Sequence[str], fractions: bool = False) -> bool:
    """Returns whether all labels are numbers; with `fractions`, and one of them is not whole."""
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return False
    return not fractions or any(number != round(number) for number in numbers if np.isfinite(number))


def unknown_label(place: str, label: str, labels: Sequence[str], reason: str = "") -> DataError:
    """Returns the error for a label that is not one of `labels`."""
    return DataError(f"{place}: label '{label}' is not one of {quoted(labels)}{reason}{suggestion(label, labels)}")


def quoted(labels: Sequence[str]) -> str:
    """Returns labels as messages list them: at most ten."""
    more = f" and {len(labels) - SHOWN:,} more" if len(labels) > SHOWN else ""
    return ", ".join(f"'{label}'" for label in labels[:SHOWN]) + more


def imbalanced(label_ids: NDArray[np.integer]) -> bool:
    """Returns whether a class that has rows has less than a quarter of the rows of the largest class."""
    counts = np.unique(label_ids, return_counts=True)[1]
    return len(counts) > 1 and bool(counts.min() * IMBALANCE_RATIO < counts.max())
