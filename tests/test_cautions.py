"""What is said of rows that a run has met, and how a report names classes, rows and sentences."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import SMALL, answer, good

from bertlora.cli.reporting import _read_audit
from bertlora.data.checks.naming import named_rows
from bertlora.evaluation.report.tables import split_sentence

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
    assert found.err.count("caution, ") == 2
    facts = found.json["facts"]
    assert [line["label"] for line in facts["classes"]] == ["negative", "positive"]
    for i, names in enumerate((["negative", "positive"], ["bad", "good"])):
        own = [facts["classifiers"][i]["per_class"][name]["f1"] for name in names]
        assert [line["f1"][i] for line in facts["classes"]] == own
    for flags, said in (((), None), (("--split", "train"), "has learned"), (("--data", other), "different data")):
        for argv, runs in ((("evaluate", first), 1), (("compare", first, second), 2)):
            lines = [line for line in good(capsys, *argv, *flags).err.splitlines() if "caution, " in line]
            assert len(lines) == (runs if said else 0)
            assert all(said in line for line in lines if said)
    assert "two different runs" in answer(capsys, "compare", first, f"{first}/../a").err
    bare = answer(capsys, "report", first / "adapter")
    assert bare.status == 2
    assert "--out" in bare.err
    assert not (first / "adapter" / "report.html").exists()


def test_names_with_brackets_and_rows_by_split() -> None:
    parts = split_sentence("b (new) beats a by 3.0 points (McNemar's exact p = 0.01, 90 rows).")
    assert parts == {"large": "b (new) beats a by 3.0 points.", "small": "McNemar's exact p = 0.01, 90 rows."}
    check = {"rows": [4, 9, 0], "splits": ["train", "train", "test"]}
    assert named_rows(check, 3) == "train 4, 9; test 0"


def test_an_audit_with_a_long_text_is_read(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    csv.field_size_limit(131_072)
    with path.open("w", newline="") as file:
        names = ["row", "given", "suggested", "confidence", "doubtful", "text"]
        csv.writer(file).writerows([names, [3, "a", "b", 0.9, "true", "x" * 200_000]])
    assert len(_read_audit(path)[0]["text"]) == 200_000
