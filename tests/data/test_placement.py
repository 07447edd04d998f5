"""Splits by group, by time, and as a column says: what is promised of every row, and errors that name the place."""

import csv
import datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from command_line import answer, good
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import fresh_texts, nearly, phrase

from bertlora.data.assignment import split_by_time
from bertlora.data.columns import Columns
from bertlora.data.placement import PlacementReader
from bertlora.data.prepared import Prepared, check_sources, prepare
from bertlora.data.splits import part_totals
from bertlora.errors import DataError, InputError

Capsys = pytest.CaptureFixture[str]


def table(path: Path, values: list[Any], name: str = "by", texts: list[str] | None = None) -> str:
    """Writes rows of fresh texts, with the labels neg and pos by turns, and a column of values."""
    texts = texts or fresh_texts(len(values), seed=len(path.name))
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label", name])
        rows.writerows(
            [text, ("neg", "pos")[i % 2], value] for i, (text, value) in enumerate(zip(texts, values, strict=True))
        )
    return str(path)


def rows_of(data: Prepared) -> dict[str, list[int]]:
    return {split: data.split(split).rows.tolist() for split in data.rows}


def names(data: Prepared) -> set[str]:
    return {check["name"] for check in data.checks}


def error_of(tmp_path: Path, *specs: str, **options: Any) -> str:
    out = tmp_path / "out"
    with pytest.raises(InputError) as caught:
        prepare(specs, out, **options)
    assert not out.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("fix", "seed"), [(False, 0), (True, 1)])
def test_a_group_stays_in_one_split(tmp_path: Path, fix: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    authors = [f" author {a} " if a % 9 else " " for a in random.integers(0, 120, 400)]
    texts = fresh_texts(400, seed=seed)
    for row in range(0, 40, 2):  # near copies by other authors
        texts[row] = nearly(texts[row + 1])
    source = table(tmp_path / "r.csv", authors, "author", texts)
    data = prepare([source], tmp_path / "out", group_column="author", seed=seed, fix=fix)
    assert sum(data.rows.values()) == 400
    assert all(
        abs(n - total) <= 4 for n, total in zip(data.rows.values(), part_totals(400, (0.7, 0.15, 0.15)), strict=True)
    )
    where = {row: split for split, rows in rows_of(data).items() for row in rows}
    splits = {}
    for row, author in enumerate(authors):
        if author.strip():
            assert splits.setdefault(author, where[row]) == where[row]
    assert len({where[row] for row, author in enumerate(authors) if not author.strip()}) == 3, "a blank is no group"
    assert ("leakage" in names(data)) != fix
    for split in data.rows:
        found = data.split(split)
        assert found.groups is not None
        same = found.groups[:, None] == found.groups
        given = np.array([authors[row].strip() or f"blank {row}" for row in found.rows])
        assert np.array_equal(same, given[:, None] == given)
    assert data.columns == {"text": "text", "text_pair": None, "label": "label", "group": "author"}


def test_groups_in_two_named_splits_are_reported_and_fixed(tmp_path: Path) -> None:
    train = table(tmp_path / "train.csv", ["a", "b", "", "c"] * 10, "author")
    test = table(tmp_path / "test.csv", ["d", "c", "", "e"] * 5, "author")
    specs = [f"train={train}", f"test={test}"]
    data = prepare(specs, tmp_path / "a", group_column="author", split="100/0/0")
    (check,) = data.checks
    assert (check["name"], check["severity"], check["rows"]) == ("shared_groups", "warning", [1, 5, 9, 13, 17])
    data = prepare(specs, tmp_path / "b", group_column="author", split="100/0/0", fix=True)
    assert (data.rows, data.checks) == ({"train": 30, "test": 20}, [])
    assert data.notes[0].startswith(
        "removed 10 rows of train: of a group that a later split has too (train.csv lines 5,"
    )


def test_too_few_groups_or_times_are_an_error(tmp_path: Path) -> None:
    source = table(tmp_path / "r.csv", ["a", "a", "b", "b"] * 5)
    assert error_of(tmp_path, source, group_column="by") == (
        "r.csv: no row is left for test, because the rows of one group stay together and there are 2 groups; "
        "give other shares by split"
    )
    assert prepare([source], tmp_path / "two", group_column="by", split="50/50/0").rows == {
        "train": 10,
        "validation": 10,
    }
    source = table(tmp_path / "t.csv", ["2023", "2023", "2024", "2024"] * 5)
    message = "t.csv: no row is left for test, because the rows of one time stay together and there are 2 times"
    assert message in error_of(tmp_path, source, time_column="by")


@settings(max_examples=200, deadline=None)
@given(
    times=st.lists(st.integers(0, 30), min_size=1, max_size=80),
    shares=st.sampled_from([(0.7, 0.15, 0.15), (0.8, 0.2, 0.0), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0)]),
)
def test_every_part_is_later_than_the_parts_before(times: list[int], shares: tuple[float, float, float]) -> None:
    numbers = np.array(times, float)
    parts = split_by_time(numbers, shares)
    for earlier in range(2):
        before, after = numbers[parts == earlier], numbers[parts > earlier]
        assert not len(before) or not len(after) or before.max() < after.min()
    assert not any(np.any(parts == part) for part in range(3) if shares[part] == 0)
    if len(set(times)) == len(times):
        assert np.bincount(parts, minlength=3).tolist() == part_totals(len(times), shares)


