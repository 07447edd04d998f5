"""What `--fix` drops and moves: no group of like texts in two splits, no text twice, sizes as exact as can be."""

import random
from pathlib import Path

import numpy as np
import pytest
from command_line import good
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import Row, fresh_texts, nearly, rows_of, write_rows

from bertlora.data.checks.near import shingles
from bertlora.data.prepared import Prepared, prepare
from bertlora.data.splits import part_totals, stratified_split
from bertlora.data.words import words_of
from bertlora.errors import DataError

SHARES = st.sampled_from([(0.7, 0.15, 0.15), (0.8, 0.2, 0.0), (0.34, 0.33, 0.33), (0.9, 0.05, 0.05)])


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 15)), min_size=1, max_size=60),
    singles=st.integers(60, 120),
    shares=SHARES,
    seed=st.integers(0, 3),
)
def test_groups_stay_whole_and_totals_exact(
    rows: list[tuple[int, int]], singles: int, shares: tuple[float, float, float], seed: int
) -> None:
    groups = np.array([group for _, group in rows] + list(range(100, 100 + singles)))
    labels = np.array([label for label, _ in rows] + [i % 4 for i in range(singles)], np.int32)
    parts = stratified_split(labels, shares, seed, groups)
    for group in np.unique(groups):
        assert len(set(parts[groups == group])) == 1
    # A group may be too large for the smallest parts; where no group is, singles make the totals exact.
    if np.bincount(groups).max() <= min(total for total in part_totals(len(labels), shares) if total):
        assert np.bincount(parts, minlength=3).tolist() == part_totals(len(labels), shares)
    assert np.array_equal(parts, stratified_split(labels, shares, seed, groups))


def test_groups_of_one_row_change_nothing() -> None:
    labels = np.array([0, 1, 1, 2] * 30, np.int32)
    alone = stratified_split(labels, (0.7, 0.15, 0.15), 5)
    assert np.array_equal(alone, stratified_split(labels, (0.7, 0.15, 0.15), 5, np.arange(120)))


def test_groups_keep_each_class_near_its_share() -> None:
    random_numbers = np.random.default_rng(0)
    labels = (random_numbers.random(3000) < 0.3).astype(np.int32)
    parts = stratified_split(labels, (0.7, 0.15, 0.15), 1, random_numbers.integers(0, 2500, 3000))
    assert np.bincount(parts).tolist() == [2100, 450, 450]
    for part in range(3):
        assert abs(labels[parts == part].mean() - labels.mean()) < 0.005


def test_groups_larger_than_a_part_go_where_there_is_most_room() -> None:
    groups = np.array([0] * 50 + list(range(1, 51)))
    parts = stratified_split(np.zeros(100, np.int32), (0.7, 0.15, 0.15), 0, groups)
    assert set(parts[:50]) == {0}
    assert np.bincount(parts).tolist() == [70, 15, 15]
    whole = stratified_split(np.zeros(10, np.int32), (0.5, 0.5, 0.0), 0, np.zeros(10, np.int64))
    assert np.bincount(whole).tolist() == [10]


def texts_by_split(data: Prepared) -> dict[str, list[str]]:
    return {split: data.split(split).texts for split in data.rows}


def near_pairs_across(data: Prepared) -> int:
    """How many pairs of texts in two splits overlap by 0.85 and more, by comparing every pair exactly."""
    sets = [(split, set(shingles(words_of(text)))) for split, texts in texts_by_split(data).items() for text in texts]
    return sum(
        split != other and len(one & two) >= 0.85 * len(one | two)
        for i, (split, one) in enumerate(sets)
        for other, two in sets[:i]
    )


