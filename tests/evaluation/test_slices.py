"""Slices: who is in them, and the test against the rest."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from promises.slices import drawn_texts, slices_of
from scipy.stats import fisher_exact

from bertlora.confidence.intervals import exact_interval
from bertlora.evaluation.slices import (
    FEWEST,
    SLICE_COLUMNS,
    Slice,
    column_slices,
    length_slices,
    slice_figures,
    slice_rows,
    text_slices,
    word_slices,
    worse_than_rest,
)

# Who is in a slice


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200))
def test_quarters_by_length_contain_every_row_once(lengths: list[int]) -> None:
    slices = list(length_slices(np.array(lengths)))
    assert (np.sum([one.rows for one in slices], axis=0) == 1).all()
    for one in slices:
        inside = np.array(lengths)[one.rows]
        ends = [int(word) for word in one.name.split() if word.isdigit()]
        low, high = (ends[0] + 1, 60) if one.name.startswith("over") else (ends[0] if len(ends) == 2 else 0, ends[-1])
        assert ((low <= inside) & (inside <= high)).all()


def test_quarters_of_different_lengths_are_equal() -> None:
    assert [one.rows.sum() for one in length_slices(np.arange(1, 101))] == [25] * 4
    assert [one.name for one in length_slices(np.arange(1, 101))] == [
        "up to 25 tokens",
        "26 to 50 tokens",
        "51 to 75 tokens",
        "over 75 tokens",
    ]


def test_values_of_a_column_are_slices() -> None:
    values = ["web"] * 40 + ["mail"] * 30 + [""] * 25 + [str(i) for i in range(30)]
    slices = {one.name: one.rows.sum() for one in column_slices("source", values)}
    assert list(slices)[:3] == ["source = web", "source = mail", "source = (blank)"]
    assert list(slices.values())[:3] == [40, 30, 25]
    assert len(slices) == 20


def test_words_are_chosen_by_their_number_of_rows() -> None:
    texts = [f"The film, number {i}" + " NOT good" * (i % 10 == 0) + " well-made" * (i % 11 == 0) for i in range(400)]
    found = {one.name: one.rows for one in word_slices(texts)}
    # "the" and "film" are in all rows, each number in one; no more than a fifth and no fewer than 20 count.
    assert list(found) == ["word 'good'", "word 'not'", "word 'well-made'"]
    assert np.array_equal(found["word 'not'"], np.arange(400) % 10 == 0)
    both = list(text_slices(["a text"] * 400, texts, np.full(400, 3)))
    assert {"word 'not'", "word 'well-made'"} < {one.name for one in both}


# The test


@given(st.integers(0, 2**32 - 1), st.integers(2, 80))
def test_p_is_fishers_exact_test(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    wrong, members = rng.random(rows) < 0.3, rng.random((5, rows)) < 0.4
    for p, inside in zip(worse_than_rest(wrong, members), members, strict=True):
        table = [[np.sum(part & w) for w in (wrong, ~wrong)] for part in (inside, ~inside)]
        assert p == pytest.approx(fisher_exact(table, alternative="greater").pvalue, abs=1e-9)


def test_without_the_correction_most_draws_would_have_a_worse_slice() -> None:
    """With it one in twenty has, which `test_promises.py` counts."""
    rng, slices = np.random.default_rng(0), slices_of(300)
    members = np.array([one.rows for one in slices if FEWEST <= one.rows.sum() <= 300 - FEWEST])
    assert len(members) > 20
    wrong = rng.random((100, 300)) > 0.8
    lowest = np.array([worse_than_rest(row, members).min() for row in wrong])
    assert np.mean(lowest < 0.05) > 0.25
    claimed = [slice_figures(~row, slices)["worse"] > 0 for row in wrong]
    assert claimed == (lowest * len(members) < 0.05).tolist()


def test_a_slice_with_more_errors_is_found_and_comes_first() -> None:
    rng = np.random.default_rng(1)
    drawn = drawn_texts(rng, 1500)
    source = rng.choice(["web", "mail", "book"], size=1500)
    right = rng.random(1500) < np.where(source == "mail", 0.7, 0.9)
    slices = [*text_slices(*drawn), *column_slices("source", source.tolist())]
    found = slice_figures(right, slices)
    first = found["found"][0]
    assert first["name"] == "source = mail"
    assert first["worse"]
    inside = source == "mail"
    assert first["n"] == inside.sum()
    assert first["accuracy"] == right[inside].mean()
    assert first["rest_accuracy"] == pytest.approx(right[~inside].mean())
    assert first["accuracy_ci95"] == pytest.approx(exact_interval(int(right[inside].sum()), int(inside.sum())))
    assert [one["p"] for one in found["found"]] == sorted(one["p"] for one in found["found"])
    assert found["looked_at"] == len(found["found"]) == len([one for one in slices if one.rows.sum() >= FEWEST])
    assert found["worse"] == 1
    assert found["verdict"] == (
        f"Of {found['looked_at']} slices looked at, 1 is significantly worse than the rest (Fisher's exact test, "
        f"corrected for their number by Holm's method): source = mail, {100 * first['accuracy']:.1f} % against "
        f"{100 * first['rest_accuracy']:.1f} %."
    )
    assert json.loads(json.dumps(found)) == found
    assert len(slice_rows(found["found"])[0]) == len(SLICE_COLUMNS)


def test_rows_that_cannot_be_sliced() -> None:
    few = slice_figures(np.full(30, True), list(text_slices(["a text"] * 30, None, np.arange(30))))
    assert (few["looked_at"], few["worse"], few["found"]) == (0, 0, [])
    assert few["verdict"] == "No slice has 20 rows or more, so none was looked at."
    assert slice_figures(np.zeros(0, dtype=bool), list(text_slices([], None, np.zeros(0, dtype=int))))["looked_at"] == 0
    perfect = slice_figures(np.full(100, True), [Slice("column", "half", np.arange(100) < 50)])
    assert perfect["found"][0]["p"] == 1
    assert "Of 1 slice looked at, none is significantly worse than the rest" in perfect["verdict"]
