"""Advice: each measured fault gives its sentence and figure, and a run without faults gives none."""

from typing import Any

import numpy as np
import pytest

from bertlora.data.examples import Examples
from bertlora.data.inputs import Inputs
from bertlora.data.template import InputTemplate
from bertlora.data.tokens import TokenTable
from bertlora.evaluation.advice import Evidence, advise
from bertlora.model.probe import CurvePoint, FrozenView, learning_curve
from bertlora.recipe import Recipe

SPECIAL = np.array([1], dtype=np.int32)


def line(
    epoch: float, train: float, validation: float | None, accuracy: float | None, best: bool = False
) -> dict[str, Any]:
    return {"epoch": epoch, "train_loss": train, "validation_loss": validation, "accuracy": accuracy, "best": best}


SOUND = [line(1, 0.5, 0.40, 0.84), line(2, 0.3, 0.35, 0.880, best=True), line(3, 0.2, 0.36, 0.878)]


def texts(lengths: list[int], seconds: list[int] | None = None, truncation: str = "right", **keys: Any) -> Examples:
    """Returns training texts, or pairs, of these lengths in tokens; 10 tokens of a text fit, 9 of a pair."""
    framing = InputTemplate((SPECIAL, SPECIAL), (SPECIAL, SPECIAL, SPECIAL), (0, 1), 12, truncation, **keys)
    first, second = ([[5] * length for length in some] for some in (lengths, seconds or []))
    inputs = Inputs(framing, TokenTable.of(first), TokenTable.of(second) if seconds else None)
    return Examples(inputs, np.arange(len(lengths)) % 2)


def learned(bad: int, good: int) -> Examples:
    """Returns `bad` and `good` training texts of the two classes."""
    return Examples(texts([5] * (bad + good)).inputs, np.repeat([0, 1], [bad, good]))


def evidence(**changes: Any) -> Evidence:
    y_true = np.array([0, 1] * 50)
    logits = np.zeros((100, 2))
    logits[np.arange(100), y_true] = 1.5
    sound = {"history": SOUND, "train": texts([5, 9, 10]), "y_true": y_true, "logits": logits, "curve": []}
    return Evidence(**{"recipe": Recipe(), "labels": ["bad", "good"], **sound, **changes})


def topics(**changes: Any) -> dict[str, dict[str, str]]:
    return {found["topic"]: found for found in advise(evidence(**changes))}


def test_a_sound_run_gets_no_advice() -> None:
    assert topics() == {}


def test_overfitting() -> None:
    found = topics(history=[line(1, 0.5, 0.40, 0.85, best=True), line(2, 0.1, 0.90, 0.84)])["overfitting"]
    assert "0.400 at epoch 1" in found["figure"]
    assert "0.900 at epoch 2" in found["figure"]


def test_more_epochs_are_not_advised_if_there_were_too_many() -> None:
    assert set(topics(history=[line(1, 0.5, 0.40, 0.80), line(2, 0.1, 0.90, 0.90, best=True)])) == {"overfitting"}


def test_a_kept_epoch_that_is_more_accurate_needs_only_the_temperature() -> None:
    later = topics(history=[line(1, 0.5, 0.40, 0.80, best=True), line(2, 0.1, 0.90, 0.905, best=True)])["overfitting"]
    assert "temperature" in later["text"]
    assert "stop earlier (" not in later["text"]
    assert later["figure"].endswith("accuracy 80.0% at epoch 1, 90.5% at epoch 2, which is kept")
    # Kept in the middle: better than the epoch of the lowest loss, and again no reason to stop there.
    history = [line(1, 0.5, 0.40, 0.80, True), line(2, 0.2, 0.45, 0.86, True), line(3, 0.1, 0.90, 0.85)]
    assert "86.0% at epoch 2" in topics(history=history)["overfitting"]["figure"]
    # By best_metric = loss the first is kept, though a later one is more accurate: then to stop there is right.
    history = [line(1, 0.5, 0.40, 0.80, best=True), line(2, 0.1, 0.90, 0.905)]
    assert "stop earlier (" in topics(history=history)["overfitting"]["text"]


def test_underfitting_and_rising_accuracy() -> None:
    found = topics(history=[line(1, 0.69, 0.68, 0.55), line(2, 0.6, 0.6, 0.62, best=True)])
    assert "0.600" in found["underfitting"]["figure"]
    assert "+7.0 points" in found["epochs"]["figure"]


def test_a_head_that_overshoots() -> None:
    found = topics(history=[line(1.5, 0.9, 0.4, 0.8), *SOUND[1:]])["head"]
    assert "overshoots" in found["text"]
    assert found["figure"].startswith("training loss 0.900 up to epoch 1.5; chance is 0.693")


def test_a_head_that_stays_at_chance() -> None:
    found = topics(history=[line(1, 0.69, 0.69, 0.5), line(2, 0.68, 0.69, 0.5, best=True)])["head"]
    assert "slow to learn" in found["text"]
    assert found["figure"].startswith("training loss 0.690 up to epoch 1 and 0.680 at the end; chance is 0.693")


