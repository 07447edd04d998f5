"""The forms of predictions: JSON lines in a pipe, CSV, a file, and a small table on a terminal."""

import csv
import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import answer, contents, good, on_terminal

from bertlora.cli.answers import CsvRows, PredictionTable, json_lines
from bertlora.cli.console import json_line

Capsys = pytest.CaptureFixture[str]
TEXTS = ["a joy from start to finish", "dull, lifeless, and far too long", 'he said "no" twice']
SEPARATORS = "one\x85two\u2028three\u2029four"


@pytest.fixture
def run(run_of_reviews: Path) -> Path:
    """Returns a run folder; nothing may change it."""
    return run_of_reviews


def test_json_has_no_character_at_which_lines_break() -> None:
    for text in (SEPARATORS, "\x0b\x0c\x1c\x1d\x1e\r\n"):
        line = json_line({"text": text})
        assert len(line.splitlines()) == 1
        assert json.loads(line) == {"text": text}
    assert json_line("Ä €") == '"Ä €"'


def test_texts_with_line_separators_stay_one_line(run: Path, capsys: Capsys) -> None:
    (line,) = good(capsys, "predict", run, SEPARATORS).lines
    assert line["text"] == SEPARATORS


def test_csv_has_a_column_for_each_figure(run: Path, capsys: Capsys) -> None:
    lines = good(capsys, "predict", run, *TEXTS).lines
    rows = list(csv.DictReader(io.StringIO(good(capsys, "predict", run, *TEXTS, "--format", "csv").out)))
    columns = ["text", "label", "confidence", "probability of negative", "probability of positive"]
    assert [list(row) for row in rows] == [columns] * 3
    for row, line in zip(rows, lines, strict=True):
        assert (row["text"], row["label"]) == (line["text"], line["label"])
        assert float(row["confidence"]) == pytest.approx(line["confidence"])
        assert float(row["probability of positive"]) == pytest.approx(line["probabilities"]["positive"])


def test_csv_of_abstentions_and_sets() -> None:
    line = {"text": "a", "label": None, "confidence": 0.5, "probabilities": {"x": 0.5, "y": 0.5}}
    form = CsvRows()
    first, second = (form([line | {"abstained": True, "labels": ["x", "y"]}]) for _ in range(2))
    header, row = csv.reader(io.StringIO(first))
    assert header == ["text", "label", "confidence", "abstained", "labels", "probability of x", "probability of y"]
    assert row == ["a", "", "0.5", "true", '["x", "y"]', "0.5", "0.5"]
    assert next(csv.reader(io.StringIO(second))) == row, "the header comes once"


def test_label_sets_say_why_a_label_is_in_each_of_them(run: Path, capsys: Capsys) -> None:
    """The run has six validation rows, three of each class: 0.75 needs three, 0.8 needs four."""
    for flags, said in (
        (["--sets", "0.9"], "every set contains all labels: 0.9 needs 9 validation rows, got 6\n"),
        (["--sets", "0.75", "--per-class"], ""),
        (
            ["--sets", "0.8", "--per-class"],
            "labels in every set, because 0.8 needs 4 validation rows of a class: 'negative' (3), 'positive' (3)\n",
        ),
    ):
        found = good(capsys, "predict", run, *TEXTS, *flags)
        assert found.err == said
        assert all(line["label"] in line["labels"] for line in found.lines)
        assert not said or all(len(line["labels"]) == 2 for line in found.lines)
    found = good(capsys, "predict", run, "a", "--abstain", "coverage=0.5")
    assert "of 6 validation rows reach it, " in found.err
    alone = answer(capsys, "predict", "nowhere", "a", "--per-class")
    assert (alone.status, alone.out) == (2, "")
    assert "--per-class: is for label sets; give --sets too" in alone.err


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_predictions_go_to_a_file(form: str, run: Path, tmp_path: Path, capsys: Capsys) -> None:
    out = tmp_path / "answers"
    expected = good(capsys, "predict", run, *TEXTS, "--format", form).out
    said = good(capsys, "predict", run, *TEXTS, "--format", form, "--out", out)
    assert out.read_text() == expected
    assert said.out == f"{out}: 3 texts\n"
    refused = answer(capsys, "predict", run, "a", "--out", out)
    assert (refused.status, out.read_text()) == (2, expected)
    assert "give --overwrite to replace it" in refused.err
    found = good(capsys, "predict", run, "a", "--out", out, "--overwrite", "--json").json
    assert found == {"out": str(out), "texts": 1}
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == ["a"]


