"""The checks that need no tokenizer: what may be wrong with the data, in which rows, and what to do.

Letters: N rows kept, in the order of the sources; K classes; G groups of rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertlora.data.checks.near import near_groups
from bertlora.data.checks.texts import TextFacts
from bertlora.data.labels import quoted
from bertlora.data.source import SPLITS
from bertlora.data.splits import LEFT_OUT, Ids, Splits

Check = dict[str, Any]

ROWS_LISTED = 100
IMBALANCE_RATIO = 4
SHORT_WORDS = 3
# A text is very long if it has more than 10 times the median of words, and more than 500.
LONG_RATIO = 10
LONG_WORDS = 500
MAIN_LANGUAGE_SHARE = 0.8


@dataclass(frozen=True)
class KeptRows:
    """The rows that are kept, as arrays of length N.

    Attributes:
        facts: what is known of their texts.
        groups: int64, the same number for texts that are equal or nearly equal; see `near_groups`.
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

    @classmethod
    def of(cls, ids: Ids, splits: Splits, facts: TextFacts) -> "KeptRows":
        """Returns the rows that have a split, given the labels and splits by source and the facts of the kept texts."""
        kept = {name: np.flatnonzero(split != LEFT_OUT) for name, split in splits.items()}
        return cls(
            facts=facts,
            groups=near_groups(facts.hashes, facts.signatures),
            labels=np.concatenate([ids[name][rows] for name, rows in kept.items()]),
            splits=np.concatenate([splits[name][rows] for name, rows in kept.items()]),
            sources=np.repeat(np.arange(len(kept), dtype=np.int8), [len(rows) for rows in kept.values()]),
            rows=np.concatenate(list(kept.values())),
        )

    def by_source(self, ids: Ids) -> Splits:
        """Returns the split of each row of each source, as `assign_splits` does; `ids` gives names and sizes."""
        splits = {name: np.full(len(found), LEFT_OUT, np.int8) for name, found in ids.items()}
        for number, split in enumerate(splits.values()):
            here = self.sources == number
            split[self.rows[here]] = self.splits[here]
        return splits

    def take(self, rows: NDArray[np.int64], splits: NDArray[np.int8]) -> "KeptRows":
        """Returns these rows, in these splits."""
        arrays = {name: getattr(self, name)[rows] for name in ("groups", "labels", "sources", "rows")}
        return replace(self, **arrays, facts=self.facts.take(rows), splits=splits)


def find_checks(kept: KeptRows, labels: Sequence[str]) -> list[Check]:
    """Returns the checks that found something.

    Returns:
        Objects with `name`, `severity` (`note`, `warning` or `error`), `count`, `rows` (0-based in the source, the
        first 100), `splits` (the split of each of these rows) and `advice`. `with_places` adds `places`.
    """
    return [*_same_texts(kept), *_classes(kept, labels), *_lengths(kept), *_characters(kept), *_language(kept)]


def a_check(
    name: str, severity: str, rows: NDArray[np.int64], splits: Sequence[str], advice: str, count: int | None = None
) -> Iterator[Check]:
    """Yields a check as an object if it found something.

    Args:
        name: the check's name.
        severity: `note`, `warning` or `error`.
        rows: the rows found, 0-based in their source.
        splits: the split of each row.
        advice: what to do.
        count: what was found, if it is not counted in rows.
    """
    count = len(rows) if count is None else count
    if count:
        listed = {"rows": rows[:ROWS_LISTED].tolist(), "splits": list(splits[:ROWS_LISTED])}
        yield {"name": name, "severity": severity, "count": count, **listed, "advice": advice}


