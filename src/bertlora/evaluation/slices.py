"""Accuracy by slice: rows of one length, with one value of a column, or with one word. Which are worse than the rest?

    slices = [*text_slices(texts, pairs, lengths), *column_slices("source", values)]
    slice_figures(right, slices)["verdict"]   # "Of 34 slices looked at, 1 is significantly worse than the rest: ..."

Slices are chosen by their number of rows, never by their errors. So the correction for their number is honest.

Letters: N rows, S slices.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import hypergeom

from bertlora.confidence.intervals import Right, exact_interval
from bertlora.evaluation.comparison import holm
from bertlora.evaluation.gains import SIGNIFICANCE

Rows = npt.NDArray[np.bool_]

# A slice, and the rest, need this many rows: with fewer, only an extreme error rate would be significant.
FEWEST = 20
VALUES = 20  # of a column, the most frequent
WORDS = 30  # the most frequent below the share
# A word in more rows, such as "the", says little about what a text is about.
WORD_SHARE = 0.2
WORD = re.compile(r"\w+(?:['’-]\w+)*")
NAMED = 3  # slices in a sentence
SLICE_COLUMNS = ["slice", "rows", "accuracy", "95 % CI", "the rest", "p, corrected", "worse"]


@dataclass(frozen=True)
class Slice:
    """Some of the N rows.

    Attributes:
        kind: `length`, `column` or `word`.
        name: what people read: `13 to 18 tokens`, `source = web`, `word 'not'`.
        rows: (N,) which rows are in it.
    """

    kind: str
    name: str
    rows: Rows


def text_slices(texts: Sequence[str], pairs: Sequence[str] | None, lengths: npt.NDArray[np.int64]) -> Iterator[Slice]:
    """Yields the slices by length and by words.

    Args:
        texts: the N texts.
        pairs: the N second texts of pairs; their words count too.
        lengths: (N,) tokens of each text or pair.
    """
    yield from length_slices(lengths)
    yield from word_slices(texts if pairs is None else [f"{a}\n{b}" for a, b in zip(texts, pairs, strict=True)])


def length_slices(lengths: npt.NDArray[np.int64]) -> Iterator[Slice]:
    """Yields the quarters of the rows by length; `lengths` (N,) in tokens. Equal lengths stay together."""
    if not len(lengths):
        return
    edges = np.unique(np.quantile(lengths, [0.25, 0.5, 0.75], method="inverted_cdf")).astype(int)
    quarter = np.searchsorted(edges, lengths)
    names = [f"{low + 1} to {high} tokens" for low, high in pairwise(edges)]
    for i, name in enumerate([f"up to {edges[0]} tokens", *names, f"over {edges[-1]} tokens"]):
        yield Slice("length", name, quarter == i)


def column_slices(column: str, values: Sequence[str]) -> Iterator[Slice]:
    """Yields the 20 most frequent values of a column; `values` has one text per row. A blank value is one too."""
    there = np.array(values, dtype=object)
    for value, _ in sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))[:VALUES]:
        yield Slice("column", f"{column} = {value or '(blank)'}", there == value)


def word_slices(texts: Sequence[str]) -> Iterator[Slice]:
    """Yields the 30 words that are in most rows, among words in at most a fifth of the rows. Case does not count."""
    counts = Counter(word for text in texts for word in _words(text))
    common = [word for word, count in counts.items() if FEWEST <= count <= WORD_SHARE * len(texts)]
    chosen = sorted(common, key=lambda word: (-counts[word], word))[:WORDS]
    has = np.array([[word in words for word in chosen] for words in map(_words, texts)]).reshape(
        len(texts), len(chosen)
    )
    for word, rows in zip(chosen, has.T, strict=True):
        yield Slice("word", f"word '{word}'", rows)


def slice_figures(right: Right, slices: Sequence[Slice]) -> dict[str, Any]:
    """Returns the accuracy of each slice, and which are significantly worse than the rest of the rows.

    The test is Fisher's exact test, one-sided, of the slice against the rest: Fisher 1935, "The logic of inductive
    inference". The correction for the S slices is Holm's, which is also valid for slices that overlap. So if errors
    have nothing to do with the slices, one of them is called worse in at most 5 % of cases.

    Args:
        right: (N,) which rows are right.
        slices: chosen without a look at `right`. Those with fewer than 20 rows, or fewer than 20 others, are left out.

    Returns:
        `looked_at`, the number S; `worse`, how many are significantly worse; `verdict`, a sentence; and `found`, the
        slices, lowest p first. Each has `kind`, `name`, `n`, `accuracy`, `accuracy_ci95` (exact, not corrected),
        `rest_accuracy`, `p`, `p_holm` and `worse`.
    """
    kept = large_enough(slices, len(right))
    members = np.array([one.rows for one in kept], dtype=bool).reshape(len(kept), len(right))
    found = ranked(kept, worse_than_rest(~right, members).tolist(), lambda rows: _figures(right, rows))
    return summary(found, "is significantly worse", "are significantly worse", "Fisher's exact test", _against)


def large_enough(slices: Sequence[Slice], rows: int) -> list[Slice]:
    """Returns the slices that have at least 20 of the N rows, and leave at least 20 others."""
    return [one for one in slices if min(one.rows.sum(), rows - one.rows.sum()) >= FEWEST]


def ranked(
    slices: Sequence[Slice], p_values: Sequence[float], figures: Callable[[Rows], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Returns the slices with their figures, `p`, `p_holm` and `worse`, lowest p first.

    Args:
        slices: the S slices.
        p_values: S, of a one-sided test of each slice against the rest.
        figures: what is said of the rows of a slice.
    """
    found = [
        {"kind": one.kind, "name": one.name, **figures(one.rows), "p": p, "p_holm": corrected}
        for one, p, (corrected, _) in zip(slices, p_values, holm(p_values), strict=True)
    ]
    return [one | {"worse": one["p_holm"] < SIGNIFICANCE} for one in sorted(found, key=lambda one: one["p"])]


