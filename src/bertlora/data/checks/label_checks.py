"""The checks of labels and of blank rows: names that mean the same or nothing, small classes, numbers, identifiers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bertlora.data.blank import ROWS_LISTED
from bertlora.data.checks.find import Check, a_check, found_rows
from bertlora.data.checks.kept import KeptRows
from bertlora.data.label_rules import label_key
from bertlora.data.label_sets import Marks
from bertlora.data.labels import are_identifiers, are_quantities, quoted
from bertlora.data.scan import Scan

FEWEST_ROWS = 5
# Labels, in lower case, that stand for a missing one.
MISSING = {"n/a", "na", "#n/a", "n.a.", "null", "none", "nil", "nan", "<na>", "missing", "undefined", "not available"}
MISSING |= {"(blank)", "blank", "-", "--", "---", "?", "."}


def label_checks(kept: KeptRows, labels: Sequence[str], marks: Marks | None = None) -> Iterator[Check]:
    """Yields label_variants, missing_labels, small_classes, numeric_labels and id_labels, as `find_checks` does.

    Args:
        kept: the rows that are kept.
        labels: the classes; or labels, if a row may have several.
        marks: (N, K) which of these labels each row has; None if `kept` has the class of each row.
    """
    rows = np.bincount(kept.labels, minlength=len(labels)) if marks is None else marks.sum(axis=0)

    def having(wanted: Sequence[str]) -> Any:
        places = [i for i, label in enumerate(labels) if label in wanted]
        return np.isin(kept.labels, places) if marks is None else marks[:, places].any(axis=1)

    yield from _variants(kept, labels, dict(zip(labels, rows.tolist(), strict=True)), having)
    missing = [label for label in labels if label.casefold() in MISSING]
    options = " ".join(f"--drop-label {shell_word(label)}" for label in missing)
    advice = f"{quoted(missing)}: usually stands for a missing label; if so, leave it out by {options}"
    yield from found_rows(kept, having(missing), "missing_labels", "warning", advice)
    if are_identifiers(labels, len(kept.labels)):
        advice = (
            f"{len(labels):,} different labels in {len(kept.labels):,} rows: the column may be an ID; name the right "
            "one by --label-column"
        )
        yield from _named("id_labels", len(labels), advice)
    elif are_quantities(labels):
        advice = (
            f"{len(labels):,} different numbers, such as {quoted(labels[:3])}: if they are a quantity and not classes, "
            "put them into a few ranges first, such as low, medium, high"
        )
        yield from _named("numeric_labels", len(labels), advice)
    else:
        small = [label for label, count in zip(labels, rows, strict=True) if count < FEWEST_ROWS]
        advice = (
            f"{quoted(small)}: fewer than {FEWEST_ROWS} rows, too few to learn or to evaluate; add rows, merge it with "
            "another class by --rename OLD=NEW, or leave it out by --drop-label NAME"
        )
        yield from found_rows(kept, having(small), "small_classes", "warning", advice, count=len(small))


def blank_check(scans: Mapping[str, Scan]) -> Iterator[Check]:
    """Yields blank: the rows that were left out since their text or label is blank. They have `places` already."""
    first = [(split, *row) for split, scan in scans.items() for row in scan.blank.first][:ROWS_LISTED]
    rows = np.array([row for _, row, _, _ in first], np.int64)
    kinds = sorted({fault for *_, fault in first})
    advice = f"{'; '.join(kinds)}: these rows were left out; fill them in, or remove them"
    count = sum(scan.blank.count for scan in scans.values())
    for check in a_check("blank", "warning", rows, [split for split, *_ in first], advice, count=count):
        yield check | {"places": [place for _, _, place, _ in first]}


def shell_word(label: str) -> str:
    """Returns a label as a shell takes it."""
    import shlex

    return shlex.quote(label)


def _variants(
    kept: KeptRows, labels: Sequence[str], rows: Mapping[str, int], having: Callable[[Sequence[str]], Any]
) -> Iterator[Check]:
    """Yields label_variants, whose rows are those of all but the most frequent way of writing a label."""
    by_key: dict[str, list[str]] = {}
    for label in sorted(labels, key=lambda label: -rows[label]):
        by_key.setdefault(label_key(label), []).append(label)
    several = [names for names in by_key.values() if len(names) > 1]
    listed = "; ".join(" and ".join(f"'{name}' ({rows[name]:,})" for name in names) for names in several[:5])
    advice = f"labels that differ only in case or spaces, {listed}; --merge-label-case makes them one"
    rare = [name for names in several for name in names[1:]]
    yield from found_rows(kept, having(rare), "label_variants", "warning", advice)


def _named(name: str, count: int, advice: str) -> Iterator[Check]:
    yield from a_check(name, "warning", np.zeros(0, np.int64), [], advice, count=count)
