"""The verb score: the answers of predict, one object of JSON, and one line for what is refused."""

import sys
from pathlib import Path

import pytest
from command_line import answer, good


def test_score_writes_what_predict_writes(
    run_of_reviews: Path, reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--probabilities", "--precision", "fp32")
    good(capsys, "predict", run_of_reviews, "--file", reviews, "--out", tmp_path / "p.csv", *options)
    found = good(capsys, "score", run_of_reviews, reviews, "--out", tmp_path / "s.csv", *options, "--json").json
    expected = (tmp_path / "p.csv").read_bytes().replace(b"predicted_label", b"label", 1)
    assert (tmp_path / "s.csv").read_bytes() == expected
    assert (found["rows"], found["quarantined"], found["quarantine"], found["resumed"]) == (40, 0, "", 0)
    before = sorted(path.name for path in tmp_path.iterdir())
    refused = {
        "is there already": ("s.csv",),
        "--workers: is for --engine ray": ("n.csv", "--workers", "2"),
        "--safe-csv: n.jsonl is not a CSV": ("n.jsonl", "--safe-csv"),
        "--per-class: is for label sets": ("n.csv", "--per-class"),
        "n.txt does not name a format": ("n.txt",),
    }
    for message, (out, *more) in refused.items():
        failed = answer(capsys, "score", run_of_reviews, reviews, "--out", tmp_path / out, *more)
        assert failed.status == 2
        assert message in failed.err
        assert failed.err.count("\n") == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)  # as if it were not installed
        failed = answer(capsys, "score", run_of_reviews, reviews, "--out", tmp_path / "n.csv", "--engine", "ray")
    assert failed.status == 2
    assert "pip install 'bertlora[ray]'" in failed.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before
