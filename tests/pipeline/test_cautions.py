"""Cautions about rows that a run has already used, and the names of classes, rows and runs in reports."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import SMALL, answer, good

from bertlora.data.checks import named_rows
from bertlora.evaluation.comparison import Comparison
from bertlora.evaluation.side_by_side import pair_rows
from bertlora.pipeline.report import read_audit

Capsys = pytest.CaptureFixture[str]


def test_verbs_caution_and_match_renamed_classes(
    tiny: Callable[[str], Path], tmp_path: Path, reviews: Path, capsys: Capsys
) -> None:
    base = ("--model", tiny("bert"), *SMALL, "--epochs", 1)
    first, second, other = tmp_path / "a", tmp_path / "b", tmp_path / "other"
    good(capsys, "train", reviews, "--out", first, *base)
    good(capsys, "train", first / "data", "--out", second, *base, "--label-names", "bad,good")
    good(capsys, "prepare", reviews, "--out", other, "--seed", 7)
    found = good(capsys, "report", first, second, "--split", "validation", "--json")
    facts = found.json["facts"]
    assert facts["note"].startswith("These rows chose the epoch of each run too.")
    assert [line["label"] for line in facts["classes"]] == ["negative", "positive"]
    for i, names in enumerate((["negative", "positive"], ["bad", "good"])):
        own = [facts["classifiers"][i]["per_class"][name]["f1"] for name in names]
        assert [line["f1"][i] for line in facts["classes"]] == own
    # Some rows of the other folder's test split are in train or validation here.
    for flags, said in (
        ((), None),
        (("--split", "train"), "was trained on these rows"),
        (("--data", other), "texts on which the run was trained"),
        (("--data", reviews), "texts on which the run was trained"),
    ):
        for argv, runs in ((("evaluate", first), 1), (("compare", first, second), 2)):
            lines = [line for line in good(capsys, *argv, *flags).err.splitlines() if "caution, " in line]
            assert len(lines) == (runs if said else 0)
            assert all(said in line for line in lines if said)
    assert "two or more different runs" in answer(capsys, "compare", first, f"{first}/../a").err
    bare = answer(capsys, "report", first / "adapter")
    assert bare.status == 2
    assert "--out" in bare.err
    assert not (first / "adapter" / "report.html").exists()


def test_names_with_brackets_and_rows_by_split() -> None:
    first, second = np.arange(90) < 40, np.arange(90) < 70
    found = Comparison.of(first, second).figures(("a", "b (new)"))
    assert found["verdict"].startswith("b (new) beats a by 33.3 points, 95 % CI ")
    pair = {"first": "a", "second": "b (new)", **found}
    assert pair_rows(["b (new)", "a"], [pair])[0][:3] == ["b (new)", "a", "+33.3"]
    check = {"rows": [4, 9, 0], "splits": ["train", "train", "test"]}
    assert named_rows(check, 3) == "train rows 4, 9; test row 0"


def test_an_audit_with_a_long_text_is_read(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    csv.field_size_limit(131_072)
    with path.open("w", newline="") as file:
        names = ["row", "given", "suggested", "confidence", "doubtful", "text"]
        csv.writer(file).writerows([names, [3, "a", "b", 0.9, "true", "x" * 200_000]])
    assert len(read_audit(path)[0]["text"]) == 200_000