@pytest.mark.parametrize("seed", range(4))
def test_no_group_of_like_texts_spans_two_splits(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    texts = fresh_texts(150, seed)
    for _ in range(40):
        chosen = draw.choice(texts)
        texts.append(draw.choice([chosen, nearly(chosen, draw.randrange(100)), chosen.upper()]))
    draw.shuffle(texts)
    # Equal texts have equal labels here, near ones may not.
    rows = [(text, "pos" if len(text) % 2 else "neg") for text in texts]
    source = write_rows(tmp_path / "r.jsonl", rows)
    plain = prepare([source], tmp_path / "plain", seed=seed)
    assert near_pairs_across(plain) > 0, "the test is void"
    fixed = prepare([source], tmp_path / "fixed", seed=seed, fix=True)
    assert near_pairs_across(fixed) == 0
    everything = [text for texts in texts_by_split(fixed).values() for text in texts]
    assert sorted(everything) == sorted(set(texts))
    assert list(fixed.rows.values()) == part_totals(len(everything), (0.7, 0.15, 0.15))
    assert not {"exact_duplicates", "leakage"} & {check["name"] for check in fixed.checks}
    dropped = len(texts) - len(set(texts))
    assert any(note.startswith(f"removed {dropped} rows: equal to an earlier row") for note in fixed.notes)
    assert any(note.startswith("split again, ") for note in fixed.notes)
    again = prepare([source], tmp_path / "again", seed=seed, fix=True)
    assert again.fingerprint == fixed.fingerprint


def test_first_is_kept_and_conflicting_texts_go_whole(tmp_path: Path) -> None:
    rows = rows_of(fresh_texts(60, seed=1))
    rows[10], rows[20], rows[31] = rows[4], rows[4], (rows[6][0], "pos")
    data = prepare([write_rows(tmp_path / "r.jsonl", rows)], tmp_path / "out", fix=True)
    kept = sorted(row for split in data.rows for row in data.split(split).rows.tolist())
    assert kept == [row for row in range(60) if row not in (6, 10, 20, 31)]
    assert data.notes[:2] == [
        "removed 2 rows: equal texts with different labels (r.jsonl lines 7, 32)",
        "removed 2 rows: equal to an earlier row (r.jsonl lines 11, 21)",
    ]
    assert data.rows == {"train": 39, "validation": 9, "test": 8}  # 56 rows by largest remainder
    assert data.checks == []
    for split in data.rows:
        found = data.split(split)
        assert [(text, data.labels[label]) for text, label in zip(found.texts, found.labels, strict=True)] == [
            rows[row] for row in found.rows
        ]


def named(tmp_path: Path, **splits: list[Row]) -> list[str]:
    return [f"{name}={write_rows(tmp_path / f'{name}.jsonl', rows)}" for name, rows in splits.items()]


def test_named_splits_lose_what_leaks_into_a_later_one(tmp_path: Path) -> None:
    texts = fresh_texts(80, seed=2)
    train, validation, test = rows_of(texts[:50]), rows_of(texts[50:65]), rows_of(texts[65:])
    train[3] = test[4]
    train[8] = (nearly(validation[2][0]), "neg")
    train[9] = (test[5][0], "neg" if test[5][1] == "pos" else "pos")
    validation[7] = (nearly(test[1][0]), "pos")
    train[30] = train[12]
    specs = named(tmp_path, train=train, validation=validation, test=test)
    data = prepare(specs, tmp_path / "out", fix=True)
    assert data.rows == {"train": 46, "validation": 14, "test": 15}
    assert set(range(50)) - set(data.split("train").rows.tolist()) == {3, 8, 9, 30}
    assert 7 not in data.split("validation").rows
    assert data.notes == [
        "removed 1 row: equal to an earlier row (train.jsonl line 31)",
        "removed 3 rows of train: equal or nearly equal to a text of a later split (train.jsonl lines 4, 9, 10)",
        "removed 1 row of validation: equal or nearly equal to a text of a later split (validation.jsonl line 8)",
    ]
    assert data.checks == []


def test_a_split_that_becomes_empty_is_not_written(tmp_path: Path) -> None:
    train, test = rows_of(fresh_texts(20, seed=9)), rows_of(fresh_texts(10, seed=10))
    data = prepare(named(tmp_path, train=train, validation=test[:4], test=test), tmp_path / "out", fix=True)
    assert data.rows == {"train": 20, "test": 10}
    assert not data.path("validation").exists()


def test_a_validation_split_cut_from_train_is_cut_again(tmp_path: Path) -> None:
    texts = fresh_texts(100, seed=3)
    train = rows_of([*texts[:60], *(nearly(text, i) for i, text in enumerate(texts[:30]))])
    test = rows_of([*texts[90:], nearly(texts[40])])
    specs = named(tmp_path, train=train, test=test)
    assert near_pairs_across(prepare(specs, tmp_path / "plain")) > 1
    data = prepare(specs, tmp_path / "fixed", fix=True)
    assert near_pairs_across(data) == 0
    # One row of train is near one of test; the other 89 are cut as 70 to 15.
    assert data.rows == {"train": 73, "validation": 16, "test": 11}


def test_clean_data_stay_as_they_are(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "r.jsonl", rows_of(fresh_texts(60, seed=4)))
    plain, fixed = prepare([source], tmp_path / "a"), prepare([source], tmp_path / "b", fix=True)
    assert fixed.fingerprint == plain.fingerprint
    assert fixed.notes == []


def test_a_fix_that_leaves_nothing_to_learn_from_is_an_error(tmp_path: Path) -> None:
    texts = fresh_texts(10, seed=5)
    rows = [*rows_of(texts), *((text, "other") for text in texts)]
    source = write_rows(tmp_path / "r.jsonl", rows)
    with pytest.raises(DataError, match="0 rows for 3 classes are left to train on"):
        prepare([source], tmp_path / "out", fix=True)
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]


def test_sample_and_pairs_are_fixed_too(tmp_path: Path) -> None:
    first, second = fresh_texts(60, seed=6), fresh_texts(60, seed=7)
    lines = [f"{a},{b},{'yes' if i % 2 else 'no'}" for i, (a, b) in enumerate(zip(first, second, strict=True))]
    lines += lines[:20]
    (tmp_path / "r.csv").write_text("premise,hypothesis,label\n" + "\n".join(lines) + "\n")
    data = prepare([str(tmp_path / "r.csv")], tmp_path / "out", sample=70, fix=True)
    texts = [text for texts in texts_by_split(data).values() for text in texts]
    assert len(texts) == len(set(texts)) == sum(data.rows.values()) < 70


def test_fix_on_the_command_line_satisfies_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(fresh_texts(60, seed=8))
    rows += [rows[3], rows[5], (nearly(rows[7][0]), rows[7][1])]
    source = write_rows(tmp_path / "r.jsonl", rows)
    said = good(capsys, "prepare", source, "--out", tmp_path / "out", "--fix", "--strict")
    assert "note: removed 2 rows: equal to an earlier row (r.jsonl lines 61, 62)" in said.out
    assert "near_duplicates" in said.out
    assert Prepared.load(tmp_path / "out").rows == {"train": 43, "validation": 9, "test": 9}  # 61 rows
