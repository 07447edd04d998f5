"""Abstention: against naive loops, and what is refused; `test_promises.py` counts how often its guarantees hold."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from promises.confidence import drawn, perfect, true_accuracy
from scipy.special import softmax
from scipy.stats import binom
from statsmodels.stats.proportion import proportion_confint

from bertlora.confidence.abstention import (
    CONFIDENCE_LEVEL,
    risk_coverage,
    threshold_for_accuracy,
    threshold_for_coverage,
)
from bertlora.errors import InputError


def certain(confidence: list[float], right: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities of two classes with these confidences in class 0, and labels."""
    sure = np.array(confidence)
    return np.stack([sure, 1 - sure], axis=1), np.where(right, 0, 1)


def drawn_rows(seed: int, classes: int, rows: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities and labels; few steps give many ties."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(size=(rows, classes)) * steps) / steps
    return softmax(scores, axis=1), rng.integers(classes, size=rows)


DRAWN = st.builds(
    drawn_rows, st.integers(0, 2**32 - 1), st.integers(2, 4), st.integers(1, 60), st.sampled_from([1, 3, 1000])
)

# The risk-coverage curve


def test_risk_and_coverage_by_hand() -> None:
    curve = risk_coverage(*certain([0.9, 0.6, 0.8, 0.8, 0.7], [True, False, True, False, True]))
    assert curve.thresholds == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert curve.coverage == pytest.approx([1 / 5, 3 / 5, 4 / 5, 1])
    assert curve.risk == pytest.approx([0, 1 / 3, 1 / 4, 2 / 5])
    assert curve.area == pytest.approx((0 + 2 * 1 / 3 + 1 / 4 + 2 / 5) / 5)


@given(DRAWN)
def test_the_curve_equals_a_naive_loop(rows: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, labels = rows
    curve = risk_coverage(probabilities, labels)
    confidence = [max(row) for row in probabilities.tolist()]
    wrong = [row.index(max(row)) != label for row, label in zip(probabilities.tolist(), labels, strict=True)]
    area, before = 0.0, 0.0
    points = []
    for threshold in sorted(set(confidence), reverse=True):
        answered = [w for c, w in zip(confidence, wrong, strict=True) if c >= threshold]
        points.append((threshold, len(answered) / len(labels), sum(answered) / len(answered)))
        area += (points[-1][1] - before) * points[-1][2]
        before = points[-1][1]
    assert np.stack([curve.thresholds, curve.coverage, curve.risk], axis=1) == pytest.approx(np.array(points))
    assert curve.area == pytest.approx(area)


def test_the_area_is_the_mean_risk_if_all_confidences_differ() -> None:
    logits, labels = drawn(np.random.default_rng(0), 500)
    probabilities = softmax(logits / 10, axis=1)
    curve = risk_coverage(probabilities, labels)
    assert len(curve.risk) == 500
    assert curve.area == pytest.approx(curve.risk.mean())
    shuffled = np.random.default_rng(1).permutation(labels)
    assert curve.area < risk_coverage(probabilities, shuffled).area / 3


# A threshold for a coverage


def test_threshold_for_coverage_by_hand() -> None:
    """Nine rows make ten gaps: with one of them below, a new row is above with probability 0.9."""
    rows = certain([0.51, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9], [True] * 6 + [False] * 3)
    found = threshold_for_coverage(*rows, coverage=0.9)
    assert (found.value, found.coverage, found.accuracy) == (0.51, 1.0, pytest.approx(6 / 9))
    found = threshold_for_coverage(*rows, coverage=0.5)
    assert (found.value, found.coverage, found.accuracy) == (0.7, pytest.approx(5 / 9), pytest.approx(2 / 5))
    assert found.accuracy_ci95 == pytest.approx(proportion_confint(2, 5, method="beta"))
    assert found.promise == "a new text gets a label with a probability of at least 0.5"
    assert threshold_for_coverage(*rows, coverage=0.91).value == 0.0
    assert threshold_for_coverage(*rows, coverage=1.0).value == 0.0


# A threshold for an accuracy


def naive_threshold(probabilities: np.ndarray, labels: np.ndarray, accuracy: float) -> int | None:
    """Returns how many rows are answered: four starts, lower thresholds from each until one fails."""
    rows = len(labels)
    order = sorted(range(rows), key=lambda i: -probabilities[i].max())
    sure = [float(probabilities[i].max()) for i in order]
    counts = [n for n in range(1, rows + 1) if n == rows or sure[n] != sure[n - 1]]

    def shown(n: int) -> bool:
        wrong = sum(probabilities[i].argmax() != labels[i] for i in order[:n])
        return binom.cdf(wrong, n, 1 - accuracy) <= (1 - CONFIDENCE_LEVEL) / 4

    best = None
    for quarter in range(1, 5):
        for n in (n for n in counts if 4 * n >= quarter * rows):
            if not shown(n):
                break
            best = max(best or 0, n)
    return best


@given(DRAWN, st.floats(0.05, 0.95))
def test_threshold_for_accuracy_equals_a_naive_search(rows: tuple[np.ndarray, np.ndarray], accuracy: float) -> None:
    probabilities, labels = rows
    expected = naive_threshold(probabilities, labels, accuracy)
    if expected is None:
        with pytest.raises(InputError, match=f"on {len(labels)} validation rows; ask for less"):
            threshold_for_accuracy(probabilities, labels, accuracy)
        return
    found = threshold_for_accuracy(probabilities, labels, accuracy)
    answers = found.answers(probabilities)
    assert answers.sum() == expected
    assert found.coverage == pytest.approx(expected / len(labels))
    assert found.accuracy == pytest.approx(np.mean(probabilities[answers].argmax(axis=1) == labels[answers]))
    assert (found.value == 0) == (expected == len(labels))


def test_a_threshold_for_more_than_the_accuracy_of_all_rows_is_often_found() -> None:
    """Whether it is kept on new rows is counted in `test_promises.py`."""
    rng = np.random.default_rng(0)
    assert true_accuracy(0.0) < 0.9  # answering all would not do
    found = []
    for _ in range(40):
        with suppress(InputError):
            found.append(threshold_for_accuracy(*perfect(rng, 1000), accuracy=0.9))
    assert len(found) > 30
    assert min(one.coverage for one in found) > 0.1


def test_an_accurate_model_answers_every_row() -> None:
    found = threshold_for_accuracy(*perfect(np.random.default_rng(5), 2000), accuracy=0.8)
    assert (found.value, found.coverage) == (0.0, 1.0)
    assert found.promise == "at a confidence level of 95 %, at least 80 % of the new texts that get a label are right"


def test_an_accuracy_that_few_rows_cannot_guarantee_is_refused() -> None:
    """Fifty right rows: if one in fifty were wrong, this would happen in 36 % of cases."""
    rows = certain([0.99] * 50, [True] * 50)
    with pytest.raises(InputError, match=r"accuracy 0\.98: no threshold guarantees it on 50 validation rows"):
        threshold_for_accuracy(*rows, accuracy=0.98)
    assert threshold_for_accuracy(*rows, accuracy=0.9).coverage == 1.0


def test_the_note_says_how_many_rows_reach_the_threshold() -> None:
    rows = certain([0.51, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9], [True] * 6 + [False] * 3)
    low, high = (100 * end for end in proportion_confint(2, 5, method="beta"))
    found = threshold_for_coverage(*rows, coverage=0.5)
    assert found.note == (
        "a label from a confidence of 0.700: a new text gets a label with a probability of at least 0.5; only 5 of 9 "
        f"validation rows reach it, 40.0 % of these are right (95 % CI {low:.1f} to {high:.1f})"
    )
    many = threshold_for_coverage(*certain([0.9] * 40, [True] * 40), coverage=0.5)
    assert "; 40 of 40 validation rows reach it" in many.note


# What is refused


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    rows = certain([0.9, 0.8], [True, False])
    for ask in (threshold_for_coverage, threshold_for_accuracy):
        with pytest.raises(InputError, match="expected a fraction between 0 and 1"):
            ask(*rows, share)


def test_no_rows_are_refused() -> None:
    empty = np.zeros((0, 2)), np.zeros(0, dtype=int)
    for ask in (threshold_for_coverage, threshold_for_accuracy):
        with pytest.raises(InputError, match="no rows to choose a threshold on"):
            ask(*empty, 0.9)
    with pytest.raises(InputError, match="no rows to choose a threshold on"):
        risk_coverage(*empty)
