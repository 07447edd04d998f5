"""Texts with several labels: figures and comparisons of models, exact intervals, runs side by side."""

import json
from typing import Any

import numpy as np
import pytest
from promises.evidence import evidence
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from bertlora.confidence.probabilities import Array, sigmoid
from bertlora.confidence.thresholds import Chosen, Thresholds
from bertlora.errors import InputError
from bertlora.evaluation.advice import advise
from bertlora.evaluation.label_gains import compare_labels
from bertlora.evaluation.label_pairs import labels_side_by_side
from bertlora.evaluation.multilabel import EvaluatedLabels, f1_interval
from bertlora.evaluation.slices import Slice
from bertlora.evaluation.value_slices import slices_of
from bertlora.evaluation.verdict import figures, verdict
from bertlora.recipe import Recipe

NAMES = ["food", "price", "staff", "absent"]
BASE_RATES = np.array([0.0, -1.0, -2.0, -50.0])


def rows_of(count: int, seed: int = 0) -> tuple[Array, Chosen]:
    """Log odds (count, 4) of the labels, and the labels; the last label is in no row."""
    draw = np.random.default_rng(seed)
    log_odds = BASE_RATES + 3 * draw.normal(size=(count, 4))
    return log_odds, draw.random((count, 4)) < sigmoid(log_odds)


def evaluated(noise: dict[str, float], count: int = 400, seed: int = 0) -> EvaluatedLabels:
    """Models that know the log odds with this much noise; LoRA is calibrated on other rows."""
    log_odds, y_true = rows_of(count, seed)
    draw = np.random.default_rng(seed + 1)
    logits = {name: log_odds + size * draw.normal(size=log_odds.shape) for name, size in noise.items()}
    fresh, truth = rows_of(300, seed + 2)
    learned = Thresholds.fit(fresh + noise["lora"] * draw.normal(size=fresh.shape), truth)
    rivals = {name: np.full(4, 0.4) for name in ("probe", "tfidf")}
    return EvaluatedLabels(NAMES, y_true, logits, learned, rivals, "test rows", {"lora": 60.0, "tfidf": 0.5})


def test_figures_of_each_label_equal_scikit_learns_and_are_json() -> None:
    e = evaluated({"base": 30.0, "probe": 4.0, "lora": 1.0})
    found = figures(e)
    json.dumps(found, allow_nan=False)
    assert (found["task"], found["n"], found["tfidf"]) == ("multilabel", 400, None)
    each = found["lora"]["per_label"]
    expected = precision_recall_fscore_support(e.y_true[:, :3], e.chosen("lora")[:, :3], zero_division=0)
    for key, values in zip(("precision", "recall", "f1", "rows"), expected, strict=True):
        assert [each[name][key] for name in NAMES[:3]] == pytest.approx(list(values))
    assert found["lora"]["macro_f1"] == pytest.approx(np.mean(expected[2]))
    ranked = [average_precision_score(e.y_true[:, k], e.logits["lora"][:, k]) for k in range(3)]
    assert [each[name]["average_precision"] for name in NAMES[:3]] == pytest.approx(ranked)
    assert (each["absent"]["rows"], each["absent"]["f1"], each["absent"]["average_precision"]) == (0, None, None)
    assert [one["threshold"] for one in each.values()] == e.learned.thresholds.tolist()
    assert {one["threshold"] for one in found["base"]["per_label"].values()} == {0.5}
    everything = precision_recall_fscore_support(e.y_true[:, :3], np.ones((400, 3)))
    assert found["chance_macro_f1"] == pytest.approx(np.mean(everything[2]))
    assert found["lora"]["subset_accuracy"] == e.right("lora").mean()
    assert "1 of 4 labels are in no row; macro F1 leaves them out." in found["verdict"]


def test_the_interval_of_an_f1_covers_the_truth() -> None:
    draw, (hit, missed, wrong) = np.random.default_rng(0), (0.1, 0.03, 0.05)
    truth, covered = 2 * hit / (2 * hit + missed + wrong), []
    for hits, misses, added, _ in draw.multinomial(60, [hit, missed, wrong, 1 - hit - missed - wrong], size=2000):
        if hits + misses:
            low, high = f1_interval(hits, hits + added, hits + misses)
            covered.append(low <= truth <= high)
    assert 0.94 <= np.mean(covered) < 1