def summary(
    found: list[dict[str, Any]], one_is: str, several_are: str, test: str, against: Callable[[dict[str, Any]], str]
) -> dict[str, Any]:
    """Returns `looked_at`, `worse`, `verdict` and `found`; see `slice_figures`.

    Args:
        found: as `ranked` returns it.
        one_is: what is claimed of one slice against the rest.
        several_are: the same of several.
        test: its name.
        against: the figure of a slice and of the rest, in words.
    """
    worse = [one for one in found if one["worse"]]
    if found:
        start = f"Of {len(found)} {'slices' if len(found) > 1 else 'slice'} looked at, {len(worse) or 'none'}"
        claim = f"{several_are if len(worse) > 1 else one_is} than the rest"
        corrected = f"({test}, corrected for their number by Holm's method)"
        named = "; ".join(f"{one['name']}, {against(one)}" for one in worse[:NAMED])
        verdict = f"{start} {claim} {corrected}{': ' if worse else ''}{named}."
    else:
        verdict = f"No slice has {FEWEST} rows or more, so none was looked at."
    return {"looked_at": len(found), "worse": len(worse), "verdict": verdict, "found": found}


def worse_than_rest(wrong: Rows, members: Rows) -> npt.NDArray[np.float64]:
    """Returns p of Fisher's one-sided exact test for each slice, (S,): has it a higher error rate than the rest?

    Args:
        wrong: (N,) which rows are wrong.
        members: (S, N) which rows are in each slice.
    """
    rows, errors = len(wrong), int(wrong.sum())
    return np.asarray(hypergeom.sf(members @ wrong.astype(int) - 1, rows, errors, members.sum(axis=1)))


def slice_rows(found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Returns the cells of a table of slices, under `SLICE_COLUMNS`; `found` is as `slice_figures` returns it."""
    return [
        [
            one["name"],
            f"{one['n']:,}",
            f"{100 * one['accuracy']:.1f} %",
            "{:.1f} to {:.1f}".format(*(100 * end for end in one["accuracy_ci95"])),
            f"{100 * one['rest_accuracy']:.1f} %",
            f"{one['p_holm']:.2g}",
            "yes" if one["worse"] else "no",
        ]
        for one in found
    ]


def _figures(right: Right, rows: Rows) -> dict[str, Any]:
    n, hits = int(rows.sum()), int(right[rows].sum())
    return {
        "n": n,
        "accuracy": hits / n,
        "accuracy_ci95": list(exact_interval(hits, n)),
        "rest_accuracy": float(right[~rows].mean()),
    }


def _against(one: dict[str, Any]) -> str:
    return f"{100 * one['accuracy']:.1f} % against {100 * one['rest_accuracy']:.1f} %"


def _words(text: str) -> set[str]:
    return set(WORD.findall(text.lower()))
