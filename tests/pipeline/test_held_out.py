"""Validation rows that are held out: no text on both sides, each class in its share, and nothing asked for is lost."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertlora.errors import DataError, RecipeError
from bertlora.options import SPLIT, split_shares, split_with_validation
from bertlora.pipeline.held_out import check_choosing, check_fraction, rows_held_out
from bertlora.pipeline.prepare import given_data
from bertlora.recipe import Recipe


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2)), min_size=20, max_size=300),
    st.sampled_from([0.1, 0.25, 0.5]),
    st.integers(0, 5),
)
def test_rows_are_parted_and_no_text_is_on_both_sides(rows: list[tuple[int, int]], fraction: float, seed: int) -> None:
    texts = [f"Text  {number}" if i % 2 else f"text {number}" for i, (number, _) in enumerate(rows)]
    labels = [f"class {label}" for _, label in rows]
    recipe = Recipe(validation_fraction=fraction, seed=seed)
    held = rows_held_out(texts, labels, recipe)
    assert held.shape == (len(rows),)
    assert held.sum() == 0 or held.sum() >= 30
    sides = [{" ".join(texts[i].lower().split()) for i in np.flatnonzero(side)} for side in (held, ~held)]
    assert sides[0].isdisjoint(sides[1])
    assert set(np.array(labels)[~held]) == set(labels)
    assert np.array_equal(rows_held_out(texts, labels, recipe), held)


def test_each_class_gives_its_share() -> None:
    labels = np.repeat(["rare", "common"], [100, 900])
    held = rows_held_out([f"text {i}" for i in range(1000)], labels, Recipe())
    assert np.unique(labels[held], return_counts=True)[1].tolist() == [90, 10]
    pairs = np.array([[f"a {i % 7}", f"b {i}"] for i in range(1000)])
    assert rows_held_out(pairs, labels, Recipe()).sum() == 100


def test_few_rows_give_none_unless_asked() -> None:
    texts, labels = [f"text {i}" for i in range(100)], [0, 1] * 50
    assert not rows_held_out(texts, labels, Recipe()).any()
    assert not rows_held_out(texts * 9, labels * 9, Recipe(validation_fraction=0)).any()
    assert rows_held_out(texts, labels, Recipe(), asked=True).sum() == 10
    with pytest.raises(DataError, match=r"validation_fraction: 0\.1 of 4 rows leaves too few; give more"):
        rows_held_out(texts[:4], labels[:4], Recipe(), asked=True)


def test_options_that_need_validation_rows() -> None:
    check_choosing(Recipe(early_stopping_patience=2), (), 30, "")
    check_choosing(Recipe(best_metric="loss"), (), 0, "")  # as in the recipe file of any run
    with pytest.raises(RecipeError, match=r"early_stopping_patience: got 2, which needs validation rows, .*; add some"):
        check_choosing(Recipe(early_stopping_patience=2), (), 0, "add some")
    with pytest.raises(RecipeError, match="best_metric: got loss, which needs validation rows"):
        check_choosing(Recipe(best_metric="loss"), ["best_metric"], 0, "add some")


def test_a_fraction_that_is_not_used() -> None:
    given = ["validation_fraction"]
    check_fraction(Recipe(split="85/0/15"), given, False, 100)
    check_fraction(Recipe(split="85/0/15"), (), False, 0)
    check_fraction(Recipe(validation_fraction=0), given, True, 0)
    for recipe, prepared, rows, expected in (
        (Recipe(), False, 15, r"the data has 15 validation rows by split 70/15/15"),
        (Recipe(split="85/0/15"), False, 0, "holds out 30 rows or more; the data has 0 validation rows"),
        (Recipe(split="85/0/15"), True, 0, "the data is prepared already"),
    ):
        with pytest.raises(RecipeError, match=expected):
            check_fraction(recipe, given, prepared, rows)


def test_the_split_with_a_fraction() -> None:
    assert split_with_validation(SPLIT, 0.1) == "70/15/15"
    assert split_with_validation("90/0/10", 0.0) == "90/0/10"
    assert split_with_validation("90/0/10", 0.1) == "81/9/10"
    for train in (33.3, 66.7, 100):
        shares = split_shares(split_with_validation(f"{train}/0/{100 - train}", 0.3))
        assert shares[1] == pytest.approx(0.3 * train / 100)


@pytest.mark.parametrize(("rows", "expected"), [(400, 34), (200, 0)])
def test_training_holds_out_rows_of_a_split_without_validation(tmp_path: Path, rows: int, expected: int) -> None:
    words = np.random.default_rng(0).choice(["film", "cast", "plot", "score", "scene", "story"], size=(rows, 8))
    lines = [f"{' '.join(line)} {i},{i % 2}" for i, line in enumerate(words.tolist())]
    (tmp_path / "r.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    data = given_data(str(tmp_path / "r.csv"), Recipe(split="85/0/15"), tmp_path / "data")
    assert sum(data.rows.values()) == rows
    assert data.rows.get("validation", 0) == pytest.approx(expected, abs=2)
    assert data.shares == ("76.5/8.5/15" if expected else "85/0/15")
