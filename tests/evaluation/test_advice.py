"""Advice: each measured fault gives its sentence and figure, and a run without faults gives none.

`test_promises.py` counts how often each rule speaks about nothing.
"""

from typing import Any

import numpy as np
import pytest
from promises.evidence import course, evidence, learned, texts

from bertlora.evaluation.advice import advise
from bertlora.recipe import Recipe
from bertlora.rivals.probe import CurvePoint, FrozenView, fit_probe, learning_curve
from bertlora.training.checkpoints import Trace

Y_TRUE = np.arange(100) % 2


def topics(**changes: Any) -> dict[str, dict[str, str]]:
    return {found["topic"]: found for found in advise(evidence(**changes))}


def after(*epochs: tuple[float, float, float], kept: int | None = None, **recipe: Any) -> dict[str, dict[str, str]]:
    """Returns the advice after epochs with these training losses, validation losses and accuracies."""
    return topics(**course(list(epochs), Y_TRUE, kept=kept), recipe=Recipe(**recipe))


def test_a_sound_run_gets_no_advice() -> None:
    assert topics() == {}


# The course of training


def test_a_rising_validation_loss_without_a_clear_change_of_the_accuracy() -> None:
    found = after((0.3, 0.40, 0.85), (0.1, 0.90, 0.83))
    assert set(found) == {"overfitting"}
    assert "do not show whether these epochs raise or lower the accuracy" in found["overfitting"]["text"]
    assert found["overfitting"]["figure"] == (
        "validation loss 0.400 at epoch 1, 0.900 at epoch 2; training loss 0.100; accuracy 85.0% at epoch 1, 83.0% at "
        "epoch 2 (McNemar's exact test, p = 0.5)"
    )


def test_stopping_earlier_is_advised_only_if_the_later_epochs_are_clearly_less_accurate() -> None:
    found = after((0.3, 0.40, 0.85), (0.1, 0.90, 0.70))["overfitting"]["text"]
    assert found == (
        "The later epochs overfit the training texts: stop earlier (fewer epochs or best_metric = loss) or raise "
        "hidden_dropout or raise average_weights."
    )
    # Nothing recommends what is set already.
    spent = after((0.3, 0.40, 0.85), (0.1, 0.90, 0.70), best_metric="loss", hidden_dropout=0.3, average_weights=0.5)
    assert spent["overfitting"]["text"] == "The later epochs overfit the training texts: stop earlier (fewer epochs)."


def test_a_kept_epoch_that_is_clearly_more_accurate_needs_only_the_temperature() -> None:
    later = after((0.5, 0.40, 0.80), (0.1, 0.90, 0.95))["overfitting"]
    assert "Stopping earlier would lower the accuracy" in later["text"]
    assert "80.0% at epoch 1, 95.0% at epoch 2, which is kept" in later["figure"]
    # Kept in the middle: better than the epoch of the lowest loss, and again no reason to stop there.
    assert (
        "95.0% at epoch 2, which is kept"
        in after((0.5, 0.4, 0.8), (0.2, 0.45, 0.95), (0.1, 0.9, 0.94))["overfitting"]["figure"]
    )
    # The more epochs, the more likely one of them is better by chance: 6 rows of 100 are enough for two, not for three.
    assert "would lower" in after((0.5, 0.40, 0.80), (0.1, 0.90, 0.86))["overfitting"]["text"]
    assert "do not show" in after((0.5, 0.40, 0.80), (0.2, 0.5, 0.8), (0.1, 0.90, 0.86))["overfitting"]["text"]


def test_epochs_of_imbalanced_classes_are_compared_by_macro_f1() -> None:
    """The second epoch finds 8 of 10 positives at the price of 8 false alarms: as accurate, and much better."""
    y_true = (np.arange(200) < 10).astype(np.int64)
    lazy, keen = np.zeros(200, dtype=np.int64), ((np.arange(200) >= 2) & (np.arange(200) < 18)).astype(np.int64)
    found = course([(0.3, 0.40, 0.9), (0.1, 0.90, 0.9)], y_true)
    found["trace"].predicted[:] = [lazy, keen]
    said = topics(**found, y_true=y_true, logits=2.0 * np.eye(2)[y_true])["overfitting"]
    assert "Stopping earlier would lower the macro F1." in said["text"]
    assert "macro F1 48.7% at epoch 1, 79.4% at epoch 2" in said["figure"]


def test_a_validation_loss_that_rises_on_one_text_is_not_overfitting() -> None:
    found = course([(0.3, 0.40, 0.85), (0.1, 0.40, 0.85)], Y_TRUE)
    found["trace"].row_losses[1][0] += 12.0  # a mean of 0.52
    found["history"][1]["validation_loss"] = 0.52
    assert topics(**found) == {}


