"""A regression the whole way, on the shape of STS-B: pairs of sentences and a score from 0 to 5."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import answer, check_schema, good
from helpers import transformers_logits
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, pipeline

import bertlora
from bertlora.cli.answers import ValueTable
from bertlora.confidence.spread import Spread
from bertlora.errors import DataError, InputError
from bertlora.model.base import quiet
from bertlora.model.explain import explain
from bertlora.run.loaded import Run

WHO = ["a man", "the dog", "two children", "the old cat", "a singer", "the cook"]
WHAT = ["plays a guitar", "runs through the park", "eats some bread", "reads a book", "sings a song", "cuts an onion"]
WHERE = ["in the morning", "at night", "near the river", "in a small town", "with a friend", "on a rainy day"]
PAIRS = ["sentence1", "sentence2"]
KEYS: dict[str, Any] = {"max_length": 64, "precision": "fp32", "rank": 4, "learning_rate": 1e-2, "batch_size": 16}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file of 260 pairs; the score is how much of the two sentences is the same, with some noise."""
    draw, path, seen = random.Random(0), tmp_path_factory.mktemp("sts") / "pairs.csv", {}
    while len(seen) < 260:
        first = [draw.choice(part) for part in (WHO, WHAT, WHERE)]
        second = [
            a if draw.random() < 0.5 else draw.choice(part) for a, part in zip(first, (WHO, WHAT, WHERE), strict=True)
        ]
        share = sum(w * (a == b) for w, a, b in zip((2, 2, 1), first, second, strict=True))
        seen[" ".join(first), " ".join(second)] = min(5.0, max(0.0, share + draw.gauss(0, 0.2)))
    rows = [f"{a},{b},{score:.3f}" for (a, b), score in seen.items()]
    path.write_text("\n".join(["sentence1,sentence2,score", *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def run(tiny: Callable[[str], Path], table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "a"
    bertlora.train(str(table), out, model=str(tiny("bert")), epochs=1, **KEYS)
    return Run.load(out)


def rows_of(table: Path, count: int) -> tuple[list[str], list[str], list[float]]:
    lines = [line.split(",") for line in table.read_text().splitlines()[1 : count + 1]]
    return [a for a, _, _ in lines], [b for _, b, _ in lines], [float(c) for _, _, c in lines]


def test_the_run_says_what_it_predicts(run: Run) -> None:
    manifest, recipe = run.manifest, bertlora.Recipe.named(str(run.path / "recipe.toml"))
    assert (manifest.task, manifest.labels, manifest.pairs) == ("regression", ["score"], True)
    assert (recipe.task, recipe.loss, recipe.best_metric) == ("regression", "mse", "rmse")
    assert manifest.target_mean == pytest.approx(3, abs=0.5)
    metrics = run.metrics()
    check_schema("train", metrics)
    assert metrics["validation"]["rmse_ci95"][0] < metrics["validation"]["rmse"] < metrics["validation"]["rmse_ci95"][1]
    assert set(metrics["rivals"]) == {"probe", "tfidf"}
    assert metrics["rivals"]["probe"]["validation_rmse"] > 0
    card = (run.path / "adapter" / "README.md").read_text()
    assert 'num_labels=1, problem_type="regression"' in card
    assert "pearsonr" in card


def test_peft_and_pipeline_give_the_same_numbers_in_the_unit_of_the_targets(
    run: Run, table: Path, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    texts, seconds, scores = rows_of(table, 12)
    ours = run.predict_values(texts, seconds)
    assert abs(ours.mean() - np.mean(scores)) < 2
    with quiet():
        base = AutoModelForSequenceClassification.from_pretrained(
            tiny("bert"), num_labels=1, problem_type="regression", dtype=torch.float32
        )
        model = PeftModel.from_pretrained(base, run.path / "adapter").eval()
    assert transformers_logits(model, run.path / "adapter", texts, seconds)[:, 0] == pytest.approx(ours, abs=1e-5)
    run.export(tmp_path / "merged")
    with quiet():
        serve = pipeline("text-classification", model=str(tmp_path / "merged"))
        found = serve([{"text": a, "text_pair": b} for a, b in zip(texts, seconds, strict=True)])
    assert serve.model.config.problem_type == "regression"
    assert {one["label"] for one in found} == {"score"}
    assert [one["score"] for one in found] == pytest.approx(ours.tolist(), abs=1e-5)
    foreign = Run.load(run.path / "adapter", str(tiny("bert")))
    assert foreign.predict_values(texts, seconds) == pytest.approx(ours, abs=1e-6)


def test_batch_mates_change_no_number(run: Run, table: Path) -> None:
    texts, seconds, _ = rows_of(table, 20)
    together = run.predict_values(texts, seconds)
    alone = [run.predict_values([a], [b])[0] for a, b in zip(texts, seconds, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)


def test_evaluation_compares_ridge_and_the_mean_and_counts_what_intervals_cover(run: Run) -> None:
    found = bertlora.evaluate(run)
    json.dumps(found, allow_nan=False)
    check_schema("evaluate", found)
    assert (found["task"], found["n"]) == ("regression", 39)
    assert found["base"]["r2"] == pytest.approx(0, abs=0.2)
    assert found["base"]["pearson"] is None
    assert found["lora"]["rmse"] == pytest.approx(
        np.sqrt(np.mean((_numbers(run)[0] - _numbers(run)[1]) ** 2)), abs=1e-4
    )
    assert set(found["comparisons"]) == {"probe", "tfidf", "base"}
    gain = found["comparisons"]["tfidf"]["gain"]
    assert gain == pytest.approx(found["tfidf"]["rmse"] - found["lora"]["rmse"])
    assert isinstance(run.calibration, Spread)
    for line in found["coverage"]:
        assert line["half_width"] == run.calibration.half_width(line["level"])
        errors = np.abs(_numbers(run)[0] - _numbers(run)[1])
        assert line["covered"] == pytest.approx(np.mean(errors <= line["half_width"]))
    assert found["verdict"].count("RMSE") >= 3
    assert "contain the true number" in found["verdict"]


def _numbers(run: Run) -> tuple[Any, Any]:
    """The predicted and the true numbers of the test rows."""
    from bertlora.data.prepared import Prepared

    assert run.data_folder is not None
    rows = Prepared.load(run.data_folder).split("test")
    return run.predict_values(rows.texts, rows.pairs), rows.labels


def test_predictions_are_a_value_and_an_interval(run: Run, table: Path) -> None:
    texts, seconds, _ = rows_of(table, 3)
    first, *_ = run.predict(texts, seconds)
    assert list(first) == ["text", "text_pair", "value", "interval"]
    low, high = first["interval"]
    assert low < first["value"] < high
    narrow = run.predict(texts, seconds, sets=0.5)[0]["interval"]
    assert low < narrow[0] < narrow[1] < high
    base = run.predict(texts, seconds, base=True)
    assert [line["value"] for line in base] == [run.manifest.target_mean] * 3
    for options in ({"abstain": "coverage=0.9"}, {"raw": True}, {"sets": 0.9, "per_class": True}):
        with pytest.raises(InputError, match="is for classes, and this run predicts a number"):
            run.predict(texts, seconds, **options)
    with pytest.raises(InputError, match="have no probabilities"):
        run.predict_proba(texts, seconds)


def test_blank_rows_of_a_file_have_no_value(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r.csv"
    file.write_text("sentence1,sentence2\na man,the dog\n,the dog\na man,the cook\n")
    command = ("predict", run.path, "--file", file)
    lines = good(capsys, *command, "--json").lines
    assert [line.get("error") for line in lines] == [None, "the text is blank", None]
    assert lines[1] == {"text": "", "text_pair": "the dog", "value": None, "interval": None} | {
        "error": lines[1]["error"]
    }
    assert good(capsys, *command, "--format", "csv").out.splitlines()[2] == ",the dog,,,"
    good(capsys, *command, "--out", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines()[2] == ",the dog,,,"
    shown = ValueTable(80)(lines).splitlines()
    assert shown[2].strip() == "(the text is blank)"


def test_attributions_of_words_add_up_to_the_change_of_the_number(run: Run, table: Path) -> None:
    texts, seconds, _ = rows_of(table, 2)
    values = run.predict_values(texts, seconds)
    for value, found in zip(values, explain(run.adapted, texts, seconds), strict=True):
        line = found.to_json()
        assert line["value"] == pytest.approx(value, abs=1e-5)
        words = [word["attribution"] for part in ("words", "pair_words") for word in line[part]]
        change = line["value"] - line["baseline_value"]
        assert sum(words) == pytest.approx(change, abs=max(0.01 * abs(change), 1e-4 * abs(value)))


def test_the_command_line_and_the_report(
    run: Run, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = good(capsys, "predict", run.path, "--file", table, "--format", "csv").out.splitlines()
    assert lines[0] == "text,text_pair,value,low,high"
    assert len(lines) == 261
    good(capsys, "predict", run.path, "--file", table, "--out", tmp_path / "out.csv")
    header, first, *_ = (tmp_path / "out.csv").read_text().splitlines()
    assert header == "sentence1,sentence2,score,predicted_value,low,high"
    assert float(first.split(",")[3]) == pytest.approx(run.predict_values(*rows_of(table, 1)[:2])[0], abs=1e-5)
    shown = good(capsys, "evaluate", run.path).out
    for word in ("RMSE", "Pearson", "Spearman", "linear probe", "intervals for", "slice"):
        assert word in shown
    good(capsys, "report", run.path, "--out", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("<circle") >= 39
    for heading in ("Predicted against true", "Calibration of the intervals", "Largest errors"):
        assert f">{heading}</h2>" in page
    for heading in ("Confusion matrix", "Doubtful labels", "Per class"):
        assert heading not in page
    assert "Validation RMSE at each evaluation" in page
    refused = answer(capsys, "audit", run.path / "data")
    assert (refused.status, refused.out) == (2, "")
    assert "checks the labels of classes" in refused.err


def test_runs_are_compared_by_a_paired_bootstrap(
    run: Run, tiny: Callable[[str], Path], table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bertlora.train(str(run.path / "data"), tmp_path / "b", model=str(tiny("bert")), max_steps=1, **KEYS)
    found = bertlora.compare([run.path, tmp_path / "b"])
    json.dumps(found, allow_nan=False)
    check_schema("compare", found)
    assert (found["metric"], found["task"], len(found["pairs"])) == ("rmse", "regression", 1)
    best = min(found["runs"], key=lambda name: found["runs"][name]["rmse"])
    assert found["ranking"][0] == best
    assert "paired bootstrap" in good(capsys, "compare", run.path, tmp_path / "b").out
    (pair,) = found["pairs"]
    worse = pair["significant"] and found["ranking"][0] != str(run.path)
    assert answer(capsys, "compare", run.path, tmp_path / "b", "--fail-if-worse").status == (1 if worse else 0)
    worse = pair["significant"] and not worse
    assert answer(capsys, "compare", tmp_path / "b", run.path, "--fail-if-worse").status == (1 if worse else 0)
    with pytest.raises(InputError, match="compares regressions"):
        bertlora.report([run.path, tmp_path / "b"])


def test_data_of_another_task_is_refused(run: Run, reviews: Path, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    bertlora.prepare(str(reviews), tmp_path / "classes")
    with pytest.raises(InputError, match="task: got regression, but the data is prepared for classification"):
        bertlora.train(str(tmp_path / "classes"), tmp_path / "b", model=str(tiny("bert")), task="regression", **KEYS)
    assert not (tmp_path / "b").exists()
    with pytest.raises(DataError, match="holds classification, and the run does regression"):
        bertlora.evaluate(run, str(tmp_path / "classes"))
