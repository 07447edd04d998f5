"""Several labels the whole way: from a file to a run, its evaluation, its predictions and its exports."""

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
from sklearn.metrics import average_precision_score, f1_score
from transformers import AutoModelForSequenceClassification, pipeline

import bertlora
from bertlora.confidence.thresholds import Thresholds
from bertlora.data.prepared import Prepared
from bertlora.errors import DataError, InputError
from bertlora.model.base import quiet
from bertlora.model.explain import explain
from bertlora.run.loaded import Run

TOPICS = {
    "crime": "a detective finds the gun",
    "love": "they kiss at the wedding",
    "war": "the soldier leaves his army",
}
LABELS = list(TOPICS)
FILLER = ["it", "is", "a", "long", "film", "about", "people", "in", "some", "small", "town", "by", "the", "sea"]
KEYS: dict[str, Any] = {"max_length": 48, "precision": "fp32", "rank": 4, "learning_rate": 1e-2, "batch_size": 16}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file of 260 texts and their topics, which are none, one or several."""
    draw, path = random.Random(0), tmp_path_factory.mktemp("films") / "films.csv"
    rows = []
    for i in range(260):
        topics = [label for label in LABELS if draw.random() < 0.4]
        parts = [" ".join(draw.sample(FILLER, 6)), *(TOPICS[label] for label in topics), str(i)]
        rows.append(f"{' '.join(parts)},{'|'.join(topics)}")
    path.write_text("\n".join(["text,topics", *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def run(tiny: Callable[[str], Path], table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "a"
    columns: Any = {"label_column": "topics"}
    bertlora.train(str(table), out, columns=columns, model=str(tiny("bert")), task="multilabel", epochs=2, **KEYS)
    return Run.load(out)


def rows_of(run: Run) -> tuple[list[str], Any]:
    assert run.data_folder is not None
    rows = Prepared.load(run.data_folder).split("test")
    return rows.texts, rows.labels


def test_the_run_says_what_it_predicts(run: Run) -> None:
    manifest, recipe = run.manifest, bertlora.Recipe.named(str(run.path / "recipe.toml"))
    assert (manifest.task, manifest.labels) == ("multilabel", LABELS)
    assert (recipe.task, recipe.loss, recipe.best_metric) == ("multilabel", "binary-cross-entropy", "average_precision")
    assert isinstance(run.calibration, Thresholds)
    assert run.calibration.thresholds.tolist() == manifest.thresholds
    metrics = run.metrics()
    check_schema("train", metrics)
    low, high = metrics["validation"]["macro_f1_ci95"]
    assert low <= metrics["validation"]["macro_f1"] <= high
    assert metrics["rivals"]["tfidf"]["validation_macro_f1"] > 0.9
    assert 'problem_type="multi_label_classification"' in (run.path / "adapter" / "README.md").read_text()
    without = Run.load(run.path / "adapter", str(run.adapted.base.folder))
    assert without.predict(["a kiss"])[0]["labels"] == run.predict(["a kiss"])[0]["labels"]


def test_peft_and_pipeline_give_the_same_probabilities(run: Run, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    texts, _ = rows_of(run)
    ours = run.adapted.logits(run.adapted.reader.read(texts))
    with quiet():
        base = AutoModelForSequenceClassification.from_pretrained(
            tiny("bert"), num_labels=3, problem_type="multi_label_classification", dtype=torch.float32
        )
        model = PeftModel.from_pretrained(base, run.path / "adapter").eval()
    assert transformers_logits(model, run.path / "adapter", texts) == pytest.approx(ours, abs=1e-4)
    run.export(tmp_path / "merged")
    with quiet():
        serve = pipeline("text-classification", model=str(tmp_path / "merged"), top_k=None)
        found = [{one["label"]: one["score"] for one in line} for line in serve(texts)]
    assert [[line[label] for label in LABELS] for line in found] == [
        pytest.approx(row, abs=1e-5) for row in run.predict_proba(texts).tolist()
    ]


def test_evaluation_agrees_with_scikit_learn(run: Run) -> None:
    found, (texts, marks) = bertlora.evaluate(run), rows_of(run)
    json.dumps(found, allow_nan=False)
    check_schema("evaluate", found)
    assert (found["task"], found["n"]) == ("multilabel", 39)
    chosen = np.array([[label in line["labels"] for label in LABELS] for line in run.predict(texts)])
    assert found["lora"]["macro_f1"] == pytest.approx(f1_score(marks, chosen, average="macro"))
    assert found["lora"]["micro_f1"] == pytest.approx(f1_score(marks, chosen, average="micro"))
    assert found["lora"]["subset_accuracy"] == pytest.approx(np.mean((marks == chosen).all(axis=1)))
    precision = average_precision_score(marks, run.predict_proba(texts))
    assert found["lora"]["average_precision"] == pytest.approx(precision)
    gain = found["comparisons"]["tfidf"]["tested"]
    assert gain["metric"] == "macro_f1"
    assert gain["gain_points"] == pytest.approx(100 * (found["lora"]["macro_f1"] - found["tfidf"]["macro_f1"]))
    assert "macro F1" in found["verdict"]


def test_predictions_are_labels_and_their_probabilities(
    run: Run, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, _ = rows_of(run)
    line = run.predict(texts[:1])[0]
    assert list(line) == ["text", "labels", "probabilities"]
    thresholds = dict(zip(LABELS, run.manifest.thresholds, strict=True))
    assert set(line["labels"]) == {label for label, p in line["probabilities"].items() if p >= thresholds[label]}
    for options in ({"abstain": "coverage=0.9"}, {"sets": 0.9}):
        with pytest.raises(InputError, match="leave it out"):
            run.predict(texts, **options)  # type: ignore[arg-type]
    good(capsys, "predict", run.path, "--file", table, "--out", tmp_path / "out.jsonl")
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert list(first) == ["text", "topics", "predicted_labels"]
    assert first["predicted_labels"] == run.predict([first["text"]])[0]["labels"]
    good(capsys, "predict", run.path, "--file", table, "--out", tmp_path / "out.csv", "--probabilities")
    header = (tmp_path / "out.csv").read_text().splitlines()[0]
    assert header == "text,topics,predicted_labels," + ",".join(f"probability of {label}" for label in LABELS)
    assert good(capsys, "predict", run.path, "--file", table, "--format", "csv").out.startswith("text,")


def test_attributions_of_words_add_up_to_the_change_of_the_logit(run: Run) -> None:
    texts, _ = rows_of(run)
    logits = run.adapted.logits(run.adapted.reader.read(texts[:2]))
    for row, found in zip(logits, explain(run.adapted, texts[:2]), strict=True):
        line = found.to_json()
        assert line["label"] == LABELS[int(row.argmax())]
        assert line["logit"] == pytest.approx(row.max(), abs=1e-4)
        change = line["logit"] - line["baseline_logit"]
        words = sum(word["attribution"] for word in line["words"] if word["attribution"] is not None)
        assert words == pytest.approx(change, abs=max(0.01 * abs(change), 0.01))


def test_runs_are_compared_and_shown(
    run: Run, tiny: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bertlora.train(str(run.path / "data"), tmp_path / "b", model=str(tiny("bert")), max_steps=1, **KEYS)
    found = bertlora.compare([run.path, tmp_path / "b"])
    json.dumps(found, allow_nan=False)
    check_schema("compare", found)
    assert (found["metric"], found["task"], len(found["pairs"])) == ("macro_f1", "multilabel", 1)
    best = max(found["runs"], key=lambda name: found["runs"][name]["macro_f1"])
    assert found["ranking"][0] == best
    shown = good(capsys, "evaluate", run.path).out
    for word in ("macro F1", "threshold", "linear probe", *LABELS):
        assert word in shown
    good(capsys, "report", run.path, "--out", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert all(label in page for label in LABELS)
    refused = answer(capsys, "audit", run.path / "data")
    assert (refused.status, refused.out) == (2, "")
    other = tmp_path / "classes.csv"
    other.write_text("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(40)))
    bertlora.train(str(other), tmp_path / "c", model=str(tiny("bert")), max_steps=1, **KEYS)
    with pytest.raises(DataError, match="holds multilabel, and the run does classification"):
        bertlora.evaluate(tmp_path / "c", str(run.path / "data"))
