"""How well probabilities match outcomes: the reliability curve, the calibration error, and what chance gives."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from promises.confidence import drawn
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from statsmodels.stats.proportion import proportion_confint

from bertlora.confidence.probabilities import CalibrationError, brier_score, calibration_error, reliability

# The reliability curve


def test_calibration_error_by_hand() -> None:
    """Bins of width 0.1: 0.95 and 0.91 (one right), 0.62 (right), 0.55 and 0.51 (none right)."""
    confidence = np.array([0.95, 0.91, 0.62, 0.55, 0.51])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.array([0, 1, 0, 1, 1])
    expected = 2 / 5 * abs(0.5 - 0.93) + 1 / 5 * abs(1 - 0.62) + 2 / 5 * abs(0 - 0.53)
    assert calibration_error(probabilities, labels, bins=10) == pytest.approx(expected)
    curve = reliability(probabilities, labels, bins=10)
    assert [(b.low, b.high, b.count) for b in curve] == [(0.5, 0.6, 2), (0.6, 0.7, 1), (0.9, 1.0, 2)]
    assert [b.accuracy for b in curve] == [0.0, 1.0, 0.5]
    assert [b.confidence for b in curve] == pytest.approx([0.53, 0.62, 0.93])


def test_calibration_error_at_the_ends() -> None:
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert calibration_error(certain, np.array([0, 1])) == 0.0
    assert calibration_error(certain, np.array([1, 0])) == 1.0


@pytest.mark.parametrize("classes", [2, 4])
def test_the_reliability_curve_is_scikit_learns_with_exact_intervals(classes: int) -> None:
    logits, labels = drawn(np.random.default_rng(5), 1000, classes)
    probabilities = softmax(logits, axis=1)
    curve = reliability(probabilities, labels)
    right = probabilities.argmax(axis=1) == labels
    accuracy, confidence = calibration_curve(right, probabilities.max(axis=1), n_bins=15)
    assert [b.accuracy for b in curve] == pytest.approx(accuracy)
    assert [b.confidence for b in curve] == pytest.approx(confidence)
    for b in curve:
        assert b.accuracy_ci95 == pytest.approx(proportion_confint(round(b.accuracy * b.count), b.count, method="beta"))


@given(st.integers(2, 5), st.integers(1, 50), st.integers(0, 2**32 - 1), st.floats(0.01, 1e3), st.integers(1, 30))
def test_bins_contain_every_row_once(classes: int, rows: int, seed: int, scale: float, bins: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = softmax(scale * rng.normal(size=(rows, classes)), axis=1)
    labels = rng.integers(classes, size=rows)
    curve = reliability(probabilities, labels, bins)
    assert sum(b.count for b in curve) == rows
    for b in curve:
        assert b.low - 1e-9 <= b.confidence <= b.high + 1e-9
        assert b.accuracy_ci95[0] <= b.accuracy <= b.accuracy_ci95[1]
    assert [b.low for b in curve] == sorted({b.low for b in curve})
    # Cut in no parts, the error is the gap between mean confidence and accuracy; cutting never makes it smaller.
    whole = abs(probabilities.max(axis=1).mean() - np.mean(probabilities.argmax(axis=1) == labels))
    assert calibration_error(probabilities, labels, 1) == pytest.approx(whole)
    assert whole - 1e-12 <= calibration_error(probabilities, labels, bins) <= 1


@pytest.mark.parametrize("classes", [2, 4])
def test_brier_score_is_scikit_learns(classes: int) -> None:
    logits, labels = drawn(np.random.default_rng(6), 300, classes)
    probabilities = softmax(logits, axis=1)
    expected = sklearn.metrics.brier_score_loss(labels, probabilities, scale_by_half=False)
    assert brier_score(probabilities, labels) == pytest.approx(expected)
    if classes == 2:
        one = sklearn.metrics.brier_score_loss(labels, probabilities[:, 1])
        assert brier_score(probabilities, labels) == pytest.approx(2 * one)


# The calibration error, and what chance gives


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize(("rows", "spread"), [(300, 1.0), (800, 6.0)])
def test_the_floor_is_the_error_of_labels_drawn_from_the_probabilities(rows: int, spread: float, classes: int) -> None:
    """Labels are drawn here for each row with its own probability, not with the mean of its bin."""
    rng = np.random.default_rng(rows)
    logits = spread * rng.normal(size=(rows, classes))
    probabilities = softmax(logits, axis=1)
    drawn = [(logits + rng.gumbel(size=(rows, classes))).argmax(axis=1) for _ in range(600)]
    perfect = [calibration_error(probabilities, labels) for labels in drawn]
    found = CalibrationError.of(probabilities, drawn[0])
    assert found.value == perfect[0]
    assert found.floor == pytest.approx(np.mean(perfect), rel=0.05)
    assert found.floor_range95 == pytest.approx(tuple(np.percentile(perfect, [2.5, 97.5])), rel=0.12)
    # The bands of the bins: few accuracies are outside, because counts are whole numbers.
    outside = [
        not b.perfect_range95[0] <= b.accuracy <= b.perfect_range95[1]
        for labels in drawn[:10]
        for b in reliability(probabilities, labels)
    ]
    assert np.mean(outside) < 0.06


@pytest.mark.parametrize(("heat", "rows"), [(1.0, 300), (1.3, 100), (1.3, 2000), (3.0, 300)])
def test_the_interval_has_the_measured_error_and_says_something(heat: float, rows: int) -> None:
    """How often it has the true error is counted in `test_promises.py`."""
    widths = []
    for seed in range(20):
        logits, labels = drawn(np.random.default_rng(seed), rows, heat=heat)
        found = CalibrationError.of(softmax(logits, axis=1), labels)
        low, high = found.ci95
        assert low <= found.value <= high
        widths.append(high - low)
    assert np.mean(widths) < 4 / rows**0.5


def test_percentiles_of_a_bootstrap_would_miss_the_error_of_perfect_probabilities() -> None:
    """Why the interval has another form: the bootstrap adds noise to noise."""
    rng = np.random.default_rng(0)
    missed = []
    for _ in range(40):
        logits, labels = drawn(rng, 300, heat=1.0)
        probabilities = softmax(logits, axis=1)
        picked = rng.integers(300, size=(200, 300))
        errors = [calibration_error(probabilities[rows], labels[rows]) for rows in picked]
        missed.append(np.percentile(errors, 2.5) > 0.005)
    assert np.mean(missed) > 0.9


def test_an_overconfident_model_is_above_chance() -> None:
    """How often perfect probabilities are called wrong is counted in `test_promises.py`."""
    overconfident = [drawn(np.random.default_rng(seed), 300, heat=3.0) for seed in range(60)]
    found = [CalibrationError.of(softmax(logits, axis=1), labels).above_chance for logits, labels in overconfident]
    assert np.mean(found) > 0.9


@given(st.integers(2, 5), st.integers(1, 50), st.integers(0, 2**32 - 1), st.floats(0.01, 1e3))
def test_the_figures_are_in_their_ranges_and_reproducible(classes: int, rows: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    probabilities = softmax(scale * rng.normal(size=(rows, classes)), axis=1)
    labels = rng.integers(classes, size=rows)
    found = CalibrationError.of(probabilities, labels)
    low, high = found.floor_range95
    assert 0 <= low <= high <= 1
    assert low - 1e-12 <= found.floor <= 1
    assert 0 <= found.ci95[0] <= found.value <= found.ci95[1] <= 1
    assert found == CalibrationError.of(probabilities, labels)
