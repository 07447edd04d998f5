"""Checks of the data before anything is learned: what is odd, which rows, and what to do about it.

Letters: N rows kept, in the order of the sources; K classes; G groups of rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertlora.data.checks.texts import TextFacts
from bertlora.data.labels import quoted
from bertlora.data.source import SPLITS

Check = dict[str, Any]

ROWS_LISTED = 100
IMBALANCE_RATIO = 4
SHORT_WORDS = 3
# A text is very long beside the others of its data: 10 times the median, and 500 words at least.
LONG_RATIO = 10
LONG_WORDS = 500
MAIN_LANGUAGE_SHARE = 0.8


@dataclass(frozen=True)
class KeptRows:
    """The rows that are kept, as arrays of length N.

    Attributes:
        facts: what is known of their texts.
        groups: int64, equal for texts that are equal or near; see `near_groups`.
        labels: int32, index of the label.
        splits: int8, index in train, validation, test.
        sources: int8, number of the source.
        rows: int64, the row in its source, from 0.
    """

    facts: TextFacts
    groups: NDArray[np.int64]
    labels: NDArray[np.int32]
    splits: NDArray[np.int8]
    sources: NDArray[np.int8]
    rows: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64], splits: NDArray[np.int8]) -> "KeptRows":
        """Returns these rows, in these splits."""
        arrays = {name: getattr(self, name)[rows] for name in ("groups", "labels", "sources", "rows")}
        return replace(self, **arrays, facts=self.facts.take(rows), splits=splits)


def find_checks(kept: KeptRows, labels: Sequence[str]) -> list[Check]:
    """Runs every check that needs no tokenizer and returns those that found something.

    Returns:
        Objects with `name`, `severity` (`note`, `warning` or `error`), `count`, `rows` (0-based in the source, the
        first 100), `splits` (the split of each of these rows) and `advice`.
    """
    return [*_same_texts(kept), *_classes(kept, labels), *_lengths(kept), *_characters(kept), *_language(kept)]


def a_check(
    name: str, severity: str, rows: NDArray[np.int64], splits: Sequence[str], advice: str, count: int | None = None
) -> Iterator[Check]:
    """Yields a check as an object, if it found anything.

    Args:
        name: its name.
        severity: `note`, `warning` or `error`.
        rows: the rows found, 0-based in their source.
        splits: the split of each.
        advice: what to do.
        count: where rows are not what is counted.
    """
    count = len(rows) if count is None else count
    if count:
        listed = {"rows": rows[:ROWS_LISTED].tolist(), "splits": list(splits[:ROWS_LISTED])}
        yield {"name": name, "severity": severity, "count": count, **listed, "advice": advice}


def _same_texts(kept: KeptRows) -> Iterator[Check]:
    """Yields exact_duplicates, near_duplicates, leakage and conflicting_labels."""
    repeats, same_split, conflicting = _compared(kept, kept.facts.hashes)
    near, near_split, near_conflicting = _compared(kept, kept.groups)
    yield from _found(kept, repeats, "exact_duplicates", "warning", "the same text stood in an earlier row; keep one")
    near &= ~repeats
    others = int((near & near_conflicting).sum())
    yield from _found(
        kept,
        near,
        "near_duplicates",
        "note",
        "the text is nearly an earlier one; see that such stay in one split (--fix does)"
        + (f"; {others:,} of these are near a text with another label: decide on one" if others else ""),
    )
    word_for_word = int((kept.splits > same_split).sum())
    yield from _found(
        kept,
        kept.splits > near_split,
        "leakage",
        "warning",
        f"the text, or one near it, is also in an earlier split ({word_for_word:,} word for word), which flatters the "
        "score; remove it from one (--fix does)",
    )
    advice = "the same text carries different labels; decide on one"
    yield from _found(kept, conflicting, "conflicting_labels", "warning", advice)


def _compared(
    kept: KeptRows, numbers: NDArray[np.uint64] | NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int8], NDArray[np.bool_]]:
    """Returns for each row whether its group has an earlier row, its group's first split, and whether labels differ."""
    _, first, group = np.unique(numbers, return_index=True, return_inverse=True)  # (G,), (N,)
    first_split = np.full(len(first), len(SPLITS), np.int8)
    np.minimum.at(first_split, group, kept.splits)
    differs = np.zeros(len(first), np.bool_)
    np.logical_or.at(differs, group, kept.labels != kept.labels[first[group]])
    return np.arange(len(group)) != first[group], first_split[group], differs[group]


