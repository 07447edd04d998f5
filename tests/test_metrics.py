"""Figures of one classifier, against scikit-learn, direct resampling and sums by hand."""

import numpy as np
import pytest
import sklearn.metrics
from scipy.special import softmax

from bertlora.evaluation.metrics import accuracy_interval, calibration_error, judge, report_of

NAMES = ["negative", "neutral", "positive"]


@pytest.fixture(scope="module")
def scored() -> tuple[np.ndarray, np.ndarray]:
    """Logits (200, 3) that are right more often than not, and the right classes, skewed."""
    rng = np.random.default_rng(3)
    given = rng.choice(3, size=200, p=[0.6, 0.3, 0.1])
    return rng.normal(size=(200, 3)) + 1.5 * np.eye(3)[given], given


def test_judge_equals_scikit_learn(scored: tuple[np.ndarray, np.ndarray]) -> None:
    logits, given = scored
    predicted = logits.argmax(axis=1)
    figures = judge(logits, given, NAMES)
    assert figures["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(given, predicted))
    assert figures["macro_f1"] == pytest.approx(sklearn.metrics.f1_score(given, predicted, average="macro"))
    assert figures["loss"] == pytest.approx(sklearn.metrics.log_loss(given, softmax(logits, axis=1)))
    assert figures["confusion"] == sklearn.metrics.confusion_matrix(given, predicted).tolist()
    table = np.array([[figures["per_class"][n][k] for n in NAMES] for k in ("precision", "recall", "f1", "support")])
    assert table == pytest.approx(np.array(sklearn.metrics.precision_recall_fscore_support(given, predicted)))
    assert set(figures) == {
        "accuracy",
        "accuracy_ci95",
        "macro_f1",
        "loss",
        "ece",
        "per_class",
        "confusion",
    }


def test_supports_and_confusion_by_hand() -> None:
    given, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 0])
    figures = judge(np.eye(3)[predicted], given, NAMES)
    assert figures["confusion"] == [[2, 1, 0], [1, 1, 0], [1, 0, 0]]
    assert [figures["per_class"][name]["support"] for name in NAMES] == [3, 2, 1]
    assert figures["per_class"]["negative"]["precision"] == 0.5
    assert figures["per_class"]["negative"]["recall"] == pytest.approx(2 / 3)
    assert figures["per_class"]["positive"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}


def test_a_class_without_rows_has_a_line_and_no_warning() -> None:
    figures = judge(np.eye(3)[[0, 1, 1]], np.array([0, 1, 1]), NAMES)
    assert figures["per_class"]["positive"]["support"] == 0
    assert figures["confusion"] == [[1, 0, 0], [0, 2, 0], [0, 0, 0]]


def test_classes_may_have_the_names_of_the_reports_own_lines() -> None:
    names = ["accuracy", "macro avg", "weighted avg"]
    figures = judge(np.eye(3)[[0, 1, 2, 2]], np.array([0, 1, 2, 0]), names)
    assert list(figures["per_class"]) == names
    assert figures["per_class"]["accuracy"]["recall"] == 0.5
    assert figures["macro_f1"] == pytest.approx((2 / 3 + 1 + 2 / 3) / 3)


def test_loss_survives_large_logits() -> None:
    figures = judge(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 0]), ["a", "b"])
    assert figures["loss"] == pytest.approx(5e3)


# The interval of an accuracy


@pytest.mark.parametrize(("right", "wrong"), [(90, 10), (31, 19), (700, 300)])
def test_accuracy_interval_equals_direct_resampling(right: int, wrong: int) -> None:
    outcomes = np.repeat([True, False], [right, wrong])
    rng = np.random.default_rng(11)
    means = np.array([rng.choice(outcomes, len(outcomes)).mean() for _ in range(10_000)])
    assert accuracy_interval(outcomes) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.011)


def test_accuracy_interval_is_the_same_each_time_and_holds_the_accuracy() -> None:
    outcomes = np.arange(50) % 4 > 0
    low, high = accuracy_interval(outcomes)
    assert (low, high) == accuracy_interval(outcomes)
    assert 0 < low < outcomes.mean() < high < 1
    assert accuracy_interval(np.ones(20, dtype=bool)) == (1.0, 1.0)


# Calibration


def test_calibration_error_by_hand() -> None:
    """Bins of width 0.1: 0.95 and 0.91 (one right), 0.62 (right), 0.55 and 0.51 (none right)."""
    confidence = np.array([0.95, 0.91, 0.62, 0.55, 0.51])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    given = np.array([0, 1, 0, 1, 1])
    expected = 2 / 5 * abs(0.5 - 0.93) + 1 / 5 * abs(1 - 0.62) + 2 / 5 * abs(0 - 0.53)
    assert calibration_error(probabilities, given, bins=10) == pytest.approx(expected)


def test_calibration_error_at_the_ends() -> None:
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert calibration_error(certain, np.array([0, 1])) == 0.0
    assert calibration_error(certain, np.array([1, 0])) == 1.0


# The report


def test_report_is_scikit_learns_with_every_label(scored: tuple[np.ndarray, np.ndarray]) -> None:
    logits, given = scored
    predicted = logits.argmax(axis=1)
    expected = sklearn.metrics.classification_report(given, predicted, target_names=NAMES, output_dict=True)
    assert report_of(predicted, given, NAMES) == expected
    assert set(expected) >= set(NAMES)
