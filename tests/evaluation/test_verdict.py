"""`evaluate`: base, linear probe and LoRA on the same rows, under the names of the interface."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_training import BAD, GOOD, examples, small_recipe

from bertlora.confidence.calibration import Calibration
from bertlora.data.inputs import Unread
from bertlora.data.prepared import Prepared, prepare
from bertlora.data.reader import Examples, split_examples
from bertlora.evaluation.comparison import Comparison
from bertlora.evaluation.gains import mcnemar
from bertlora.evaluation.metrics import classification_metrics
from bertlora.evaluation.verdict import Evaluated, evaluate_rows, figures, legacy_lines, rows_of, source_of, verdict
from bertlora.pipeline.rows import own_data
from bertlora.pipeline.training_run import train_run
from bertlora.run.loaded import Run

KEYS = {
    "task",
    "n",
    "base",
    "probe",
    "tfidf",
    "lora",
    "improvement_points",
    "improvement_relative_percent",
    "comparisons",
    "mcnemar_p",
    "verdict",
    "majority_share",
    "temperature",
    "uncalibrated",
}
FIGURES = {"accuracy", "accuracy_ci95", "macro_f1", "loss", "ece", "per_class", "confusion"}
FIGURES |= {"top_confusions", "other_confusions"}
FIGURES |= {"balanced_accuracy", "weighted_f1", "matthews", "roc_auc", "average_precision", "brier"}
FIGURES |= {"macro_f1_ci95", "balanced_accuracy_ci95", "matthews_ci95", "f1", "f1_ci95"}
FIGURES |= {"ece_ci95", "ece_floor", "ece_floor_range95"}
Found = tuple[Run, Examples, dict[str, Any]]


@pytest.fixture(scope="module")
def evaluated(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("evaluated")
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
    return run, test, figures(evaluate_rows(run, test, data.split("test")))


def test_has_the_keys_of_the_interface(evaluated: Found) -> None:
    run, test, result = evaluated
    assert set(result) == KEYS
    for name in ("base", "probe", "tfidf", "lora"):
        assert set(result[name]) - {"training_seconds"} == FIGURES
        assert ("training_seconds" in result[name]) == (name != "base")
        assert list(result[name]["per_class"]) == run.manifest.labels
        low, high = result[name]["accuracy_ci95"]
        assert 0 <= low <= result[name]["accuracy"] <= high <= 1
    assert result["n"] == len(test) == 32
    assert json.loads(json.dumps(result)) == result


def test_figures_are_those_of_each_classifier(evaluated: Found) -> None:
    run, test, result = evaluated
    base, features = run.adapted.base_features(test.inputs)
    texts = Prepared.load(own_data(run)).split("test").texts
    logits = {"base": base, **run.rivals.logits(features, texts), "lora": run.adapted.logits(test.inputs)}
    assert list(logits) == ["base", "probe", "tfidf", "lora"]
    for name, found in logits.items():
        predicted = found.argmax(axis=1)
        assert result[name]["accuracy"] == pytest.approx(np.mean(predicted == test.labels))
        table = np.zeros((2, 2), dtype=int)
        np.add.at(table, (test.labels, predicted), 1)
        assert result[name]["confusion"] == table.tolist()
        supports = [line["support"] for line in result[name]["per_class"].values()]
        assert supports == np.bincount(test.labels).tolist()
    right = {name: found.argmax(axis=1) == test.labels for name, found in logits.items()}
    assert result["mcnemar_p"] == mcnemar(right["probe"], right["lora"])
    assert "the linear probe" in result["verdict"]
    assert list(result["comparisons"]) == ["probe", "tfidf", "base"]
    for rival, found in result["comparisons"].items():
        assert found["mcnemar_p"] == mcnemar(right[rival], right["lora"])
        assert found["tested"]["pairs"] == (1 if rival == "base" else 2)
    assert result["comparisons"]["base"]["gain_points"] == pytest.approx(result["improvement_points"])
    assert result["lora"]["accuracy"] > 0.8


def test_improvement_is_over_the_base(evaluated: Found) -> None:
    _, _, result = evaluated
    before, after = result["base"]["accuracy"], result["lora"]["accuracy"]
    assert after > before > 0
    assert result["improvement_points"] == pytest.approx(100 * (after - before))
    assert result["improvement_relative_percent"] == pytest.approx(100 * (after - before) / before)


def test_without_a_linear_probe_the_base_is_the_rival(evaluated: Found) -> None:
    run, test, whole = evaluated
    bare = Run(run.path / "adapter", run.manifest, run.adapted, run.calibration)
    result = figures(evaluate_rows(bare, test))
    assert result["probe"] is None
    assert result["comparisons"] == {"base": whole["comparisons"]["base"]}
    assert "the base model" in result["verdict"]
    assert result["lora"] | {"training_seconds": whole["lora"]["training_seconds"]} == whole["lora"]
    right = run.adapted.logits(test.inputs, base=True).argmax(axis=1) == test.labels
    assert result["mcnemar_p"] == mcnemar(right, run.adapted.logits(test.inputs).argmax(axis=1) == test.labels)


def test_a_base_that_is_never_right_has_no_relative_improvement(evaluated: Found) -> None:
    run, test, _ = evaluated
    base = run.adapted.logits(test.inputs, base=True).argmax(axis=1)
    result = figures(evaluate_rows(run, Examples(test.inputs, 1 - base)))
    assert result["base"]["accuracy"] == 0
    assert result["improvement_relative_percent"] is None


def test_rows_of_one_class_can_be_evaluated(evaluated: Found) -> None:
    run, _, _ = evaluated
    result = figures(evaluate_rows(run, examples(run.adapted, GOOD, [1] * len(GOOD))))
    assert result["n"] == len(GOOD)
    assert [line["support"] for line in result["lora"]["per_class"].values()] == [0, len(GOOD)]


def test_only_loras_logits_are_divided_by_the_temperature() -> None:
    random = np.random.default_rng(0)
    logits = {name: random.normal(size=(60, 3)) for name in ("base", "probe", "lora")}
    found = Evaluated(["a", "b", "c"], np.arange(60) % 3, logits, calibration=Calibration.without_rows(3, 2.5))
    assert np.array_equal(found.logits("base"), logits["base"])
    assert np.array_equal(found.logits("probe"), logits["probe"])
    assert found.logits("lora") == pytest.approx(logits["lora"] / 2.5)
    result, raw = figures(found), classification_metrics(logits["lora"], found.y_true, found.labels)
    assert result["lora"] == classification_metrics(logits["lora"] / 2.5, found.y_true, found.labels)
    assert result["uncalibrated"] == {key: raw[key] for key in ("loss", "ece", "brier")}
    assert result["uncalibrated"]["loss"] > result["lora"]["loss"]


def outcomes(rows: int, base: int, probe: int, lora: int, rows_name: str = "rows") -> Evaluated:
    """Returns classifiers that get the first `base`, `probe` and `lora` rows right; the classes alternate."""
    y_true = np.arange(rows) % 2
    logits = {
        name: np.eye(2)[np.where(np.arange(rows) < right, y_true, 1 - y_true)]
        for name, right in {"base": base, "probe": probe, "lora": lora}.items()
    }
    return Evaluated(["bad", "good"], y_true, logits, rows_name=rows_name)


def test_the_verdict_says_how_good_it_is_and_then_by_how_much_it_beats_the_linear_probe() -> None:
    found = outcomes(220, base=123, probe=150, lora=179, rows_name="test reviews")
    first, second = verdict(found).split("\n")
    low, high = (100 * end for end in figures(found)["lora"]["accuracy_ci95"])
    assert first == f"LoRA gets 81.4 % of 220 test reviews right, 95 % CI {low:.1f} to {high:.1f}."
    assert second == Comparison.of(found.right("probe"), found.right("lora")).sentence(("the linear probe", "LoRA"))
    assert second.startswith("LoRA beats the linear probe by 13.2 points, ")
    assert figures(found)["verdict"] == verdict(found)


def test_an_open_verdict_says_how_many_rows_would_settle_the_measured_gap() -> None:
    found = outcomes(220, base=100, probe=176, lora=179)
    first, second, third, fourth = verdict(found).split("\n")
    assert first.startswith("LoRA is not shown to be better than the linear probe: it gets 81.4 % of 220 rows right, ")
    assert second.startswith("LoRA and the linear probe do not differ significantly: +1.4 points, ")
    needed = figures(found)["comparisons"]["probe"]["rows_to_settle"]
    assert needed > 220
    assert third == f"If the true gap is 1.4 points, about {needed:,} rows would show it."
    assert fourth == "Try more training rows, or another base model."


def test_a_rival_that_is_not_beaten_stands_in_the_first_sentence_with_what_to_try() -> None:
    """The linear probe is beaten; TF-IDF ties, and then wins."""
    found = outcomes(220, base=100, probe=120, lora=179)
    y_true, lora = found.y_true, found.raw_logits["lora"]
    for right, first in (
        (177, "LoRA is not shown to be better than TF-IDF: it gets 81.4 % of 220 rows right, 95 % CI "),
        (212, "LoRA is worse than TF-IDF: it gets 81.4 % of 220 rows right, 95 % CI "),
    ):
        tfidf = np.eye(2)[np.where(np.arange(220) < right, y_true, 1 - y_true)]
        logits = {"base": found.raw_logits["base"], "probe": found.raw_logits["probe"], "tfidf": tfidf, "lora": lora}
        seconds = {"probe": 15.0, "tfidf": 1.44, "lora": 91.7}
        unread = Unread(0.43, 0.5, ("truncation = head-tail", "long_texts = windows"))
        said = verdict(Evaluated(["bad", "good"], y_true, logits, seconds=seconds, unread=unread)).split("\n")
        assert said[0].startswith(first)
        assert said[1].startswith("LoRA beats the linear probe by 26.8 points")
        assert "TF-IDF" in said[2]
        assert said[-1] == (
            "Try truncation = head-tail or long_texts = windows (43% of the tokens are not read), more training rows, "
            "or another base model. TF-IDF trained in 1.4 s, LoRA in 91.7 s."
        )


def test_without_rivals_the_verdict_is_one_line() -> None:
    found = outcomes(40, base=0, probe=0, lora=30)
    alone = Evaluated(found.labels, found.y_true, {"lora": found.raw_logits["lora"]})
    assert verdict(alone).startswith("LoRA gets 75.0 % of 40 rows right, 95 % CI ")
    assert "\n" not in verdict(alone)


@pytest.mark.parametrize(
    ("base", "last"),
    [
        (60, "Relative Improvement: 50.00%"),
        (50, "Relative Improvement: not shown, the base is not above chance (50.00%)"),
        (0, "Relative Improvement: not shown, the base is not above chance (50.00%)"),
    ],
)
def test_the_relative_improvement_is_shown_only_if_the_base_is_above_chance(base: int, last: str) -> None:
    result = figures(outcomes(100, base=base, probe=80, lora=90))
    assert result["majority_share"] == 0.5
    assert legacy_lines(result) == [
        f"Base BERT Accuracy: {base / 100:.4f} ({base:.2f}%)",
        "BERT + LoRA Accuracy: 0.9000 (90.00%)",
        f"Improvement: {90 - base:.2f} percentage points",
        last,
    ]


@pytest.mark.parametrize(
    ("where", "name", "source"),
    [
        ("test split", "test rows", ""),
        ("validation split of the data of runs/a", "validation rows", ""),
        ("test split of the data of runs/a, b", "test rows", ""),
        ("more.csv, test split", "test rows", "more.csv"),
        ("more.csv", "rows", "more.csv"),
        ("a.csv, dev split", "rows", "a.csv, dev split"),
        ("", "rows", ""),
    ],
)
def test_rows_have_the_name_of_their_split(where: str, name: str, source: str) -> None:
    assert (rows_of(where), source_of(where)) == (name, source)