def test_a_file_is_written_whole_or_not_at_all(run: Path, tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "texts.txt").write_bytes(b"a film\n" * 2000 + b"caf\xc3\xa9\n" * 2 + b"caf\xe9\n")
    before = contents(tmp_path)
    found = answer(capsys, "predict", run, "--file", tmp_path / "texts.txt", "--out", tmp_path / "answers.jsonl")
    assert (found.status, found.out) == (2, "")
    assert "texts.txt line 2003: byte 0xe9 at column 4 is not UTF-8" in found.err
    assert contents(tmp_path) == before
    itself = answer(
        capsys, "predict", run, "--file", tmp_path / "texts.txt", "--out", tmp_path / "texts.txt", "--overwrite"
    )
    assert "is the input; name another output file" in itself.err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_the_columns_of_a_file_stay(suffix: str, run: Path, tmp_path: Path, capsys: Capsys) -> None:
    rows = pd.DataFrame({"ticket": ["007", "8", "x"], "text": TEXTS, "note": ["é", "a,b", "tab\there"]})
    rows.to_csv(tmp_path / "r.csv", index=False)
    out = tmp_path / f"o{suffix}"
    lines = good(capsys, "predict", run, *TEXTS).lines
    found = good(capsys, "predict", run, "--file", tmp_path / "r.csv", "--out", out, "--probabilities", "--json").json
    assert found == {"out": str(out), "texts": 3}
    read = {".csv": pd.read_csv, ".tsv": partial(pd.read_csv, sep="\t"), ".parquet": pd.read_parquet}
    read[".jsonl"] = partial(pd.read_json, lines=True)
    frame = read[suffix](out, **({} if suffix == ".parquet" else {"dtype": {"ticket": str}}))
    added = ["predicted_label", "confidence", "probability of negative", "probability of positive"]
    assert list(frame) == [*rows, *added]
    assert frame[list(rows)].to_dict() == rows.to_dict()
    assert frame["predicted_label"].tolist() == [line["label"] for line in lines]
    assert np.allclose(frame["confidence"], [line["confidence"] for line in lines])
    assert np.allclose(frame["probability of positive"], [line["probabilities"]["positive"] for line in lines])


def test_one_column_of_a_file_is_printed(run: Path, tmp_path: Path, capsys: Capsys) -> None:
    pd.DataFrame({"ticket": ["7", "8", "9"], "text": TEXTS}).to_csv(tmp_path / "r.csv", index=False)
    words = ("predict", run, "--file", tmp_path / "r.csv", "--id-column", "ticket")
    labels = [line["label"] for line in good(capsys, "predict", run, *TEXTS).lines]
    lines = good(capsys, *words).lines
    assert [list(line) for line in lines] == [["ticket", "predicted_label", "confidence"]] * 3
    assert [(line["ticket"], line["predicted_label"]) for line in lines] == list(zip("789", labels, strict=True))
    header, *rows = good(capsys, *words, "--format", "csv").out.splitlines()
    assert header == "ticket,predicted_label,confidence"
    assert [row.split(",")[:2] for row in rows] == [list(pair) for pair in zip("789", labels, strict=True)]


