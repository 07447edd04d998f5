"""Figures of one classifier, against scikit-learn and sums by hand. Intervals: test_intervals.py."""

import json

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given as drawn
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.preprocessing import label_binarize

from bertlora.errors import InputError
from bertlora.evaluation.calibration import calibration_error
from bertlora.evaluation.intervals import accuracy_interval
from bertlora.evaluation.metrics import judge, report_of

NAMES = ["negative", "neutral", "positive"]


def scored_rows(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (200, K) that are right more often than not, and the right classes, skewed."""
    rng = np.random.default_rng(3)
    given = rng.choice(classes, size=200, p=[0.6, 0.3, 0.1] if classes == 3 else [0.7, 0.3])
    return rng.normal(size=(200, classes)) + 1.5 * np.eye(classes)[given], given


@pytest.fixture(scope="module")
def scored() -> tuple[np.ndarray, np.ndarray]:
    return scored_rows(3)


@pytest.mark.parametrize("classes", [2, 3])
def test_judge_equals_scikit_learn(classes: int) -> None:
    logits, given = scored_rows(classes)
    predicted, probabilities = logits.argmax(axis=1), softmax(logits, axis=1)
    figures = judge(logits, given, NAMES[:classes])
    score = sklearn.metrics
    assert figures["accuracy"] == pytest.approx(score.accuracy_score(given, predicted))
    assert figures["balanced_accuracy"] == pytest.approx(score.balanced_accuracy_score(given, predicted))
    assert figures["macro_f1"] == pytest.approx(score.f1_score(given, predicted, average="macro"))
    assert figures["weighted_f1"] == pytest.approx(score.f1_score(given, predicted, average="weighted"))
    assert figures["matthews"] == pytest.approx(score.matthews_corrcoef(given, predicted))
    assert figures["loss"] == pytest.approx(score.log_loss(given, probabilities))
    assert figures["brier"] == pytest.approx(score.brier_score_loss(given, probabilities, scale_by_half=False))
    assert figures["ece"] == calibration_error(probabilities, given)
    assert figures["accuracy_ci95"] == list(accuracy_interval(predicted == given))
    assert figures["confusion"] == score.confusion_matrix(given, predicted).tolist()
    names = NAMES[:classes]
    table = np.array([[figures["per_class"][n][k] for n in names] for k in ("precision", "recall", "f1", "support")])
    assert table == pytest.approx(np.array(score.precision_recall_fscore_support(given, predicted)))


def test_judge_has_these_figures_and_they_go_into_json(scored: tuple[np.ndarray, np.ndarray]) -> None:
    figures = judge(*scored, NAMES)
    assert json.loads(json.dumps(figures)) == figures
    assert list(figures) == [
        "accuracy",
        "accuracy_ci95",
        "balanced_accuracy",
        "macro_f1",
        "weighted_f1",
        "matthews",
        "roc_auc",
        "average_precision",
        "loss",
        "brier",
        "ece",
        "per_class",
        "confusion",
    ]


def test_ranking_of_two_classes_is_that_of_the_second() -> None:
    logits, given = scored_rows(2)
    figures, second = judge(logits, given, NAMES[:2]), softmax(logits, axis=1)[:, 1]
    assert figures["roc_auc"] == pytest.approx(sklearn.metrics.roc_auc_score(given, second))
    assert figures["average_precision"] == pytest.approx(sklearn.metrics.average_precision_score(given, second))


def test_ranking_of_more_classes_is_the_mean_of_each_against_the_rest(scored: tuple[np.ndarray, np.ndarray]) -> None:
    logits, given = scored
    probabilities, figures = softmax(logits, axis=1), judge(logits, given, NAMES)
    expected = sklearn.metrics.roc_auc_score(given, probabilities, multi_class="ovr", average="macro")
    assert figures["roc_auc"] == pytest.approx(expected)
    marked = label_binarize(given, classes=range(3))
    expected = sklearn.metrics.average_precision_score(marked, probabilities, average="macro")
    assert figures["average_precision"] == pytest.approx(expected)


def test_ranking_sees_differences_that_probabilities_have_lost() -> None:
    """exp(-50) and exp(-60) both leave a probability of 1."""
    logits = np.array([[0.0, 60.0], [0.0, 50.0], [0.0, 40.0]])
    assert softmax(logits, axis=1)[0, 1] == softmax(logits, axis=1)[1, 1] == 1.0
    assert judge(logits, np.array([1, 0, 0]), ["a", "b"])["roc_auc"] == 1.0
    assert judge(logits, np.array([0, 1, 0]), ["a", "b"])["roc_auc"] == 0.5


def test_supports_and_confusion_by_hand() -> None:
    given, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 0])
    figures = judge(np.eye(3)[predicted], given, NAMES)
    assert figures["confusion"] == [[2, 1, 0], [1, 1, 0], [1, 0, 0]]
    assert [figures["per_class"][name]["support"] for name in NAMES] == [3, 2, 1]
    assert figures["per_class"]["negative"]["precision"] == 0.5
    assert figures["per_class"]["negative"]["recall"] == pytest.approx(2 / 3)
    assert figures["per_class"]["positive"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert figures["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_a_class_without_rows_has_a_line_and_no_warning() -> None:
    figures = judge(np.eye(3)[[0, 1, 2]], np.array([0, 1, 1]), NAMES)
    assert figures["per_class"]["positive"]["support"] == 0
    assert figures["confusion"] == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert figures["balanced_accuracy"] == 0.75
    assert figures["roc_auc"] is None
    assert figures["average_precision"] is None


@pytest.mark.parametrize("predicted", [0, 1])
def test_rows_of_one_class_alone(predicted: int) -> None:
    figures = judge(np.eye(2)[[predicted] * 4], np.zeros(4, dtype=int), ["a", "b"])
    assert figures["accuracy"] == figures["balanced_accuracy"] == 1 - predicted
    assert figures["matthews"] == 0.0
    assert figures["roc_auc"] is None


def test_classes_may_have_the_names_of_the_reports_own_lines() -> None:
    names = ["accuracy", "macro avg", "weighted avg"]
    figures = judge(np.eye(3)[[0, 1, 2, 2]], np.array([0, 1, 2, 0]), names)
    assert list(figures["per_class"]) == names
    assert figures["per_class"]["accuracy"]["recall"] == 0.5
    assert figures["macro_f1"] == pytest.approx((2 / 3 + 1 + 2 / 3) / 3)


def test_loss_survives_large_logits() -> None:
    figures = judge(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 0]), ["a", "b"])
    assert figures["loss"] == pytest.approx(5e3)
    assert figures["brier"] == pytest.approx(1.0)


@drawn(st.integers(2, 5), st.integers(1, 30), st.integers(0, 2**32 - 1), st.floats(0.01, 1e3))
def test_every_figure_lies_in_its_range(classes: int, rows: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    given = rng.integers(classes, size=rows)
    figures = judge(scale * rng.normal(size=(rows, classes)), given, [str(k) for k in range(classes)])
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "ece"):
        assert 0 <= figures[name] <= 1
    assert 0 <= figures["brier"] <= 2
    assert -1 <= figures["matthews"] <= 1
    assert figures["loss"] >= 0
    whole = len(np.unique(given)) == classes
    for name in ("roc_auc", "average_precision"):
        assert 0 <= figures[name] <= 1 if whole else figures[name] is None


def test_no_rows_are_refused() -> None:
    with pytest.raises(InputError, match="no rows"):
        judge(np.zeros((0, 2)), np.zeros(0, dtype=int), ["a", "b"])


# The report


def test_report_is_scikit_learns_with_every_label(scored: tuple[np.ndarray, np.ndarray]) -> None:
    logits, given = scored
    predicted = logits.argmax(axis=1)
    expected = sklearn.metrics.classification_report(given, predicted, target_names=NAMES, output_dict=True)
    assert report_of(predicted, given, NAMES) == expected
    assert set(expected) >= set(NAMES)