def day(number: int) -> datetime.date:
    return datetime.date(2020, 1, 1) + datetime.timedelta(days=number)


@pytest.mark.parametrize(
    "written",
    [
        str,
        lambda n: f"{n / 7:.5f}",
        lambda n: day(n).isoformat(),
        lambda n: f"{day(n)}T23:00:00+0{n % 5}:00",
        lambda n: f"{2000 + n // 12}-{1 + n % 12:02d}",
    ],
)
def test_training_is_on_the_past(tmp_path: Path, written: Any) -> None:
    numbers = np.random.default_rng(0).permutation(200)
    source = table(tmp_path / "r.csv", [written(int(n)) for n in numbers], "when")
    data = prepare([source], tmp_path / "out", time_column="when")
    assert data.rows == {"train": 140, "validation": 30, "test": 30}
    found = {split: sorted(numbers[rows].tolist()) for split, rows in rows_of(data).items()}
    assert found == {"train": [*range(140)], "validation": [*range(140, 170)], "test": [*range(170, 200)]}


def test_fix_keeps_the_order_of_time(tmp_path: Path) -> None:
    texts = fresh_texts(100, seed=1)
    texts[3], texts[5] = nearly(texts[99]), texts[80]  # train is near and equal to later texts
    source = table(tmp_path / "r.csv", [*range(100)], "when", texts)
    data = prepare([source], tmp_path / "out", time_column="when", fix=True)
    assert rows_of(data) == {
        "train": [row for row in range(70) if row not in (3, 5)],
        "validation": [*range(70, 85)],
        "test": [*range(85, 100)],
    }
    assert data.checks == []


def test_validation_is_cut_from_the_end_of_a_named_train_split(tmp_path: Path) -> None:
    train = table(tmp_path / "train.csv", [*range(100)], "when")
    test = table(tmp_path / "test.csv", [*range(10)], "when")
    data = prepare([f"train={train}", f"test={test}"], tmp_path / "out", time_column="when", split="80/20/0")
    assert rows_of(data) == {"train": [*range(80)], "validation": [*range(80, 100)], "test": [*range(10)]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, "soon"], "r.csv line 3: 'by' holds 'soon', expected a date such as 2024-05-31 or 2024-05-31T18:30:00Z"),
        ([1, ""], "r.csv line 3: 'by' is blank, expected a date such as"),
        (["2024-05-31", "nan"], "r.csv line 3: 'by' holds 'nan', expected a date"),
        ([1, "31.05.2024"], "r.csv line 3: 'by' holds '31.05.2024', expected a date"),
        (["2024-05-31", 2024], "r.csv line 3: 'by' holds the number '2024', but r.csv line 2 has a date; use one kind"),
        ([2024, "2024-05-31"], "r.csv line 3: 'by' holds the date '2024-05-31', but r.csv line 2 has a number"),
    ],
)
def test_a_time_that_cannot_be_read(tmp_path: Path, values: list[Any], message: str) -> None:
    source = table(tmp_path / "r.csv", [*values, 5, 6])
    assert message in error_of(tmp_path, source, time_column="by")


def test_a_column_names_the_split(tmp_path: Path) -> None:
    values = ["train"] * 20 + [" Valid ", "dev", "val", "validation"] + ["TEST"] * 6
    source = table(tmp_path / "r.csv", values)
    data = prepare([source], tmp_path / "out", split_column="by")
    assert rows_of(data) == {"train": [*range(20)], "validation": [*range(20, 24)], "test": [*range(24, 30)]}
    without = table(tmp_path / "w.csv", ["train"] * 20 + ["test"] * 5)
    data = prepare([without], tmp_path / "cut", split_column="by", split="80/20/0")
    assert data.rows == {"train": 16, "validation": 4, "test": 5}
    assert rows_of(data)["test"] == [*range(20, 25)]


