"""The checks that need no tokenizer: what may be wrong with the data, in which rows, and what to do.

Letters: N rows kept, in the order of the sources; K classes; G groups of rows.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertlora.data.checks.kept import KeptRows
from bertlora.data.labels import IMBALANCE_RATIO, quoted
from bertlora.data.source import SPLITS

Check = dict[str, Any]

ROWS_LISTED = 100
SHORT_WORDS = 3
# A text is very long if it has more than 10 times the median of words, and more than 500.
LONG_RATIO = 10
LONG_WORDS = 500
MAIN_LANGUAGE_SHARE = 0.8


def find_checks(kept: KeptRows, labels: Sequence[str]) -> list[Check]:
    """Returns the checks that found something. `labels` are the classes; there are none in a regression.

    Returns:
        Objects with `name`, `severity` (`note`, `warning` or `error`), `count`, `rows` (0-based in the source, the
        first 100), `splits` (the split of each of these rows) and `advice`. `with_places` adds `places`.
    """
    return [
        *_same_texts(kept),
        *_leakage(kept),
        *(_classes(kept, labels) if labels else ()),
        *_lengths(kept),
        *_characters(kept),
        *_language(kept),
    ]


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


def found_rows(
    kept: KeptRows, found: NDArray[np.bool_], name: str, severity: str, advice: str, count: int | None = None
) -> Iterator[Check]:
    """Yields a check of the rows for which `found`, (N,), is true; see `a_check`."""
    rows = np.flatnonzero(found)
    splits = [SPLITS[split] for split in kept.splits[rows[:ROWS_LISTED]]]
    yield from a_check(name, severity, kept.rows[rows], splits, advice, count)


def percent(share: float) -> str:
    """Returns a fraction as people read it: `12.5 %`."""
    return f"{100 * share:.1f} %" if share >= 0.001 or not share else "under 0.1 %"


def _same_texts(kept: KeptRows) -> Iterator[Check]:
    """Yields exact_duplicates, near_duplicates, contained and conflicting_labels."""
    repeats, conflicting = _compared(kept, kept.facts.hashes)
    near, near_conflicting = _compared(kept, kept.groups)
    yield from found_rows(
        kept, repeats, "exact_duplicates", "warning", "the text is equal to an earlier one; keep one of them"
    )
    near &= ~repeats
    others = int((near & near_conflicting).sum())
    yield from found_rows(
        kept,
        near,
        "near_duplicates",
        "note",
        "the text is nearly equal to an earlier one; keep both in one split (--fix does)"
        + (f"; {others:,} of these are near a text with another label: choose one label" if others else ""),
    )
    advice = "the text is part of an earlier one, or contains one; keep both in one split (--fix does)"
    yield from found_rows(kept, _overlapping_earlier(kept) & ~near & ~repeats, "contained", "note", advice)
    advice = "the same text has different labels; choose one"
    yield from found_rows(kept, conflicting, "conflicting_labels", "warning", advice)


def _leakage(kept: KeptRows) -> Iterator[Check]:
    """Yields leakage and shared_groups: what is also in an earlier split."""
    equal, near, overlapping, same_group = np.zeros((4, len(kept.rows)), np.bool_)
    for split in np.unique(kept.splits)[:-1]:
        earlier, later = kept.splits == split, kept.splits > split
        equal |= later & np.isin(kept.facts.hashes, kept.facts.hashes[earlier])
        near |= later & kept.near(earlier)
        overlapping |= later & kept.overlapping(earlier)
        same_group |= later & kept.same_group(earlier)
    counts = [int(found.sum()) for found in (equal, near & ~equal, overlapping & ~near)]
    advice = (
        f"an earlier split has the text ({counts[0]:,} word for word), a near duplicate ({counts[1]:,}), or a text "
        f"that contains it or is part of it ({counts[2]:,}): scores come out too high; remove it from one split (--fix "
        "does)"
    )
    yield from found_rows(kept, near | overlapping, "leakage", "warning", advice)
    advice = "the group is also in an earlier split, so scores come out too high; keep it in one split (--fix does)"
    yield from found_rows(kept, same_group, "shared_groups", "warning", advice)


def _compared(
    kept: KeptRows, numbers: NDArray[np.uint64] | NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns (N,) whether the group has an earlier row, and (N,) whether its labels differ."""
    _, first, group = np.unique(numbers, return_index=True, return_inverse=True)  # (G,), (N,)
    differs = np.zeros(len(first), np.bool_)
    np.logical_or.at(differs, group, kept.labels != kept.labels[first[group]])
    return np.arange(len(group)) != first[group], differs[group]