def test_underfitting_by_the_last_part_of_the_last_epoch() -> None:
    found = after((0.69, 0.68, 0.60), (0.6, 0.6, 0.62))["underfitting"]
    assert found["figure"] == "training loss 0.600 in the last 4 steps; chance is 0.693"
    # All linear layers have an adapter already, and the learning rate is high.
    assert found["text"] == "The model has not learned the training texts yet: raise epochs or rank."
    more = after((0.69, 0.68, 0.6), (0.6, 0.6, 0.62), targets=("query",), learning_rate=1e-4, rank=64, max_steps=9)
    assert more["underfitting"]["text"].endswith(": raise max_steps or learning_rate, or use targets = all-linear.")
    # The mean of the epoch is high, and its end is not.
    trace = Trace(np.linspace(0.8, 0.1, 64).tolist(), [np.full(100, 0.4)], [Y_TRUE])
    line = {"epoch": 1, "step": 64, "train_loss": 0.45, "validation_loss": 0.4, "accuracy": 1.0, "best": True}
    assert "underfitting" not in topics(history=[line], trace=trace, train=learned(np.arange(1024) % 2))


def test_chance_is_the_loss_of_knowing_how_frequent_the_classes_are() -> None:
    rare = learned(np.arange(200) % 20 // 19)  # 5 % of the second class
    assert evidence(train=rare).chance == pytest.approx(-0.95 * np.log(0.95) - 0.05 * np.log(0.05))
    assert evidence(train=rare, recipe=Recipe(class_weights="balanced")).chance == pytest.approx(np.log(2))
    # A loss of 0.18 is far from learned then.
    assert "chance is 0.199" in topics(train=rare, **course([(0.18, 0.3, 0.9)], Y_TRUE))["underfitting"]["figure"]


def test_an_accuracy_that_still_rises() -> None:
    found = after((0.3, 0.5, 0.80), (0.2, 0.4, 0.88))["epochs"]
    assert (
        found["figure"] == "+8.0 points in the last evaluation, from 80.0% to 88.0% (McNemar's exact test, p = 0.0078)"
    )
    assert found["text"].endswith("try more epochs.")
    assert after((0.3, 0.5, 0.80), (0.2, 0.4, 0.88), max_steps=8)["epochs"]["text"].endswith("try a larger max_steps.")
    assert "epochs" not in after((0.3, 0.5, 0.80), (0.2, 0.4, 0.85))  # five rows: p = 1/16
    assert "epochs" not in after((0.3, 0.5, 0.80), (0.2, 0.4, 0.88), epochs=10)


def test_a_head_that_overshoots() -> None:
    found = after((0.9, 0.4, 0.8), (0.3, 0.35, 0.81))["head"]
    assert found["text"] == "The head overshoots at the start: try head_learning_rate = 0.0003."
    assert found["figure"].startswith("training loss 0.900 up to epoch 1; chance is 0.693")
    assert after((0.9, 0.4, 0.8), warmup_fraction=0)["head"]["text"].endswith(" = 0.0003, or a warm-up.")


def test_a_head_that_stays_at_chance() -> None:
    found = after((0.69, 0.69, 0.5), (0.68, 0.69, 0.5))["head"]
    assert found["text"] == "The head is slow to learn: try head_learning_rate = 0.005."
    assert found["figure"].startswith(
        "training loss 0.690 up to epoch 1 and 0.680 in the last 4 steps; chance is 0.693"
    )
    assert "head" not in after((0.69, 0.69, 0.5), (0.68, 0.69, 0.5), head_learning_rate=0.02)


@pytest.mark.parametrize(
    ("epochs", "first"),
    [(((0.672, 0.6, 0.8), (0.2, 0.36, 0.8)), 1), (((0.672, 0.6, 0.8),), 1), (((0.9, 0.4, 0.8), (0.2, 0.3, 0.8)), 0.2)],
    ids=["learned later", "one epoch only", "evaluated within the first epoch"],
)
def test_a_first_loss_near_chance_says_nothing_about_the_head(epochs: Any, first: float) -> None:
    found = course(list(epochs), Y_TRUE)
    found["history"][0]["epoch"] = first
    assert "head" not in topics(**found)


# Rivals


def against(probe: int, tfidf: int, lora: int, **changes: Any) -> dict[str, dict[str, str]]:
    """Returns the advice if each model gets the first ones of 100 validation rows right."""
    right = {"probe": probe, "tfidf": tfidf, "lora": lora}
    found = {name: 1.5 * np.eye(2)[np.where(np.arange(100) < n, Y_TRUE, 1 - Y_TRUE)] for name, n in right.items()}
    return topics(logits=found.pop("lora"), rivals=found, history=[], **changes)


def test_a_rival_that_lora_is_not_shown_to_beat() -> None:
    """TF-IDF is beaten, and the linear probe is not."""
    said = against(probe=80, tfidf=60, lora=84)["rivals"]
    assert said["text"] == (
        "The validation rows do not show that LoRA is better than the linear probe: try more training rows, or another "
        "base model."
    )
    assert said["figure"].startswith("LoRA and the linear probe do not differ significantly: +4.0 points, 95 % CI ")
    assert said["figure"].endswith(" LoRA's epoch was chosen on these rows.")
    assert "rivals" not in against(probe=60, tfidf=60, lora=84)
    # A rival that is only a little better is not called better.
    assert "TF-IDF: " in against(probe=80, tfidf=86, lora=84)["rivals"]["text"]
    assert against(probe=80, tfidf=95, lora=84)["rivals"]["text"].startswith(
        "TF-IDF is better than LoRA on the validation rows: "
    )


def test_longer_inputs_are_advised_against_a_rival_only_if_texts_are_cut() -> None:
    cut = texts([5, 10, 25])
    for changes, advised in (
        ({"train": cut, "longest": 512}, "a larger max_length or truncation = head-tail or long_texts = windows"),
        ({"train": cut}, "truncation = head-tail or long_texts = windows"),
        ({"train": texts([5, 10, 25], [0, 0, 0], truncation="head-tail")}, "a base model that reads longer texts"),
    ):
        said = against(probe=80, tfidf=60, lora=84, **changes)["rivals"]["text"]
        assert f": try {advised} (" in said
        assert said.endswith(" of the tokens are not read), more training rows, or another base model.")


def test_rivals_on_imbalanced_rows_are_compared_by_macro_f1() -> None:
    """LoRA finds 16 of 20 positives and the linear probe none: 1 % more rows are right, and macro F1 is much higher."""
    y_true = (np.arange(400) < 20).astype(np.int64)
    keen = y_true.copy()
    keen[:4], keen[20:32] = 0, 1
    lazy = np.zeros(400, dtype=np.int64)
    as_accurate = {"y_true": y_true, "logits": np.eye(2)[keen], "history": []}
    assert "rivals" not in topics(**as_accurate, rivals={"probe": np.eye(2)[lazy]})
    said = topics(**(as_accurate | {"logits": np.eye(2)[lazy]}), rivals={"probe": np.eye(2)[keen]})["rivals"]
    assert said["text"].startswith("The linear probe is better than LoRA")
    assert "points of macro F1" in said["figure"]


def test_rivals_of_a_regression_are_compared_by_their_errors() -> None:
    y_true, noise = np.random.default_rng(0).normal(size=(2, 100))
    close, far = (y_true + noise)[:, None], (y_true + 2 * noise)[:, None]
    facts: dict[str, Any] = {"recipe": Recipe(task="regression"), "y_true": y_true, "labels": ["stars"]}
    assert topics(**facts, logits=close, rivals={"probe": far}) == {}
    said = topics(**facts, logits=close, rivals={"tfidf": close, "probe": far})["rivals"]
    assert said["text"].startswith("The validation rows do not show that LoRA is better than TF-IDF: ")
    assert "RMSE" in said["figure"]
    assert topics(**facts, logits=far, rivals={"probe": close})["rivals"]["text"].startswith(
        "The linear probe is better"
    )


# Texts and labels


def skewed(learned_rows: tuple[int, ...], classes: int = 2, **changes: Any) -> dict[str, dict[str, str]]:
    """Returns the advice if 12 of 20 rows of the last class are right, and all 80 of the others."""
    y_true = np.concatenate([np.arange(80) % (classes - 1), np.repeat(classes - 1, 20)])
    predicted = np.where(np.arange(100) < 88, np.minimum(y_true, classes - 2), y_true)
    train = learned(np.repeat(np.arange(classes), learned_rows))
    rest = {"labels": ["bad", "good", "so-so"][:classes], "y_true": y_true, "logits": np.eye(classes)[predicted]}
    return topics(**course([(0.2, 0.3, 0.8)], y_true), **rest, train=train, **changes)


def test_skew() -> None:
    found = skewed((81, 20))["skew"]
    assert found["text"] == "'good' is missed much more often than 'bad': set class_weights = balanced."
    assert found["figure"] == "recall 0.60 of 20 rows against 1.00 of 80"
    # It is the training rows that class weights even out, if these are skewed and not yet weighted.
    assert "class_weights" not in skewed((80, 20))["skew"]["text"]
    assert "class_weights" not in skewed((81, 20), recipe=Recipe(class_weights="balanced"))["skew"]["text"]
    assert skewed((40, 40, 40), 3)["skew"]["text"].startswith(
        "'so-so' is missed much more often than the other classes"
    )


def test_truncation() -> None:
    found = topics(train=texts([5, 10, 25]))["truncation"]
    assert found["figure"] == "33.3% of the training texts are cut, 37.5% of the tokens lost"
    assert found["text"].endswith(" is not read: try truncation = head-tail or long_texts = windows.")
    assert "head-tail" not in topics(train=texts([5, 10, 25], truncation="head-tail"))["truncation"]["text"]
    longer = topics(train=texts([5, 10, 25]), longest=512)["truncation"]
    assert longer["text"].startswith("Much of the long texts is not read: try a larger max_length or ")
    assert "truncation" not in topics(train=texts([5, 10, 25], long_texts="windows"))


def test_truncation_of_pairs_and_of_windows() -> None:
    pairs = topics(train=texts([5, 10], [4, 8]))["truncation"]  # 9 of 9 and 9 of 18 tokens are read
    assert pairs["figure"] == "50.0% of the training texts are cut, 33.3% of the tokens lost"
    assert pairs["text"].endswith(": try truncation = head-tail.")
    windows = topics(train=texts([10, 320], long_texts="windows"))["truncation"]  # 16 windows of 10 tokens
    assert windows["figure"] == f"50.0% of the training texts are cut, {160 / 330:.1%} of the tokens lost"
    assert windows["text"].endswith(": try a base model that reads longer texts.")


def test_labels_that_the_model_contradicts() -> None:
    logits = np.zeros((100, 2))
    logits[:, 0] = 9.0
    found = topics(y_true=np.array([0] * 97 + [1] * 3), logits=logits)
    assert found["labels"]["figure"].startswith("3 of 100 ")
    assert found["labels"]["figure"].endswith("if all labels were right, about 0 would be")
    assert "labels" not in topics(y_true=np.array([0] * 99 + [1]), logits=logits)
    # With a confidence of 96 %, 4 of 100 right labels are contradicted.
    logits[:, 0] = np.log(0.96 / 0.04)
    assert "labels" not in topics(y_true=np.array([0] * 95 + [1] * 5), logits=logits)
    assert "about 4 would be" in topics(y_true=np.array([0] * 88 + [1] * 12), logits=logits)["labels"]["figure"]


def curve(rows: int, *gains: float) -> list[CurvePoint]:
    before = (0.78, 0.82, 0.79, 0.81)
    return [CurvePoint(rows // 2, before), CurvePoint(rows, tuple(a + g for a, g in zip(before, gains, strict=True)))]


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (curve(400, 0.04, 0.05, 0.03, 0.04), "are likely to raise the accuracy"),
        (curve(4000, 0.001, 0.002, 0.0, 0.001), "would gain little from more texts"),
        (curve(4000, -0.01, -0.012, -0.009, -0.011), "would gain little from more texts"),
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
        "balanced accuracy of the linear probe 80.0% with 200 rows, 84.0% with 400: +4.0 points, plus or minus 1.5"
    )


def test_more_data_is_seldom_advised_by_chance() -> None:
    """Labels independent of the features: their curve rises by a point or more in about every third case."""
    random = np.random.default_rng(0)
    rises = advised = 0
    draws = [FrozenView(random.normal(size=(400, 4)), random.integers(0, 2, size=400), 2) for _ in range(30)]
    probe = fit_probe(draws[0], seed=0)  # the curve takes only its strength
    for seed, frozen in enumerate(draws):
        points = learning_curve(frozen, probe, seed)
        rises += points[-1].accuracy - points[-2].accuracy >= 0.01
        advised += "are likely to raise the accuracy" in topics(curve=points).get("data", {"text": ""})["text"]
    print(f"{rises} curves of 30 rise by a point, more data is advised for {advised}")
    assert rises >= 6
    assert advised <= 4


def test_without_validation_texts() -> None:
    none = np.zeros(0, dtype=np.int64)
    line = {"epoch": 1, "step": 4, "train_loss": 0.5, "validation_loss": None, "accuracy": None, "best": True}
    assert topics(history=[line], trace=Trace([0.5] * 4), y_true=none, logits=np.zeros((0, 2))) == {}