def test_the_verdict_names_the_rival_that_is_not_beaten_first() -> None:
    won = verdict(evaluated({"base": 30.0, "probe": 9.0, "tfidf": 9.0, "lora": 0.5})).split("\n")
    assert won[0].startswith("LoRA has a macro F1 of 0.")
    assert won[1].startswith("LoRA beats the linear probe by ")
    assert "points of macro F1" in won[1]
    assert "(paired bootstrap, p = 0.0008; p and interval are corrected for 2 comparisons)" in won[1]
    assert len(won) == 3
    lost = verdict(evaluated({"base": 30.0, "probe": 9.0, "tfidf": 0.5, "lora": 4.0}))
    assert lost.startswith("LoRA is worse than TF-IDF: it has a macro F1 of 0.")
    assert "TF-IDF trained in 0.5 s, LoRA in 60.0 s." in lost


def test_equal_models_rarely_differ_significantly() -> None:
    """The bootstrap's p of two models that are equally good, and its interval: about 5 % of draws."""
    found = []
    for seed in range(60):
        log_odds, y_true = rows_of(100, seed)
        draw = np.random.default_rng(seed + 1000)
        first, second = (log_odds + 2 * draw.normal(size=log_odds.shape) > 0 for _ in range(2))
        found.append(compare_labels(y_true, {"a": (first, second)})["a"].significant)
    assert np.mean(found) <= 0.12


def test_runs_with_labels_in_another_order_are_compared_by_name() -> None:
    one, other = evaluated({"lora": 0.5}), evaluated({"lora": 6.0})
    turned = _turned(other)
    found = labels_side_by_side({"a": turned, "b": one})
    assert found["ranking"] == ["b", "a"]
    gain = one.figures("lora")["macro_f1"] - other.figures("lora")["macro_f1"]
    assert found["pairs"][0]["macro_f1"]["gain"] == pytest.approx(gain)
    (pair,), (straight,) = found["pairs"], labels_side_by_side({"a": other, "b": one})["pairs"]
    assert (pair["verdict"], pair["only_first"]) == (straight["verdict"], straight["only_first"])
    assert pair["verdict"].startswith("b beats a by ")
    strange = EvaluatedLabels([*NAMES[:3], "other"], one.y_true, one.logits, one.learned)
    with pytest.raises(InputError, match="a and c have different labels"):
        labels_side_by_side({"a": one, "c": strange})


def _turned(e: EvaluatedLabels) -> EvaluatedLabels:
    back = slice(None, None, -1)
    learned = Thresholds(*(part[..., back] for part in _parts(e.learned)))
    return EvaluatedLabels(NAMES[back], e.y_true[:, back], {"lora": e.logits["lora"][:, back]}, learned)


def _parts(learned: Thresholds) -> tuple[Any, ...]:
    return learned.temperatures, learned.thresholds, learned.logits, learned.y_true


def test_rows_without_labels_and_slices() -> None:
    e = evaluated({"probe": 1.0, "lora": 1.0})
    nothing = EvaluatedLabels(NAMES, np.zeros_like(e.y_true), e.logits, e.learned)
    json.dumps(figures(nothing), allow_nan=False)
    assert nothing.comparisons == {}
    assert "none of them has one" in verdict(nothing)
    (worst,) = slices_of(e, [Slice("word", "word 'x'", e.y_true.sum(axis=1) > 1)])["found"]
    assert worst["accuracy"] == e.right("lora")[e.y_true.sum(axis=1) > 1].mean()


def test_advice_names_the_best_rival_unless_lora_beats_it() -> None:
    e = evaluated({"tfidf": 1.0, "probe": 3.0, "lora": 1.2})
    facts: dict[str, Any] = {"recipe": Recipe(task="multilabel"), "labels": NAMES, "y_true": e.y_true, "history": []}
    facts |= {"logits": e.logits["lora"], "thresholds": {"tfidf": np.full(4, 0.4)}}
    rivals = {name: e.logits[name] for name in ("tfidf", "probe")}
    (found,) = advise(evidence(**facts, rivals=rivals))
    assert found["text"].startswith("The validation rows do not show that LoRA is better than TF-IDF: ")
    chosen = {name: sigmoid(e.logits[name]) >= share for name, share in (("tfidf", 0.4), ("probe", 0.5), ("lora", 0.5))}
    pairs = {name: (chosen[name], chosen["lora"]) for name in rivals}
    assert found["figure"].startswith(compare_labels(e.y_true, pairs)["tfidf"].sentence(("TF-IDF", "LoRA")))
    assert advise(evidence(**facts, rivals={"probe": rivals["probe"]})) == []
    assert advise(evidence(**(facts | {"y_true": np.zeros_like(e.y_true)}), rivals=rivals)) == []
