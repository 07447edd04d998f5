"""The verb score: the answers of predict, one object of JSON, and one line for what is refused."""

import re
import sys
from pathlib import Path

import pytest
from command_line import answer, good, on_terminal


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


def test_score_shows_the_rows_a_second_and_the_time_left(
    run_of_reviews: Path,
    reviews: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for place in ("data.source.BATCH_ROWS", "data.readers.BATCH_ROWS", "scoring.parts.PART_ROWS"):
        monkeypatch.setattr(f"bertlora.{place}", 8)
    monkeypatch.setattr("bertlora.cli.scoring.LINE_S", -1.0)
    words = ("score", run_of_reviews, reviews, "--precision", "fp32", "--out")
    lines = good(capsys, *words, tmp_path / "a.csv").err.splitlines()
    shown = [re.fullmatch(r"(\d+) rows \((\d+)%\), [\d,]+ rows/s, [\d.]+ (s|min) left", line) for line in lines]
    assert all(shown), lines
    assert [int(line[1]) for line in shown] == [8, 16, 24, 32, 40]
    shares = [int(line[2]) for line in shown]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert good(capsys, *words, tmp_path / "b.csv", "--quiet").err == ""


def test_on_a_terminal_the_progress_is_one_line_which_goes(run_of_reviews: Path, reviews: Path, tmp_path: Path) -> None:
    text = on_terminal("score", run_of_reviews, reviews, "--out", tmp_path / "s.csv", stream="stderr")
    assert re.search(r"\r40 rows \(100%\), [\d,]+ rows/s, 0 s left\x1b\[K", text)
    assert text.endswith("\r\x1b[K")
