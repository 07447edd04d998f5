"""`evaluate`: base, probe and LoRA on the same rows, under the names that the interface promises."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_training import BAD, GOOD, examples, small_recipe

from bertlora.data.prepared import prepare
from bertlora.evaluation.comparison import Comparison, mcnemar
from bertlora.evaluation.metrics import judge
from bertlora.evaluation.verdict import Judged as Scores
from bertlora.evaluation.verdict import figures, judge_rows
from bertlora.pipeline import split_examples, train_run
from bertlora.run import Run
from bertlora.training.events import Examples

KEYS = {
    "n",
    "base",
    "probe",
    "lora",
    "improvement_points",
    "improvement_relative_percent",
    "comparisons",
    "mcnemar_p",
    "verdict",
    "temperature",
    "uncalibrated",
}
FIGURES = {"accuracy", "accuracy_ci95", "macro_f1", "loss", "ece", "per_class", "confusion"}
FIGURES |= {"balanced_accuracy", "weighted_f1", "matthews", "roc_auc", "average_precision", "brier"}
Judged = tuple[Run, Examples, dict[str, Any]]


@pytest.fixture(scope="module")
def judged(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Judged:
    folder = tmp_path_factory.mktemp("judged")
    rows = [
        (f"{text} {i}", label)
        for i in range(4)
        for text, label in [*((t, "good") for t in GOOD), *((t, "bad") for t in BAD)]
    ]
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    data = prepare([str(folder / "rows.csv")], folder / "data", split="50/0/50")
    recipe = small_recipe(tiny("bert"), targets=("all-linear",), epochs=10, batch_size=8)
    train_run(data, recipe, folder / "run")
    run = Run.load(folder / "run")
    test = split_examples(run.adapted.reader, data, "test")
    return run, test, figures(judge_rows(run, test))


def test_has_the_keys_of_the_interface(judged: Judged) -> None:
    run, test, result = judged
    assert set(result) == KEYS
    for name in ("base", "probe", "lora"):
        assert set(result[name]) == FIGURES
        assert list(result[name]["per_class"]) == run.manifest.labels
        low, high = result[name]["accuracy_ci95"]
        assert 0 <= low <= result[name]["accuracy"] <= high <= 1
    assert result["n"] == len(test) == 32
    assert json.loads(json.dumps(result)) == result


def test_figures_are_those_of_each_classifier(judged: Judged) -> None:
    run, test, result = judged
    assert run.probe is not None
    base, features = run.adapted.base_view(test.inputs)
    scores = {
        "base": base,
        "probe": run.probe.logits(features),
        "lora": run.adapted.logits(test.inputs),
    }
    for name, found in scores.items():
        predicted = found.argmax(axis=1)
        assert result[name]["accuracy"] == pytest.approx(np.mean(predicted == test.labels))
        table = np.zeros((2, 2), dtype=int)
        np.add.at(table, (test.labels, predicted), 1)
        assert result[name]["confusion"] == table.tolist()
        supports = [line["support"] for line in result[name]["per_class"].values()]
        assert supports == np.bincount(test.labels).tolist()
    right = {name: found.argmax(axis=1) == test.labels for name, found in scores.items()}
    assert result["mcnemar_p"] == mcnemar(right["probe"], right["lora"])
    assert "the probe" in result["verdict"]
    assert list(result["comparisons"]) == ["probe", "base"]
    for rival, name in {"probe": "the probe", "base": "the base"}.items():
        expected = Comparison.of(right[rival], right["lora"]).figures((name, "LoRA"))
        assert result["comparisons"][rival] == expected
    assert result["comparisons"]["base"]["gain_points"] == pytest.approx(result["improvement_points"])
    assert result["lora"]["accuracy"] > 0.8


def test_improvement_is_over_the_base(judged: Judged) -> None:
    _, _, result = judged
    before, after = result["base"]["accuracy"], result["lora"]["accuracy"]
    assert after > before > 0
    assert result["improvement_points"] == pytest.approx(100 * (after - before))
    assert result["improvement_relative_percent"] == pytest.approx(100 * (after - before) / before)


def test_without_a_probe_the_base_is_the_rival(judged: Judged) -> None:
    run, test, whole = judged
    bare = Run(run.path, run.manifest, run.adapted)
    result = figures(judge_rows(bare, test))
    assert result["probe"] is None
    assert result["comparisons"] == {"base": whole["comparisons"]["base"]}
    assert "the base" in result["verdict"]
    assert result["lora"] == whole["lora"]
    right = run.adapted.logits(test.inputs, base=True).argmax(axis=1) == test.labels
    assert result["mcnemar_p"] == mcnemar(right, run.adapted.logits(test.inputs).argmax(axis=1) == test.labels)


def test_a_base_that_is_never_right_has_no_relative_improvement(judged: Judged) -> None:
    run, test, _ = judged
    base = run.adapted.logits(test.inputs, base=True).argmax(axis=1)
    result = figures(judge_rows(run, Examples(test.inputs, 1 - base)))
    assert result["base"]["accuracy"] == 0
    assert result["improvement_relative_percent"] is None


def test_rows_of_one_class_can_be_judged(judged: Judged) -> None:
    run, _, _ = judged
    result = figures(judge_rows(run, examples(run.adapted, GOOD, [1] * len(GOOD))))
    assert result["n"] == len(GOOD)
    assert [line["support"] for line in result["lora"]["per_class"].values()] == [0, len(GOOD)]


def test_only_loras_logits_are_divided_by_the_temperature() -> None:
    random = np.random.default_rng(0)
    scores = {name: random.normal(size=(60, 3)) for name in ("base", "probe", "lora")}
    found = Scores(["a", "b", "c"], np.arange(60) % 3, scores, temperature=2.5)
    assert np.array_equal(found.logits("base"), scores["base"])
    assert np.array_equal(found.logits("probe"), scores["probe"])
    assert found.logits("lora") == pytest.approx(scores["lora"] / 2.5)
    result, raw = figures(found), judge(scores["lora"], found.given, found.labels)
    assert result["lora"] == judge(scores["lora"] / 2.5, found.given, found.labels)
    assert result["uncalibrated"] == {key: raw[key] for key in ("loss", "ece", "brier")}
    assert result["uncalibrated"]["loss"] > result["lora"]["loss"]