def _same_texts(kept: KeptRows) -> Iterator[Check]:
    """Yields exact_duplicates, near_duplicates, leakage and conflicting_labels."""
    repeats, same_split, conflicting = _compared(kept, kept.facts.hashes)
    near, near_split, near_conflicting = _compared(kept, kept.groups)
    yield from _found(
        kept, repeats, "exact_duplicates", "warning", "the text is equal to an earlier one; keep one of them"
    )
    near &= ~repeats
    others = int((near & near_conflicting).sum())
    yield from _found(
        kept,
        near,
        "near_duplicates",
        "note",
        "the text is nearly equal to an earlier one; keep both in one split (--fix does)"
        + (f"; {others:,} of these are near a text with another label: choose one label" if others else ""),
    )
    word_for_word = int((kept.splits > same_split).sum())
    yield from _found(
        kept,
        kept.splits > near_split,
        "leakage",
        "warning",
        f"the text, or a near duplicate, is also in an earlier split ({word_for_word:,} word for word), so scores come "
        "out too high; remove it from one split (--fix does)",
    )
    advice = "the same text has different labels; choose one"
    yield from _found(kept, conflicting, "conflicting_labels", "warning", advice)


def _compared(
    kept: KeptRows, numbers: NDArray[np.uint64] | NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int8], NDArray[np.bool_]]:
    """Returns (N,) whether the group has an earlier row, the group's first split, and whether its labels differ."""
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
    advice = f"{listed}; add rows of this class, or there is no score for it"
    yield from a_check("class_missing", "warning", no_rows, [], advice, count=len(missing))
    in_train = np.bincount(kept.labels[kept.splits == 0], minlength=len(labels))
    small = [label for label, rows in zip(labels, in_train, strict=True) if rows * IMBALANCE_RATIO < in_train.max()]
    advice = (
        f"{quoted(small)}: less than a quarter of the rows of '{labels[int(in_train.argmax())]}' in train; "
        "try class_weights = balanced, and look at macro F1"
    )
    yield from a_check("imbalance", "warning", no_rows, [], advice, count=len(small))


def _lengths(kept: KeptRows) -> Iterator[Check]:
    """Yields blank, very_short and very_long."""
    words, empty = kept.facts.words, kept.facts.empty
    advice = "the text has no letter, digit or symbol; remove the row"
    yield from _found(kept, empty, "blank", "warning", advice)
    short = (words < SHORT_WORDS) & ~empty
    yield from _found(
        kept, short, "very_short", "note", "fewer than three words; check that people can label these texts"
    )
    limit = max(LONG_WORDS, int(LONG_RATIO * np.median(words)))
    advice = f"more than {limit:,} words, far more than most texts; check whether a row holds several texts"
    yield from _found(kept, words > limit, "very_long", "note", advice)


def _characters(kept: KeptRows) -> Iterator[Check]:
    """Yields html and mojibake."""
    advice = "HTML such as <br /> or &amp; in the text costs tokens; remove it, here and wherever the model is used"
    yield from _found(kept, kept.facts.html, "html", "warning", advice)
    advice = "wrong encoding (é became Ã©), or control characters; repair the text, for example with ftfy"
    yield from _found(kept, kept.facts.mojibake, "mojibake", "warning", advice)


def _language(kept: KeptRows) -> Iterator[Check]:
    """Yields language: rows whose script or language differs from the others, if at least 4/5 of the rows agree."""
    found = np.zeros(len(kept.rows), np.int16)
    main = []
    for numbers in (kept.facts.languages, kept.facts.scripts):
        counts = np.bincount(numbers, minlength=len(kept.facts.names))
        counts[0] = 0  # unknown
        if counts.sum() and counts.max() >= MAIN_LANGUAGE_SHARE * counts.sum():
            main.append(kept.facts.names[int(counts.argmax())])
            odd = (numbers != 0) & (numbers != counts.argmax())
            found[odd] = numbers[odd]
    counts = np.bincount(found, minlength=len(kept.facts.names))
    counts[0] = 0
    listed = [f"{kept.facts.names[i]} {counts[i]:,}" for i in np.argsort(-counts, kind="stable")[:5] if counts[i]]
    advice = (
        f"probably not {' or '.join(main)} like the rest ({', '.join(listed)}); check whether these rows belong here"
    )
    yield from _found(kept, found != 0, "language", "note", advice)


def _found(kept: KeptRows, found: NDArray[np.bool_], name: str, severity: str, advice: str) -> Iterator[Check]:
    rows = np.flatnonzero(found)
    splits = [SPLITS[split] for split in kept.splits[rows[:ROWS_LISTED]]]
    yield from a_check(name, severity, kept.rows[rows], splits, advice)