def test_splits_of_a_column_are_fixed_like_named_ones(tmp_path: Path) -> None:
    texts = fresh_texts(30, seed=2)
    texts[3], texts[4], texts[6] = texts[25], phrase(texts[26], 8, Random(0)), texts[8]
    source = table(tmp_path / "r.csv", ["train"] * 20 + ["test"] * 10, texts=texts)
    data = prepare([source], tmp_path / "out", split_column="by", split="100/0/0", fix=True)
    assert rows_of(data) == {"train": [row for row in range(20) if row not in (3, 4, 8)], "test": [*range(20, 30)]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ["train", "tset"],
            "r.csv line 3: 'by' holds 'tset', expected dev, test, train, val, valid, validation; did you",
        ),
        (["train", ""], "r.csv line 3: 'by' is blank, expected dev, test"),
        (["test", "test"], "r.csv: no row has the split train; the model needs rows to train on"),
    ],
)
def test_a_split_that_cannot_be_read(tmp_path: Path, values: list[str], message: str) -> None:
    source = table(tmp_path / "r.csv", values)
    assert error_of(tmp_path, source, split_column="by").startswith(message)


def test_options_that_exclude_each_other(tmp_path: Path, capsys: Capsys) -> None:
    source = table(tmp_path / "r.csv", ["train", "train", "test", "test"] * 5)
    both = {"group_column": "by", "time_column": "by"}
    message = "group_column and time_column: each decides the splits in another way; name one of them"
    assert error_of(tmp_path, source, **both) == message
    with pytest.raises(InputError, match=message):
        check_sources([source], **both)
    with pytest.raises(DataError, match="split_column: the source has the splits train, test already; leave it out"):
        check_sources([f"train={source}", f"test={source}"], split_column="by")
    with pytest.raises(DataError, match=r"r\.csv: group_column 'bye' is not one of its columns.*did you mean 'by'"):
        check_sources([source], group_column="bye")
    with pytest.raises(DataError, match="column 'label' is named twice, expected another column for label_column"):
        check_sources([source], label_column="label", time_column="label")
    other = table(tmp_path / "o.csv", ["a"] * 20, "other")
    with pytest.raises(DataError, match=r"o\.csv: time_column 'by' is not one of its columns"):
        check_sources([f"train={source}", f"test={other}"], time_column="by")
    good(capsys, "prepare", source, "--out", tmp_path / "data", "--split-column", "by")
    assert Prepared.load(tmp_path / "data").rows["test"] == 10
    for verb in ("train", "plan"):
        out = ["--out", tmp_path / "run"] if verb == "train" else []
        said = answer(capsys, verb, tmp_path / "data", *out, "--split-column", "by")
        assert (said.status, said.err.count("\n")) == (2, 1)
        assert "--split-column: DATA is prepared already; give this to prepare" in said.err


def test_a_named_column_is_not_taken_for_a_text_or_label(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(
        "words,mood,title\n" + "".join(f"{t},m{i % 2},{i}\n" for i, t in enumerate(fresh_texts(20, 3)))
    )
    data = prepare([str(tmp_path / "r.csv")], tmp_path / "out", label_column="mood", time_column="title")
    assert data.columns["text"] == "words"


def test_times_of_a_typed_file(tmp_path: Path) -> None:
    class Named:
        name = "x.parquet"

        def place(self, position: int) -> str:
            return f"x.parquet row {position}"

    reader = PlacementReader(Named(), Columns("text", time="when"))  # type: ignore[arg-type]
    utc = datetime.datetime(2024, 1, 1, 12, tzinfo=datetime.UTC)
    reader.add(
        {"time": [datetime.date(2024, 1, 1), utc, datetime.datetime(2024, 1, 1, 13), "2024-01-02"]},
        [0, 1, 2, 3],
        [""] * 4,
    )
    times = reader.placement().times
    assert times is not None
    assert np.diff(times).tolist() == [12 * 3600, 3600, 11 * 3600]
    with pytest.raises(DataError, match=r"x\.parquet row 4: 'when' holds 'True', expected a date"):
        reader.add({"time": [True]}, [4], [""])