def test_cells_that_look_like_formulas_stay_unless_asked(run: Path, tmp_path: Path, capsys: Capsys) -> None:
    rows = pd.DataFrame({"text": ["=1+1", "@x", "fine"], "x": ["-3", "+", "3"]})
    rows.to_csv(tmp_path / "r.csv", index=False)
    table = ("predict", run, "--file", tmp_path / "r.csv", "--out", tmp_path / "o.csv", "--overwrite")
    for safe, mark in (([], ""), (["--safe-csv"], "'")):
        good(capsys, *table, *safe)
        kept = pd.read_csv(tmp_path / "o.csv", dtype=str)
        assert kept["text"].tolist() == [f"{mark}=1+1", f"{mark}@x", "fine"]
        assert kept["x"].tolist() == [f"{mark}-3", f"{mark}+", "3"]
        printed = good(capsys, "predict", run, "=1+1", "--format", "csv", *safe).out
        assert printed.splitlines()[1].startswith(f"{mark}=1+1,")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--id-column", "x"], "--id-column: names a column of a file; give --file too"),
        (["--probabilities"], "--probabilities: adds columns to those of a file; give --file, and --out FILE.csv"),
        (["--out", "o.parquet"], "o.parquet: only the rows of a --file are written in this form"),
        (["--safe-csv"], "--safe-csv: is for CSV and TSV"),
        (["--overwrite"], "--overwrite: replaces the file that --out names"),
        (["--pair", "a", "b"], "neither with --pair"),
        (["--format", "csv", "--explain"], "--explain: has no form in CSV"),
        (["--format", "csv", "--json"], "leave out --json or --format csv"),
        (["--format", "xml"], "--format: got 'xml', expected one of jsonl, csv"),
    ],
)
def test_forms_that_do_not_go_together(flags: list[str], expected: str, capsys: Capsys) -> None:
    found = answer(capsys, "predict", "nowhere", "a", *flags)
    assert (found.status, found.out) == (2, "")
    assert expected in found.err


def test_a_table_has_one_header_and_one_line_for_each_text() -> None:
    table = PredictionTable(["negative", "positive"], 40)
    line = {"text": "a\nb\x1b[31m " + "long " * 50, "label": "positive", "confidence": 0.98765}
    first, second = (table([line, line | {"label": None, "labels": ["negative", "positive"]}]) for _ in range(2))
    header, *rows = first.splitlines()
    assert header.split() == ["label", "confidence", "text"]
    assert second.splitlines() == rows
    assert all(len(row) <= 40 for row in (header, *rows))
    assert rows[0].startswith("positive         0.988  a b␛[31m long")
    assert rows[0].endswith("…")
    assert rows[1].startswith("(no label)       0.988  [negative, posi")
    assert json_lines([line]).count("\n") == 1


def test_people_get_a_table_and_programs_json(run: Path) -> None:
    table = on_terminal("predict", run, *TEXTS).splitlines()
    assert table[0].split() == ["label", "confidence", "text"]
    assert [line.split(maxsplit=2)[2].strip() for line in table[1:]] == TEXTS
    assert {line.split()[0] for line in table[1:]} <= {"negative", "positive"}
    lines = on_terminal("predict", run, *TEXTS, "--json").splitlines()
    assert [json.loads(line)["text"] for line in lines] == TEXTS


@pytest.mark.parametrize("flags", [[], ["--sets", "0.5", "--abstain", "coverage=0.5"], ["--explain"]])
def test_blank_rows_of_a_file_have_an_answer_that_says_so(
    flags: list[str], run: Path, tmp_path: Path, capsys: Capsys
) -> None:
    rows = ["a joy", "", "dull", "   ", "a mess"]
    (tmp_path / "r.csv").write_text("id,text\n" + "".join(f"{i},{text}\n" for i, text in enumerate(rows)))
    found = good(capsys, "predict", run, "--file", tmp_path / "r.csv", "--json", *flags)
    assert [line["text"] for line in found.lines] == [text.strip() for text in rows]
    assert [line.get("error") for line in found.lines] == [None, "the text is blank"] * 2 + [None]
    assert all(line["label"] is line["confidence"] is None for line in found.lines if "error" in line)
    alone = good(capsys, "predict", run, "a joy", "dull", "a mess", "--json", *flags).lines
    answered = [line for line in found.lines if "error" not in line]
    assert [line["confidence"] for line in answered] == pytest.approx([line["confidence"] for line in alone])
    assert found.err.endswith(
        "note: r.csv: got no label: 2 blank rows (r.csv line 3: 'text' is blank; r.csv line 5: 'text' is blank)\n"
    )
    if not flags:
        cells = list(
            csv.reader(io.StringIO(good(capsys, "predict", run, "--file", tmp_path / "r.csv", "--format", "csv").out))
        )
        assert [row[1:] == [""] * 4 for row in cells[1:]] == [False, True, False, True, False]