@pytest.mark.parametrize(
    "history",
    [
        [line(1, 0.672, 0.6, 0.8), *SOUND[1:]],
        [line(1, 0.672, 0.6, 0.8, best=True)],
        [line(0.2, 0.9, 0.4, 0.8), line(0.4, 0.69, 0.4, 0.8), *SOUND[1:]],
    ],
    ids=["learned later", "one epoch alone", "looked at within the first epoch"],
)
def test_a_first_loss_near_chance_says_nothing_about_the_head(history: list[dict[str, Any]]) -> None:
    assert "head" not in topics(history=history)


def test_skew() -> None:
    y_true = np.array([0] * 80 + [1] * 20)
    logits = np.zeros((100, 2))
    logits[:88, 0] = 1.0
    logits[88:, 1] = 1.0
    found = topics(y_true=y_true, logits=logits, train=learned(81, 20))["skew"]
    assert "class_weights = balanced" in found["text"]
    assert found["figure"] == "recall 0.60 of 20 rows against 1.00 of 80"
    # It is the training rows that class weights even out, where these are skewed and not yet weighted.
    weighted = Recipe(class_weights="balanced")
    for changes in ({"train": learned(80, 20)}, {"train": learned(81, 20), "recipe": weighted}):
        assert "class_weights" not in topics(y_true=y_true, logits=logits, **changes)["skew"]["text"]


def test_truncation() -> None:
    found = topics(train=texts([5, 10, 25]))["truncation"]
    assert found["figure"] == "33.3% of the training texts are cut, 37.5% of the tokens lost"
    assert found["text"].endswith("or try truncation = head-tail or long_texts = windows.")
    assert "head-tail" not in topics(train=texts([5, 10, 25], truncation="head-tail"))["truncation"]["text"]
    assert "truncation" not in topics(train=texts([5, 10, 25], long_texts="windows"))


def test_truncation_of_pairs_and_of_windows() -> None:
    pairs = topics(train=texts([5, 10], [4, 8]))["truncation"]  # 9 of 9 and 9 of 18 tokens are read
    assert pairs["figure"] == "50.0% of the training texts are cut, 33.3% of the tokens lost"
    assert pairs["text"].endswith("or try truncation = head-tail.")
    windows = topics(train=texts([10, 320], long_texts="windows"))["truncation"]  # 16 windows of 10 tokens
    assert windows["figure"] == f"50.0% of the training texts are cut, {160 / 330:.1%} of the tokens lost"
    assert windows["text"].endswith("raise max_length if the model allows it.")


def test_labels_that_the_model_contradicts() -> None:
    logits = np.zeros((100, 2))
    logits[:, 0] = 9.0
    found = topics(y_true=np.array([0] * 97 + [1] * 3), logits=logits)
    assert found["labels"]["figure"].startswith("3 of 100 ")
    assert "labels" not in topics(y_true=np.array([0] * 99 + [1]), logits=logits)


def curve(rows: int, *gains: float) -> list[CurvePoint]:
    before = (0.78, 0.82, 0.79, 0.81)
    return [CurvePoint(rows // 2, before), CurvePoint(rows, tuple(a + g for a, g in zip(before, gains, strict=True)))]


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (curve(400, 0.04, 0.05, 0.03, 0.04), "are likely to raise the accuracy"),
        (curve(4000, 0.001, 0.002, 0.0, 0.001), "are unlikely to raise the accuracy much"),
        (curve(4000, -0.01, -0.012, -0.009, -0.011), "are unlikely to raise the accuracy much"),
        (curve(4000, 0.06, -0.02, 0.05, -0.01), ""),  # 2 points, the folds at odds
        (curve(4000, 0.012, -0.01, 0.008, -0.01), ""),  # 0 points, the folds at odds
        (curve(60, 0.0, 0.0, 0.0, 0.0), ""),  # folds that agree, of a few rows
        (curve(60, 0.04, 0.05, 0.03, 0.04), ""),
        ([CurvePoint(400, (0.8, 0.8, 0.8, 0.8))], ""),
    ],
)
def test_more_data(found: list[CurvePoint], wanted: str) -> None:
    said = topics(curve=found)
    assert ("data" in said) == bool(wanted)
    assert not wanted or wanted in said["data"]["text"]


def test_the_margin_of_the_curve_is_printed() -> None:
    assert topics(curve=curve(400, 0.04, 0.05, 0.03, 0.04))["data"]["figure"] == (
        "linear probe accuracy 80.0% with 200 rows, 84.0% with 400: +4.0 points, plus or minus 0.8"
    )


def test_more_data_is_seldom_advised_by_chance() -> None:
    """Labels independent of the features: their curve rises by a point or more in about every third case."""
    random = np.random.default_rng(0)
    rises = advised = 0
    for seed in range(60):
        frozen = FrozenView(random.normal(size=(400, 4)), random.integers(0, 2, size=400), 2)
        points = learning_curve(frozen, seed)
        rises += points[-1].accuracy - points[-2].accuracy >= 0.01
        advised += "are likely to raise the accuracy" in topics(curve=points).get("data", {"text": ""})["text"]
    print(f"{rises} curves of 60 rise by a point, more data is advised for {advised}")
    assert rises >= 12
    assert advised <= 6


def test_without_validation_texts() -> None:
    found = topics(
        history=[line(1, 0.5, None, None, best=True)], y_true=np.zeros(0, dtype=np.int64), logits=np.zeros((0, 2))
    )
    assert found == {}