def _overlapping_earlier(kept: KeptRows) -> NDArray[np.bool_]:
    """Returns (N,) whether a row's text is part of an earlier row's text, or contains one."""
    size = 1 + max(kept.groups.max(initial=-1), kept.contained.max(initial=-1))
    first = np.full(int(size), len(kept.groups))  # of each group
    np.minimum.at(first, kept.groups, np.arange(len(kept.groups)))
    earliest = np.full(int(size), len(kept.groups))  # of the groups that overlap with each group
    np.minimum.at(earliest, kept.contained.ravel(), first[kept.contained[:, ::-1]].ravel())
    return earliest[kept.groups] < np.arange(len(kept.groups))


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
        "unless class_weights and best_metric are set, training weights the classes and chooses by macro F1"
    )
    yield from a_check("imbalance", "warning", no_rows, [], advice, count=len(small))


def _lengths(kept: KeptRows) -> Iterator[Check]:
    """Yields only_punctuation, very_short and very_long."""
    words, empty = kept.facts.words, kept.facts.empty
    advice = "the text has no letter, digit or symbol; remove the row"
    yield from found_rows(kept, empty, "only_punctuation", "warning", advice)
    short = (words < SHORT_WORDS) & ~empty
    yield from found_rows(
        kept, short, "very_short", "note", "fewer than three words; check that people can label these texts"
    )
    limit = max(LONG_WORDS, int(LONG_RATIO * np.median(words)))
    advice = f"more than {limit:,} words, far more than most texts; check whether a row holds several texts"
    yield from found_rows(kept, words > limit, "very_long", "note", advice)


def _characters(kept: KeptRows) -> Iterator[Check]:
    """Yields html and mojibake."""
    advice = "HTML such as <br /> or &amp; in the text costs tokens; remove it, here and wherever the model is used"
    yield from found_rows(kept, kept.facts.html, "html", "warning", advice)
    advice = (
        "wrong encoding (é became Ã© or ?), or control characters; repair the text with ftfy, or read the source "
        "again in its own encoding"
    )
    yield from found_rows(kept, kept.facts.mojibake, "mojibake", "warning", advice)


def _language(kept: KeptRows) -> Iterator[Check]:
    """Yields language: rows whose script or language differs from the others, if at least 4/5 of the rows agree.

    In English data, a row with a foreign part is one of them.
    """
    found = np.zeros(len(kept.rows), np.int16)
    main = []
    for numbers in (kept.facts.languages, kept.facts.scripts):
        counts = np.bincount(numbers, minlength=len(kept.facts.names))
        counts[0] = 0  # unknown
        if counts.sum() and counts.max() >= MAIN_LANGUAGE_SHARE * counts.sum():
            main.append(kept.facts.names[int(counts.argmax())])
            odd = (numbers != 0) & (numbers != counts.argmax())
            found[odd] = numbers[odd]
    in_part = (found == 0) & (kept.facts.parts != 0) & ("en" in main)
    found[in_part] = kept.facts.parts[in_part]
    counts = np.bincount(found, minlength=len(kept.facts.names))
    counts[0] = 0
    listed = [f"{kept.facts.names[i]} {counts[i]:,}" for i in np.argsort(-counts, kind="stable")[:5] if counts[i]]
    listed += [f"{in_part.sum():,} of these only in a part"] if in_part.any() else []
    advice = (
        f"probably not {' or '.join(main)} like the rest ({', '.join(listed)}); check whether these rows belong here"
    )
    yield from found_rows(kept, found != 0, "language", "note", advice)
