"""Preparing: labels, splits, samples, checks, what is written, and the errors that leave nothing behind."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertlora.data.labels import normalise_label, order_labels
from bertlora.data.prepared import Prepared, check_sources, is_prepared, prepare
from bertlora.data.sources import open_sources
from bertlora.data.splits import part_totals, stratified_sample, stratified_split
from bertlora.errors import DataError, OutputError, RecipeError
from bertlora.hashes import hashes_of, sealed

SHARED = Path(__file__).parents[3] / "shared" / "data"
SHARES = st.sampled_from([(0.7, 0.15, 0.15), (0.8, 0.2, 0.0), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33), (0.9, 0.05, 0.05)])


def write_csv(path: Path, rows: list[tuple[str, object]], header: str = "text,label") -> str:
    path.write_text(header + "\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8")
    return str(path)


def reviews(count: int, start: int = 0) -> list[tuple[str, object]]:
    return [(f"review number {i}", ("neg", "pos")[i % 2]) for i in range(start, start + count)]


def error_of(tmp_path: Path, *specs: str, **flags: object) -> str:
    """The message of a DataError; nothing may be left behind."""
    out = tmp_path / "out"
    with pytest.raises(DataError) as caught:
        prepare(specs, out, **flags)  # type: ignore[arg-type]
    assert not out.exists()
    assert not list(tmp_path.glob(".*"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(max_examples=150, deadline=None)
@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=200), shares=SHARES, seed=st.integers(0, 3))
def test_stratified_split_keeps_totals_and_classes(
    labels: list[int], shares: tuple[float, float, float], seed: int
) -> None:
    ids = np.array(labels, np.int32)
    parts = stratified_split(ids, shares, seed)
    totals = part_totals(len(ids), shares)
    assert np.bincount(parts, minlength=3).tolist() == totals
    assert np.array_equal(parts, stratified_split(ids, shares, seed))
    active = sum(share > 0 for share in shares)
    present, counts = np.unique(ids, return_counts=True)
    enough = present[counts >= active]
    for part in range(3):
        if shares[part] > 0 and totals[part] >= len(enough):
            promised = present if part == 0 and totals[0] >= len(present) else enough if part else []
            assert set(promised) <= set(ids[parts == part]), f"part {part}"


@settings(max_examples=100, deadline=None)
@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=200), size=st.integers(0, 220))
def test_stratified_sample_keeps_size_and_classes(labels: list[int], size: int) -> None:
    ids = np.array(labels)
    drawn = stratified_sample(ids, size, 1)
    assert len(drawn) == len(set(drawn)) == (min(size, len(ids)) or len(ids))
    if len(drawn) >= len(set(labels)):
        assert set(ids[drawn]) == set(labels)


def test_two_thousand_balanced_rows(tmp_path: Path) -> None:
    prepared = prepare([write_csv(tmp_path / "r.csv", reviews(2000))], tmp_path / "out")
    assert prepared.rows == {"train": 1400, "validation": 300, "test": 300}
    assert prepared.labels == ["neg", "pos"]
    assert prepared.checks == []
    for name, count in prepared.rows.items():
        split = prepared.split(name)
        assert np.bincount(split.labels).tolist() == [count // 2, count // 2]
        assert split.texts == [f"review number {row}" for row in split.rows]
        assert split.labels.tolist() == [row % 2 for row in split.rows]
    everywhere = np.concatenate([prepared.split(name).rows for name in prepared.rows])
    assert sorted(everywhere) == list(range(2000))


def test_what_is_written(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "r.csv", reviews(40), "review,sentiment")
    prepare([source], tmp_path / "out", split="80/20/0", seed=7)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "dataset.json",
        "train.parquet",
        "validation.parquet",
    ]
    manifest = json.loads((tmp_path / "out" / "dataset.json").read_text())
    fingerprint = manifest.pop("fingerprint")
    assert len(fingerprint) == len(manifest.pop("sha256")) == 64
    assert manifest == {
        "format_version": 1,
        "task": "classification",
        "labels": ["neg", "pos"],
        "rows": {"train": 32, "validation": 8},
        "columns": {"text": "review", "text_pair": None, "label": "sentiment"},
        "sources": {"all": "r.csv"},
        "split": "80/20/0",
        "sample": 0,
        "seed": 7,
        "notes": [],
        "checks": [],
        "files": hashes_of(tmp_path / "out", ["train.parquet", "validation.parquet"]),
    }
    schema = pq.read_schema(tmp_path / "out" / "train.parquet")
    assert [(field.name, field.type) for field in schema] == [
        ("text", pa.string()),
        ("label", pa.int32()),
        ("row", pa.int64()),
        ("place", pa.string()),
    ]
    assert open_sources([str(tmp_path / "out")])["train"].class_names == {"label": ["neg", "pos"]}


def test_people_read_the_line_that_an_editor_shows(tmp_path: Path) -> None:
    rows = reviews(40)
    rows[3] = ('"a text\nof two lines"', "pos")
    rows[20] = (rows[10][0] + "<br />", "neg")
    source = write_csv(tmp_path / "r.csv", rows)
    line = 1 + [("<br />" in text) for text in (tmp_path / "r.csv").read_text().splitlines()].index(True)
    assert line == 23, "the header, 20 rows, one of them on two lines"
    data = prepare([source], tmp_path / "data")
    (check,) = (check for check in data.checks if check["name"] == "html")
    assert (check["rows"], check["places"]) == ([20], [f"r.csv line {line}"])
    (split,) = check["splits"]
    assert data.places(split, [20]) == check["places"]
    table = pq.read_table(data.path(split)).drop_columns(["place"])
    pq.write_table(table, data.path(split))
    data = replace(data, files={})
    assert data.places(split, [20]) == ["r.csv row 20"], "a folder of an older version has no places"


def test_fingerprint_depends_only_on_content(tmp_path: Path) -> None:
    rows = reviews(40)

    def fingerprint(name: str, rows: list[tuple[str, object]], seed: int = 1) -> str:
        return prepare([write_csv(tmp_path / f"{name}.csv", rows)], tmp_path / name, seed=seed).fingerprint

    first = fingerprint("a", rows)
    assert fingerprint("b", rows) == first
    assert fingerprint("c", rows, seed=2) != first
    assert fingerprint("d", [("another text", "neg"), *rows[1:]]) != first
    assert fingerprint("e", [(text, f"{label}!") for text, label in rows]) != first


def test_sample_of_a_table_and_of_named_splits(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", reviews(200))
    test = write_csv(tmp_path / "test.csv", reviews(60, start=200))
    assert prepare([train], tmp_path / "a", sample=100).rows == {"train": 70, "validation": 15, "test": 15}
    each = prepare([train], tmp_path / "c", sample=100, sample_from="split")
    assert each.rows == {"train": 100, "validation": 30, "test": 30}
    assert np.bincount(each.split("train").labels).tolist() == [50, 50]
    assert each.notes == [
        "sample: the table was split first, then 100 rows were drawn from each split, or all of them: "
        "validation has 30, test has 30"
    ]
    prepared = prepare([f"train={train}", f"test={test}"], tmp_path / "b", sample=20)
    assert prepared.rows == {"train": 20, "validation": 20, "test": 20}
    assert np.bincount(prepared.split("validation").labels).tolist() == [10, 10]


def test_named_splits_are_kept_and_validation_is_cut_from_train(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", reviews(170))
    other = write_csv(tmp_path / "other.csv", reviews(20, start=170))
    prepared = prepare([f"train={train}", f"test={other}"], tmp_path / "a")
    assert prepared.rows == {"train": 140, "validation": 30, "test": 20}
    assert prepared.sources == {"train": "train.csv", "test": "other.csv"}
    assert prepare([f"train={train}", f"test={other}"], tmp_path / "b", split="85/0/15").rows == {
        "train": 170,
        "test": 20,
    }
    assert prepare([f"train={train}", f"dev={other}"], tmp_path / "c").rows == {"train": 170, "validation": 20}
    assert prepare([f"train={train}"], tmp_path / "d").rows == {"train": 119, "validation": 26, "test": 25}
    assert "expected a train split among them" in error_of(tmp_path, f"test={other}")


@pytest.mark.parametrize("test_file", ["index\tsentence\n0\tno label\n", "sentence\tlabel\nno label\t-1\n"])
def test_unlabelled_test_file_is_left_out_with_a_note(tmp_path: Path, test_file: str) -> None:
    rows = "".join(f"text {i}\t{i % 2}\n" for i in range(20))
    (tmp_path / "glue").mkdir()
    for name in ("train", "dev"):
        (tmp_path / "glue" / f"{name}.tsv").write_text(f"sentence\tlabel\n{rows}")
    (tmp_path / "glue" / "test.tsv").write_text(test_file)
    prepared = prepare([str(tmp_path / "glue")], tmp_path / "out")
    assert prepared.rows == {"train": 20, "validation": 20}
    assert prepared.notes == ["test.tsv: has no labels, so there is no test split"]


def test_pairs(tmp_path: Path) -> None:
    rows = "".join(f"premise {i},guess {i},{'yes' if i % 2 else 'no'}\n" for i in range(20))
    (tmp_path / "r.csv").write_text(f"premise,hypothesis,label\n{rows}")
    prepared = prepare([str(tmp_path / "r.csv")], tmp_path / "out")
    split = prepared.split("train")
    assert prepared.has_pairs
    assert split.pairs == [f"guess {row}" for row in split.rows]


def test_class_names_of_the_source_give_the_order(tmp_path: Path) -> None:
    features = {"label": {"names": ["pos", "neutral", "neg"], "_type": "ClassLabel"}, "text": {"_type": "Value"}}
    data = pa.table({"text": [f"text number {i}" for i in range(20)], "label": [0, 2] * 10})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(data.replace_schema_metadata(metadata), tmp_path / "x.parquet")
    prepared = prepare([str(tmp_path / "x.parquet")], tmp_path / "out")
    assert prepared.labels == ["pos", "neg"]
    assert prepared.notes == ["x.parquet: no row has the label 'neutral', so it was left out"]


def test_labels_of_every_type() -> None:
    values = [True, False, 1.0, 1.5, 3, " a ", None, float("nan"), "", "  "]
    assert [normalise_label(v) for v in values] == ["true", "false", "1", "1.5", "3", "a", None, None, None, None]
    assert order_labels(["10", "9", "-1"]) == ["-1", "9", "10"]
    assert order_labels(["b", "A", "c"]) == ["A", "b", "c"]
    assert order_labels(["b", "a"], ["b", "x", "a"]) == ["b", "a"]


def test_checks_name_rows(tmp_path: Path) -> None:
    rows = reviews(100)
    rows[10] = rows[4]
    rows[20] = (rows[5][0], "neg")
    rows[30] = ("short one", "neg")
    prepared = prepare([write_csv(tmp_path / "r.csv", rows)], tmp_path / "out", split="100/0/0")
    found = {check["name"]: check for check in prepared.checks}
    assert {name: check["rows"] for name, check in found.items()} == {
        "exact_duplicates": [10, 20],
        "conflicting_labels": [5, 20],
        "very_short": [30],
    }
    assert found["exact_duplicates"]["count"] == 2
    assert found["exact_duplicates"]["splits"] == ["train", "train"]


def test_leakage_imbalance_and_missing_class(tmp_path: Path) -> None:
    train = write_csv(
        tmp_path / "train.csv", [*((f"fine film {i}", "pos") for i in range(9)), ("bad film here", "neg")]
    )
    test = write_csv(tmp_path / "test.csv", [("a new text", "pos"), ("fine film 3", "pos")])
    prepared = prepare([f"train={train}", f"test={test}"], tmp_path / "out", split="100/0/0")
    found = {check["name"]: check for check in prepared.checks}
    assert set(found) == {"exact_duplicates", "leakage", "class_missing", "imbalance", "small_classes"}
    assert (found["leakage"]["rows"], found["leakage"]["splits"]) == ([1], ["test"])
    assert (found["class_missing"]["count"], found["class_missing"]["rows"]) == (1, [])
    assert found["class_missing"]["advice"].startswith("test has no 'neg'")
    assert found["imbalance"]["count"] == 1
    # Training does it already, so nothing is to be tried.
    assert found["imbalance"]["advice"].endswith("training weights the classes and chooses by macro F1")


def test_blank_texts_and_labels(tmp_path: Path) -> None:
    rows = [("fine", "pos"), ("  ", "neg"), *reviews(36), ("bad", ""), ("", "")]
    source = write_csv(tmp_path / "a.csv", rows)
    data = prepare([source], tmp_path / "data")
    assert sum(data.rows.values()) == 37
    (check,) = (check for check in data.checks if check["name"] == "blank")
    assert (check["count"], check["rows"]) == (3, [1, 38, 39])
    assert check["places"] == ["a.csv line 3", "a.csv line 40", "a.csv line 41"]
    whole = np.concatenate([data.split(name).rows for name in data.rows])
    assert sorted(whole) == [0, *range(2, 38)], "a row keeps its number in the source"
    assert "strict=True forbids blank (3)" in error_of(tmp_path, source, strict=True)
    pq.write_table(pa.table({"text": ["a", None], "label": [0, 1]}), tmp_path / "c.parquet")
    assert error_of(tmp_path, str(tmp_path / "c.parquet")).startswith(
        "c.parquet: 1 of 2 rows are blank, more than 10% (c.parquet row 1: 'text' is blank); remove them or fill"
    )
    (tmp_path / "d.jsonl").write_text('{"text": "a", "label": [{"x": 1}]}\n')
    assert error_of(tmp_path, str(tmp_path / "d.jsonl")).startswith(
        "d.jsonl line 1: the label is {'x': 1}, expected a string"
    )


def test_labels_that_cannot_be_learned(tmp_path: Path) -> None:
    single = write_csv(tmp_path / "single.csv", [("a", "pos"), ("b", "pos")])
    assert error_of(tmp_path, single).startswith("single.csv: every label is 'pos', expected two classes or more")
    assert error_of(tmp_path, write_csv(tmp_path / "e.csv", [])).startswith("e.csv: has no rows")
    many = write_csv(tmp_path / "many.csv", [(f"text {i}", f"class {i}") for i in range(5)])
    assert "3 rows for 5 classes are left to train on" in error_of(tmp_path, many, sample=4)
    train = write_csv(tmp_path / "train.csv", [*reviews(4), ("x", "positive")])
    test = write_csv(tmp_path / "test.csv", [("a", "pos"), ("b", "postive")])
    assert error_of(tmp_path, f"train={train}", f"test={test}") == (
        "test.csv line 3: label 'postive' is not one of 'neg', 'pos', 'positive', the labels of train.csv; "
        "did you mean 'positive'?"
    )


def test_options_out_of_range(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "r.csv", reviews(10))
    assert "expected a number of rows" in error_of(tmp_path, source, sample=-1)
    with pytest.raises(RecipeError, match="expected three shares"):
        prepare([source], tmp_path / "out", split="70/20/20")


def test_output_in_the_way(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "r.csv", reviews(20))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds something already"):
        prepare([source], tmp_path / "out")
    assert (tmp_path / "out" / "precious.txt").read_text() == "mine"
    assert prepare([source], tmp_path / "out", overwrite=True).rows["train"] == 14


def test_the_source_is_not_overwritten(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "r.csv", reviews(20))
    for specs in ([source], [f"train={source}"], [str(tmp_path)]):
        with pytest.raises(OutputError, match="holds the input"):
            prepare(specs, tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


def test_load_says_what_is_wrong_with_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepared = prepare([write_csv(tmp_path / "r.csv", reviews(20))], out, split="80/20/0")
    assert Prepared.load(out) == prepared
    assert is_prepared(out)
    assert not is_prepared(tmp_path)
    with pytest.raises(DataError, match="has no test split, only train, validation; name one of these"):
        prepared.split("test")
    with pytest.raises(DataError, match="is not a folder"):
        Prepared.load(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is not a prepared folder"):
        Prepared.load(tmp_path)
    manifest = json.loads((out / "dataset.json").read_text())
    (out / "validation.parquet").rename(tmp_path / "away")
    with pytest.raises(DataError, match=r"validation\.parquet: is missing"):
        Prepared.load(out)
    (out / "dataset.json").write_text(sealed(manifest | {"format_version": 2}))
    with pytest.raises(DataError, match="format version 2, expected 1 at most; update bertlora"):
        Prepared.load(out)
    (out / "dataset.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        Prepared.load(out)
    (out / "dataset.json").unlink()
    with pytest.raises(DataError, match="is not complete"):
        Prepared.load(out)


@pytest.mark.skipif(not (SHARED / "sst2_train.parquet").is_file(), reason="the shared data are not on this machine")
def test_sst2(tmp_path: Path) -> None:
    specs = [f"train={SHARED / 'sst2_train.parquet'}", f"validation={SHARED / 'sst2_validation.parquet'}"]
    prepared = prepare(specs, tmp_path / "out", sample=8000)
    assert prepared.rows == {"train": 8000, "validation": 872}
    assert prepared.labels == ["0", "1"]
    assert np.bincount(prepared.split("validation").labels).tolist() == [428, 444]


@pytest.mark.skipif(not (SHARED / "imdb_train.parquet").is_file(), reason="the shared data are not on this machine")
def test_imdb_sample(tmp_path: Path) -> None:
    prepared = prepare([str(SHARED / "imdb_train.parquet")], tmp_path / "out", sample=2000)
    assert prepared.rows == {"train": 1400, "validation": 300, "test": 300}
    assert prepared.columns == {"text": "text", "text_pair": None, "label": "label"}


def test_sources_are_checked_without_reading_their_rows(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "r.csv", [*reviews(20), ("", "neg")], "review,sentiment")
    assert check_sources([source]) is None
    assert check_sources(["hub:nobody/nothing"]) is None, "only `prepare` asks the hub"
    with pytest.raises(DataError, match="label_column 'nope' is not one of its columns"):
        check_sources([source], label_column="nope")
    with pytest.raises(DataError, match="there is no such file"):
        check_sources([f"train={source}", f"test={tmp_path / 'none.csv'}"])
    with pytest.raises(DataError, match="expected a train split among them"):
        check_sources([f"test={source}"])
    good = write_csv(tmp_path / "good.csv", reviews(20))
    prepare([good], tmp_path / "data")
    assert check_sources([str(tmp_path / "data")]) is None
    (tmp_path / "data" / "train.parquet").unlink()
    with pytest.raises(DataError, match="is missing from a prepared folder"):
        check_sources([str(tmp_path / "data")])
