"""Rows with several labels: three forms of file give the same data, and what is wrong is named."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from test_prepared import error_of

from bertlora.data.prepared import Prepared, prepare, read_rows
from bertlora.task import MULTILABEL

LABELS = ["comedy", "drama", "war"]
RANDOM = np.random.default_rng(0)
MARKS = RANDOM.random((60, 3)) < (0.5, 0.3, 0.1)
MARKS[:6] = [[0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1]]
SPLIT_AT = {"label_column": "tags", "label_delimiter": "|", "split": "100/0/0"}
SETS = [[label for label, mark in zip(LABELS, row, strict=True) if mark] for row in MARKS]


def table(path: Path, header: list[str], rows: list[list[object]]) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def delimited(path: Path, sign: str = "|") -> str:
    return table(path, ["text", "genres"], [[f"film {i}", sign.join(row)] for i, row in enumerate(SETS)])


def test_lists_delimited_cells_and_columns_of_0_and_1_give_the_same_data(tmp_path: Path) -> None:
    lists = tmp_path / "lists.jsonl"
    lists.write_text("".join(json.dumps({"text": f"film {i}", "label": row}) + "\n" for i, row in enumerate(SETS)))
    marks = [[f"film {i}", *row.astype(int)] for i, row in enumerate(MARKS)]
    marked = table(tmp_path / "marks.csv", ["text", *LABELS], marks)
    found = [
        prepare([str(lists)], tmp_path / "a"),
        prepare([delimited(tmp_path / "b.csv")], tmp_path / "b", label_column="genres", task=MULTILABEL),
        prepare([delimited(tmp_path / "c.csv", ", ")], tmp_path / "c", label_column="genres", label_delimiter=","),
        prepare([marked], tmp_path / "d", label_column="comedy,drama,war"),
        prepare([str(tmp_path / "a" / "train.parquet")], tmp_path / "e", split="100/0/0"),
    ]
    assert {data.task for data in found} == {MULTILABEL}
    assert all(data.labels == LABELS for data in found)
    assert len({data.fingerprint for data in found[:4]}) == 1
    for data in found[:4]:
        check_targets(data)
    # A split file is a source too: `datasets` reads its names of classes.
    assert np.array_equal(found[4].targets("train"), found[0].targets("train"))


def check_targets(data: Prepared) -> None:
    for split in data.rows:
        found = data.split(split)
        assert np.array_equal(found.labels, MARKS[found.rows])
        assert np.array_equal(data.targets(split), found.labels)
        assert found.labels[:, 2].any(), "the rarest label is in each split"


def test_an_evaluated_file_may_be_in_another_form_and_order(tmp_path: Path) -> None:
    rows = read_rows([delimited(tmp_path / "a.csv", ";")], LABELS[::-1], task=MULTILABEL, label_column="genres")
    assert np.array_equal(rows.labels, MARKS[:, ::-1])
    unknown = table(tmp_path / "b.csv", ["text", "genres"], [["a", "drama|western"]])
    with pytest.raises(Exception, match=r"b.csv line 2: label 'western' is not one of 'comedy', 'drama', 'war'"):
        read_rows([unknown], LABELS, task=MULTILABEL, label_column="genres")


def test_rules_apply_to_each_label_of_a_row(tmp_path: Path) -> None:
    rules = {"rename": ["war=action"], "drop_label": ["drama"], "label_column": "genres", "label_delimiter": "|"}
    data = prepare([delimited(tmp_path / "a.csv")], tmp_path / "data", **rules)  # type: ignore[arg-type]
    assert data.labels == ["action", "comedy"]
    assert sum(data.rows.values()) == len(SETS), "a row stays without the label that is dropped"
    found = data.split("train")
    assert np.array_equal(found.labels, MARKS[found.rows][:, [2, 0]])


def test_the_checks_of_labels_look_at_each_label_of_a_row(tmp_path: Path) -> None:
    rows = [[f"film {i}", "drama|war" if i % 2 else "drama"] for i in range(40)]
    rows += [["film a", "Drama|war"], ["film b", "war|N/A"], ["film c", "N/A"]]
    found = prepare([table(tmp_path / "a.csv", ["text", "tags"], rows)], tmp_path / "data", **SPLIT_AT)  # type: ignore[arg-type]
    checks = {check["name"]: check for check in found.checks}
    assert checks["label_variants"]["rows"] == [40]
    assert checks["missing_labels"]["rows"] == [41, 42]
    assert checks["small_classes"]["rows"] == [40, 41, 42]
    merged = {"merge_label_case": True, "drop_label": ["N/A"], **SPLIT_AT}
    found = prepare([str(tmp_path / "a.csv")], tmp_path / "merged", **merged)  # type: ignore[arg-type]
    assert found.labels == ["drama", "war"]
    assert not {"label_variants", "missing_labels", "small_classes"} & {check["name"] for check in found.checks}


def test_what_is_wrong_with_sets_is_named(tmp_path: Path) -> None:
    marked = table(tmp_path / "marks.csv", ["text", "a", "b"], [["x", 1, 0], ["y", 2, 0]])
    assert error_of(tmp_path, marked, label_column="a,b") == (
        "marks.csv line 3: 'a' is 2, expected 0 or 1, as each of several label columns"
    )
    assert "'c' is not one of its columns" in error_of(tmp_path, marked, label_column="a,c")
    one = table(tmp_path / "one.csv", ["text", "tags"], [["x", "a"], ["y", ""]])
    assert "expected two or more" in error_of(tmp_path, one, label_column="tags", task=MULTILABEL)
    lists = tmp_path / "lists.jsonl"
    lists.write_text('{"text": "a", "label": ["x", "y"]}\n')
    assert error_of(tmp_path, str(lists), task="classification").startswith(
        "lists.jsonl line 1: the label is a list, expected one string or number in each row"
    )
