"""Advice: each fault that can be measured brings its sentence, with its figure, and a sound run brings none of them."""

from typing import Any

import numpy as np
import pytest

from bertlora.data.framing import Framing, Inputs
from bertlora.data.tokens import TokenTable
from bertlora.evaluation.advice import Evidence, advise
from bertlora.recipe import Recipe

SPECIAL = np.array([1], dtype=np.int32)


def line(
    epoch: int, train: float, validation: float | None, accuracy: float | None, best: bool = False
) -> dict[str, Any]:
    return {"epoch": epoch, "train_loss": train, "validation_loss": validation, "accuracy": accuracy, "best": best}


SOUND = [line(1, 0.5, 0.40, 0.84), line(2, 0.3, 0.35, 0.880, best=True), line(3, 0.2, 0.36, 0.878)]


def texts(lengths: list[int], **keys: Any) -> Inputs:
    framing = Framing((SPECIAL, SPECIAL), None, (0, 0), 12, "right", **keys)
    return Inputs(framing, TokenTable.of([[5] * length for length in lengths]))


def evidence(**changes: Any) -> Evidence:
    given = np.array([0, 1] * 50)
    scores = np.zeros((100, 2))
    scores[np.arange(100), given] = 1.5
    sound = {"history": SOUND, "train": texts([5, 9, 10]), "given": given, "scores": scores, "curve": []}
    return Evidence(**{"recipe": Recipe(), "labels": ["bad", "good"], **sound, **changes})


def topics(**changes: Any) -> dict[str, dict[str, str]]:
    return {found["topic"]: found for found in advise(evidence(**changes))}


def test_a_sound_run_gets_no_advice() -> None:
    assert topics() == {}


def test_overfitting() -> None:
    found = topics(history=[line(1, 0.5, 0.40, 0.85, best=True), line(2, 0.1, 0.90, 0.84)])["overfitting"]
    assert "0.400 at epoch 1" in found["figure"]
    assert "0.900 at epoch 2" in found["figure"]


def test_more_epochs_are_not_advised_where_there_were_too_many() -> None:
    assert set(topics(history=[line(1, 0.5, 0.40, 0.80), line(2, 0.1, 0.90, 0.90, best=True)])) == {"overfitting"}


def test_underfitting_and_rising_accuracy() -> None:
    found = topics(history=[line(1, 0.69, 0.68, 0.55), line(2, 0.6, 0.6, 0.62, best=True)])
    assert "0.600" in found["underfitting"]["figure"]
    assert "+7.0 points" in found["epochs"]["figure"]


@pytest.mark.parametrize(("loss", "wanted"), [(0.68, "slow"), (0.9, "overshoots")])
def test_the_heads_rate(loss: float, wanted: str) -> None:
    found = topics(history=[line(1, loss, 0.4, 0.8), *SOUND[1:]])["head"]
    assert wanted in found["text"]
    assert f"{loss:.3f}" in found["figure"]


def test_skew() -> None:
    given = np.array([0] * 80 + [1] * 20)
    scores = np.zeros((100, 2))
    scores[:88, 0] = 1.0
    scores[88:, 1] = 1.0
    found = topics(given=given, scores=scores)["skew"]
    assert "class_weights = balanced" in found["text"]
    assert found["figure"] == "recall 0.60 of 20 rows against 1.00 of 80"
    balanced = topics(given=given, scores=scores, recipe=Recipe(class_weights="balanced"))["skew"]
    assert "class_weights" not in balanced["text"]


def test_truncation() -> None:
    found = topics(train=texts([5, 10, 25]))["truncation"]
    assert found["figure"] == "33.3% of the training texts are cut, 37.5% of the tokens lost"
    assert "truncation" not in topics(
        train=texts([5, 10, 25], long_texts="windows"), recipe=Recipe(long_texts="windows")
    )


def test_labels_that_the_model_contradicts() -> None:
    scores = np.zeros((100, 2))
    scores[:, 0] = 9.0
    found = topics(given=np.array([0] * 97 + [1] * 3), scores=scores)
    assert found["labels"]["figure"].startswith("3 of 100 ")
    assert "labels" not in topics(given=np.array([0] * 99 + [1]), scores=scores)


@pytest.mark.parametrize(("last", "wanted"), [(0.84, "worth it"), (0.801, "will add little")])
def test_more_data(last: float, wanted: str) -> None:
    found = topics(curve=[(100, 0.7), (200, 0.8), (400, last)])["data"]
    assert wanted in found["text"]
    assert "with 200 rows" in found["figure"]


def test_without_validation_texts() -> None:
    found = topics(
        history=[line(1, 0.5, None, None, best=True)], given=np.zeros(0, dtype=np.int64), scores=np.zeros((0, 2))
    )
    assert found == {}