def _classes(kept: KeptRows, labels: Sequence[str]) -> Iterator[Check]:
    """Yields class_missing, counted in pairs of class and split, and imbalance, counted in small classes."""
    no_rows = np.zeros(0, np.int64)
    missing = []
    for split in np.unique(kept.splits):
        present = np.bincount(kept.labels[kept.splits == split], minlength=len(labels)) > 0
        missing += [(SPLITS[split], label) for label, there in zip(labels, present, strict=True) if not there]
    listed = "; ".join(f"{split} has no '{label}'" for split, label in missing[:10])
    advice = f"{listed}; add rows of it, or its score there is unknown"
    yield from a_check("class_missing", "warning", no_rows, [], advice, count=len(missing))
    in_train = np.bincount(kept.labels[kept.splits == 0], minlength=len(labels))
    small = [label for label, rows in zip(labels, in_train, strict=True) if rows * IMBALANCE_RATIO < in_train.max()]
    advice = (
        f"{quoted(small)}: less than a quarter of the rows of '{labels[int(in_train.argmax())]}' in train; "
        "try class_weights = balanced, and judge by macro F1"
    )
    yield from a_check("imbalance", "warning", no_rows, [], advice, count=len(small))


def _lengths(kept: KeptRows) -> Iterator[Check]:
    """Yields blank, very_short and very_long."""
    words, empty = kept.facts.words, kept.facts.empty
    advice = "no letter, digit or symbol in it; leave the row out"
    yield from _found(kept, empty, "blank", "warning", advice)
    short = (words < SHORT_WORDS) & ~empty
    yield from _found(kept, short, "very_short", "note", "fewer than three words; see whether these can be judged")
    limit = max(LONG_WORDS, int(LONG_RATIO * np.median(words)))
    advice = f"more than {limit:,} words, far more than most; see whether several texts stand in one row"
    yield from _found(kept, words > limit, "very_long", "note", advice)


def _characters(kept: KeptRows) -> Iterator[Check]:
    """Yields html and mojibake."""
    advice = "HTML such as <br /> or &amp; in the text, which costs tokens; strip it, here and where the model is used"
    yield from _found(kept, kept.facts.html, "html", "warning", advice)
    advice = "decoded by the wrong encoding, such as é as Ã©, or by control characters; repair it, for one by ftfy"
    yield from _found(kept, kept.facts.mojibake, "mojibake", "warning", advice)


def _language(kept: KeptRows) -> Iterator[Check]:
    """Yields language: rows that are not in the script, or not in the language, of at least four fifths of the rows."""
    found = np.zeros(len(kept.rows), np.int16)
    main = []
    for numbers in (kept.facts.languages, kept.facts.scripts):
        counts = np.bincount(numbers, minlength=len(kept.facts.names))
        counts[0] = 0  # where it cannot be told
        if counts.sum() and counts.max() >= MAIN_LANGUAGE_SHARE * counts.sum():
            main.append(kept.facts.names[int(counts.argmax())])
            odd = (numbers != 0) & (numbers != counts.argmax())
            found[odd] = numbers[odd]
    counts = np.bincount(found, minlength=len(kept.facts.names))
    counts[0] = 0
    listed = [f"{kept.facts.names[i]} {counts[i]:,}" for i in np.argsort(-counts, kind="stable")[:5] if counts[i]]
    advice = f"not {' or '.join(main)} as the rest, it seems ({', '.join(listed)}); see whether these belong here"
    yield from _found(kept, found != 0, "language", "note", advice)


def _found(kept: KeptRows, found: NDArray[np.bool_], name: str, severity: str, advice: str) -> Iterator[Check]:
    rows = np.flatnonzero(found)
    splits = [SPLITS[split] for split in kept.splits[rows[:ROWS_LISTED]]]
    yield from a_check(name, severity, kept.rows[rows], splits, advice)
