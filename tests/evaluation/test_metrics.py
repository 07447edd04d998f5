"""Metrics of one classifier, against scikit-learn and values by hand. Intervals: test_intervals.py."""

import json

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given as drawn
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.preprocessing import label_binarize

from bertlora.confidence.intervals import accuracy_interval
from bertlora.confidence.probabilities import calibration_error
from bertlora.errors import InputError
from bertlora.evaluation.metrics import classification_metrics, report_of

NAMES = ["negative", "neutral", "positive"]


def scored_rows(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (200, K) that are right more often than not, and the right classes, skewed."""
    rng = np.random.default_rng(3)
    y_true = rng.choice(classes, size=200, p=[0.6, 0.3, 0.1] if classes == 3 else [0.7, 0.3])
    return rng.normal(size=(200, classes)) + 1.5 * np.eye(classes)[y_true], y_true


@pytest.fixture(scope="module")
def scored() -> tuple[np.ndarray, np.ndarray]:
    return scored_rows(3)


@pytest.mark.parametrize("classes", [2, 3])
def test_metrics_equal_scikit_learn(classes: int) -> None:
    logits, y_true = scored_rows(classes)
    predicted, probabilities = logits.argmax(axis=1), softmax(logits, axis=1)
    figures = classification_metrics(logits, y_true, NAMES[:classes])
    score = sklearn.metrics
    assert figures["accuracy"] == pytest.approx(score.accuracy_score(y_true, predicted))
    assert figures["balanced_accuracy"] == pytest.approx(score.balanced_accuracy_score(y_true, predicted))
    assert figures["macro_f1"] == pytest.approx(score.f1_score(y_true, predicted, average="macro"))
    assert figures["weighted_f1"] == pytest.approx(score.f1_score(y_true, predicted, average="weighted"))
    assert figures["matthews"] == pytest.approx(score.matthews_corrcoef(y_true, predicted))
    f1 = pytest.approx(score.f1_score(y_true, predicted)) if classes == 2 else None
    assert figures["f1"] == f1
    assert (figures["f1_ci95"] is None) == (classes == 3)
    assert figures["loss"] == pytest.approx(score.log_loss(y_true, probabilities))
    assert figures["brier"] == pytest.approx(score.brier_score_loss(y_true, probabilities, scale_by_half=False))
    assert figures["ece"] == calibration_error(probabilities, y_true)
    assert figures["accuracy_ci95"] == list(accuracy_interval(predicted == y_true))
    assert figures["confusion"] == score.confusion_matrix(y_true, predicted).tolist()
    names = NAMES[:classes]
    table = np.array([[figures["per_class"][n][k] for n in names] for k in ("precision", "recall", "f1", "support")])
    assert table == pytest.approx(np.array(score.precision_recall_fscore_support(y_true, predicted)))


def test_metrics_have_these_names_and_go_into_json(scored: tuple[np.ndarray, np.ndarray]) -> None:
    figures = classification_metrics(*scored, NAMES)
    assert json.loads(json.dumps(figures)) == figures
    assert list(figures) == [
        "accuracy",
        "accuracy_ci95",
        "balanced_accuracy",
        "balanced_accuracy_ci95",
        "macro_f1",
        "macro_f1_ci95",
        "weighted_f1",
        "matthews",
        "matthews_ci95",
        "f1",
        "f1_ci95",
        "roc_auc",
        "average_precision",
        "loss",
        "brier",
        "ece",
        "ece_ci95",
        "ece_floor",
        "ece_floor_range95",
        "per_class",
        "confusion",
        "top_confusions",
        "other_confusions",
    ]


def test_ranking_of_two_classes_ranks_the_second() -> None:
    logits, y_true = scored_rows(2)
    figures, second = classification_metrics(logits, y_true, NAMES[:2]), softmax(logits, axis=1)[:, 1]
    assert figures["roc_auc"] == pytest.approx(sklearn.metrics.roc_auc_score(y_true, second))
    assert figures["average_precision"] == pytest.approx(sklearn.metrics.average_precision_score(y_true, second))


def test_ranking_of_more_classes_is_the_mean_of_each_against_the_rest(scored: tuple[np.ndarray, np.ndarray]) -> None:
    logits, y_true = scored
    probabilities, figures = softmax(logits, axis=1), classification_metrics(logits, y_true, NAMES)
    expected = sklearn.metrics.roc_auc_score(y_true, probabilities, multi_class="ovr", average="macro")
    assert figures["roc_auc"] == pytest.approx(expected)
    marked = label_binarize(y_true, classes=range(3))
    expected = sklearn.metrics.average_precision_score(marked, probabilities, average="macro")
    assert figures["average_precision"] == pytest.approx(expected)


def test_ranking_sees_differences_that_probabilities_have_lost() -> None:
    """exp(-50) and exp(-60) both leave a probability of 1."""
    logits = np.array([[0.0, 60.0], [0.0, 50.0], [0.0, 40.0]])
    assert softmax(logits, axis=1)[0, 1] == softmax(logits, axis=1)[1, 1] == 1.0
    assert classification_metrics(logits, np.array([1, 0, 0]), ["a", "b"])["roc_auc"] == 1.0
    assert classification_metrics(logits, np.array([0, 1, 0]), ["a", "b"])["roc_auc"] == 0.5


def test_supports_and_confusion_by_hand() -> None:
    y_true, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 0])
    figures = classification_metrics(np.eye(3)[predicted], y_true, NAMES)
    assert figures["confusion"] == [[2, 1, 0], [1, 1, 0], [1, 0, 0]]
    assert [figures["per_class"][name]["support"] for name in NAMES] == [3, 2, 1]
    assert figures["per_class"]["negative"]["precision"] == 0.5
    assert figures["per_class"]["negative"]["recall"] == pytest.approx(2 / 3)
    assert figures["per_class"]["positive"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert figures["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_a_class_without_rows_has_a_line_and_no_warning() -> None:
    figures = classification_metrics(np.eye(3)[[0, 1, 2]], np.array([0, 1, 1]), NAMES)
    assert figures["per_class"]["positive"]["support"] == 0
    assert figures["confusion"] == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert figures["balanced_accuracy"] == 0.75
    assert figures["roc_auc"] is None
    assert figures["average_precision"] is None


@pytest.mark.parametrize("predicted", [0, 1])
def test_rows_of_one_class(predicted: int) -> None:
    figures = classification_metrics(np.eye(2)[[predicted] * 4], np.zeros(4, dtype=int), ["a", "b"])
    assert figures["accuracy"] == figures["balanced_accuracy"] == 1 - predicted
    assert figures["matthews"] == 0.0
    assert figures["roc_auc"] is None


def test_classes_may_have_the_names_of_the_reports_own_lines() -> None:
    names = ["accuracy", "macro avg", "weighted avg"]
    figures = classification_metrics(np.eye(3)[[0, 1, 2, 2]], np.array([0, 1, 2, 0]), names)
    assert list(figures["per_class"]) == names
    assert figures["per_class"]["accuracy"]["recall"] == 0.5
    assert figures["macro_f1"] == pytest.approx((2 / 3 + 1 + 2 / 3) / 3)


def test_loss_survives_large_logits() -> None:
    figures = classification_metrics(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 0]), ["a", "b"])
    assert figures["loss"] == pytest.approx(5e3)
    assert figures["brier"] == pytest.approx(1.0)


@drawn(st.integers(2, 5), st.integers(1, 30), st.integers(0, 2**32 - 1), st.floats(0.01, 1e3))
def test_every_figure_lies_in_its_range(classes: int, rows: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    y_true = rng.integers(classes, size=rows)
    figures = classification_metrics(scale * rng.normal(size=(rows, classes)), y_true, [str(k) for k in range(classes)])
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "ece"):
        assert 0 <= figures[name] <= 1
    assert 0 <= figures["brier"] <= 2
    assert -1 <= figures["matthews"] <= 1
    assert figures["loss"] >= 0
    whole = len(np.unique(y_true)) == classes
    for name in ("roc_auc", "average_precision"):
        assert 0 <= figures[name] <= 1 if whole else figures[name] is None


def test_no_rows_are_refused() -> None:
    with pytest.raises(InputError, match="no rows"):
        classification_metrics(np.zeros((0, 2)), np.zeros(0, dtype=int), ["a", "b"])


# The report


def test_report_is_scikit_learns_with_every_label(scored: tuple[np.ndarray, np.ndarray]) -> None:
    logits, y_true = scored
    predicted = logits.argmax(axis=1)
    expected = sklearn.metrics.classification_report(y_true, predicted, target_names=NAMES, output_dict=True)
    assert report_of(predicted, y_true, NAMES) == expected
    assert set(expected) >= set(NAMES)
