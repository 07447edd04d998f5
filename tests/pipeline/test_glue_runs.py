"""A task of GLUE from its published files to the metric that GLUE reports, and to the file of a submission."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import answer, good
from glue_files import ROWS, TASKS, write_published

from bertlora.cli.metrics import print_evaluation

Capsys = pytest.CaptureFixture[str]
FLAGS = ("--max-length", 32, "--precision", "fp32", "--epochs", 2)
SUBMITTED = {"cola": ("matthews", "CoLA.tsv"), "stsb": ("pearson", "STS-B.tsv")}


@pytest.mark.parametrize("name", SUBMITTED)
def test_from_published_files_to_a_submission(
    name: str, tiny: Callable[[str], Path], tmp_path: Path, capsys: Capsys
) -> None:
    folder, run, (metric, file) = write_published(tmp_path, name), tmp_path / "run", SUBMITTED[name]
    flags = ("--recipe", f"glue-{name}", "--model", tiny("roberta"), *FLAGS)
    told = good(capsys, "train", folder, "--out", run, *flags, "--json")
    trained = json.loads(told.out)
    best = max(trained["epochs"], key=lambda line: (line[metric], -line["validation_loss"]))
    assert [line for line in trained["epochs"] if line["best"]][-1] == best, "GLUE's metric chooses the adapter"
    assert f"{metric.capitalize()} {best[metric]:.4f}  " in told.err

    found = json.loads(good(capsys, "evaluate", run, "--split", "validation", "--json").out)
    assert found["best_metric"] == metric
    assert found["lora"][metric] == pytest.approx(best[metric], abs=1e-4)
    low, high = found["lora"][f"{metric}_ci95"]
    assert low <= found["lora"][metric] <= high
    print_evaluation(found)
    said = f", which chose the adapter: {best[metric]:.4f}, 95 % CI {low:.3f} to {high:.3f}\n"
    assert (said in capsys.readouterr().out) == (name != "stsb"), "the table of a regression has it already"

    test = folder / "test.tsv"
    row = TASKS[name].test_row.format(i=ROWS, a=" ", b="its first text is blank")
    test.write_text(f"{test.read_text()}{row}\n")
    good(capsys, "predict", run, "--file", test, "--format", "glue", "--out", tmp_path / file)
    lines = [line.split("\t") for line in (tmp_path / file).read_text().splitlines()]
    assert [line[0] for line in lines] == ["index", *map(str, range(ROWS + 1))], "a blank row is answered too"
    answers = good(capsys, "predict", run, "--file", test).lines[:ROWS]
    expected = [one["label"] if name != "stsb" else f"{min(max(one['value'], 0), 5):.3f}" for one in answers]
    assert [line[1] for line in lines] == ["prediction", *expected, lines[-1][1]]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--format glue", "--format glue: writes the answers to a test file; give --file TEST.tsv and --out CoLA.tsv"),
        ("--format glue --file test.tsv --out cola.tsv", "--out: GLUE takes files with the names AX.tsv, CoLA.tsv, "),
        ("--format glue --file test.tsv --out RTE.tsv", "its label 'negative' is none of RTE.tsv's: entailment, not_"),
        (
            "--format glue --file test.tsv --out STS-B.tsv",
            "does classification, but STS-B.tsv holds a number for each row",
        ),
        ("--format glue --file bare.tsv --out SST-2.tsv", "has none of the columns index, idx, id, which number"),
        ("--format glue --file test.tsv --out SST-2.tsv --abstain accuracy=0.9", "holds one answer for each row"),
    ],
)
def test_what_is_no_submission_is_refused(
    flags: str, expected: str, run_of_reviews: Path, tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("test.tsv").write_text("index\tsentence\n0\tA joy.\n")
    Path("bare.tsv").write_text("sentence\tother\nA joy.\t1\n")
    found = answer(capsys, "predict", run_of_reviews, *flags.split())
    assert (found.status, found.out, found.err.count("\n")) == (2, "", 1)
    assert expected in found.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare.tsv", "test.tsv"]


def test_f1_needs_two_classes(tiny: Callable[[str], Path], tmp_path: Path, capsys: Capsys) -> None:
    folder = write_published(tmp_path, "mnli")
    flags = ("--model", tiny("bert"), *FLAGS, "--best-metric", "f1")
    found = answer(capsys, "train", folder, "--out", tmp_path / "run", *flags)
    assert (found.status, found.out) == (2, "")
    assert "best_metric: f1 is of two classes, and the data has 3; name macro_f1" in found.err
