"""Macro F1, balanced accuracy and Matthews: against scikit-learn and scipy, and their test against a slow one."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap
from sklearn.metrics import balanced_accuracy_score, f1_score, matthews_corrcoef

from bertlora.confidence.intervals import exact_interval
from bertlora.data.labels import imbalanced
from bertlora.evaluation.gains import AccuracyGain, ScoreGain, score_gains
from bertlora.evaluation.scores import EVERY_SCORE, SCORES, SLOPES, Confusion, leading_metric, score, score_interval

Labels = np.ndarray


def predictions(rows: int, seed: int, shares: tuple[float, ...] = (0.9, 0.1), right: float = 0.8) -> Labels:
    """Returns labels and the predictions of two classifiers, (3, N)."""
    random = np.random.default_rng(seed)
    y_true = random.choice(len(shares), rows, p=shares)
    guesses = [random.choice(len(shares), rows, p=shares) for _ in range(2)]
    return np.stack([y_true, *(np.where(random.random(rows) < right, y_true, guess) for guess in guesses)])


@given(st.integers(2, 5).flatmap(lambda k: st.lists(st.tuples(*[st.integers(0, k - 1)] * 2), min_size=2, max_size=60)))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
def test_the_scores_are_scikit_learns(rows: list[tuple[int, int]]) -> None:
    y_true, predicted = np.array(rows).T
    classes = int(max(y_true.max(), predicted.max(), 1)) + 1
    confusion = Confusion.of(y_true, predicted, classes)
    f1 = f1_score(y_true, predicted, labels=range(classes), average="macro", zero_division=0)
    assert score("macro_f1", confusion) == pytest.approx(f1)
    assert score("balanced_accuracy", confusion) == pytest.approx(balanced_accuracy_score(y_true, predicted))
    assert score("matthews", confusion) == pytest.approx(matthews_corrcoef(y_true, predicted))
    for name in SCORES:
        low, high = score_interval(name, confusion)
        assert (-1 if name == "matthews" else 0) <= low < high <= 1
        assert low <= score(name, confusion) + 1e-9
        assert score(name, confusion) - 1e-9 <= high
        wider = score_interval(name, confusion, 0.99)
        assert wider[0] <= low < high <= wider[1] + 1e-9


@pytest.mark.parametrize("shares", [(0.9, 0.1), (0.5, 0.5), (0.5, 0.3, 0.2)])
@pytest.mark.parametrize("name", SCORES)
def test_intervals_are_near_scipys_bootstrap(name: str, shares: tuple[float, ...]) -> None:
    y_true, first, second = predictions(1500, 3, shares)
    classes = len(shares)

    def resampled(y: Labels, *guesses: Labels) -> float:
        found = [score(name, Confusion.of(y, guess, classes)) for guess in guesses]
        return found[-1] - (found[0] if len(found) > 1 else 0.0)

    settings = {"paired": True, "vectorized": False, "n_resamples": 2000, "method": "percentile", "rng": 1}
    one = bootstrap((y_true, first), resampled, **settings).confidence_interval
    assert score_interval(name, Confusion.of(y_true, first, classes)) == pytest.approx(tuple(one), abs=0.006)
    two = bootstrap((y_true, first, second), resampled, **settings).confidence_interval
    gain = score_gains(y_true, first, second, classes)[name]
    assert gain.interval() == pytest.approx((100 * two.low, 100 * two.high), abs=0.6)
    assert gain.gain == pytest.approx(100 * resampled(y_true, first, second))


@pytest.mark.parametrize("shares", [(0.9, 0.1), (0.3, 0.7)])
def test_the_interval_of_f1_is_near_scipys_bootstrap(shares: tuple[float, float]) -> None:
    y_true, predicted, _ = predictions(1500, 3, shares)
    confusion = Confusion.of(y_true, predicted, 2)
    assert score("f1", confusion) == pytest.approx(f1_score(y_true, predicted, pos_label=1))
    settings = {"paired": True, "vectorized": False, "n_resamples": 2000, "method": "percentile", "rng": 1}
    found = bootstrap((y_true, predicted), lambda *rows: score("f1", Confusion.of(*rows, 2)), **settings)
    assert score_interval("f1", confusion) == pytest.approx(tuple(found.confidence_interval), abs=0.006)


@given(st.integers(2, 5).flatmap(lambda k: st.lists(st.tuples(*[st.integers(0, k - 1)] * 2), min_size=6, max_size=60)))
@pytest.mark.parametrize("name", SLOPES)
def test_slopes_are_what_a_little_more_of_a_cell_changes(name: str, rows: list[tuple[int, int]]) -> None:
    y_true, predicted = np.array(rows).T
    table = np.full((5, 5), 0.3)  # each class has rows, and is predicted
    np.add.at(table, (y_true, predicted), 1.0)
    counts = [np.diagonal(table), table.sum(axis=0), table.sum(axis=1)]
    slopes = SLOPES[name](*counts)
    for i in range(5):
        found = slopes.of(np.full(5, i), np.arange(5))
        for j in range(5):
            more = table.copy()
            more[i, j] += 1e-6
            after = EVERY_SCORE[name](np.diagonal(more), more.sum(axis=0), more.sum(axis=1))
            assert found[j] == pytest.approx(float(after - EVERY_SCORE[name](*counts)) / 1e-6, abs=1e-6)
        wrong = np.delete(found, i)
        assert slopes.right[i] == pytest.approx(found[i])
        assert slopes.wrong()[i] == pytest.approx(wrong.mean())
        assert slopes.wrong(2)[i] == pytest.approx((wrong**2).mean())


def test_balanced_accuracy_of_two_equal_classes_has_nearly_the_exact_interval_of_an_accuracy() -> None:
    y_true = np.arange(400) % 2
    for wrong in (0, 8, 80):
        predicted = np.where(np.arange(400) < wrong, 1 - y_true, y_true)
        expected = exact_interval(400 - wrong, 400)
        assert score_interval("balanced_accuracy", Confusion.of(y_true, predicted, 2)) == pytest.approx(
            expected, abs=2e-3
        )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_permutation_test_is_the_one_that_swaps_row_by_row(seed: int) -> None:
    y_true, first, second = predictions(120, seed, (0.7, 0.2, 0.1), 0.6)
    random = np.random.default_rng(9)
    swaps = random.random((4000, 120)) < 0.5
    for name, gain in score_gains(y_true, first, second, 3).items():
        found = [
            abs(score(name, Confusion.of(y_true, b, 3)) - score(name, Confusion.of(y_true, a, 3)))
            for a, b in zip(np.where(swaps, second, first), np.where(swaps, first, second), strict=True)
        ]
        slow = np.mean(np.array(found) >= abs(gain.gain) / 100 - 1e-9)
        assert gain.p == pytest.approx(slow, abs=4 * (slow * (1 - slow) / 4000) ** 0.5 + 2e-3)


@given(st.integers(1, 60), st.integers(0, 1000))
def test_swapping_the_classifiers_mirrors_the_gain(rows: int, seed: int) -> None:
    y_true, first, second = predictions(rows, seed)
    for name, gain in score_gains(y_true, first, second, 2).items():
        other = score_gains(y_true, second, first, 2)[name]
        assert (other.gain, other.error) == pytest.approx((-gain.gain, gain.error))
        assert other.p == pytest.approx(gain.p, abs=0.03)


def test_equal_classifiers_have_an_interval_with_width_and_p_of_one() -> None:
    y_true, first, _ = predictions(200, 0)
    for gain in score_gains(y_true, first, first, 2).values():
        low, high = gain.interval()
        assert (gain.gain, gain.p, low) == (0, 1, -high)
        assert high > 0.5
        assert gain.rows_needed(0.05) is None


def test_with_equal_classes_the_balanced_accuracy_needs_as_many_rows_as_the_accuracy() -> None:
    y_true = np.arange(2000) % 2
    first, second = (np.where(np.arange(2000) % 20 < wrong, 1 - y_true, y_true) for wrong in (4, 3))
    second = np.where(np.arange(2000) % 40 == 25, 1 - y_true, second)
    gain = score_gains(y_true, first, second, 2)["balanced_accuracy"]
    accuracy = AccuracyGain.of(first == y_true, second == y_true)
    assert gain.gain == pytest.approx(accuracy.gain)
    assert gain.rows_needed(0.05) == pytest.approx(accuracy.rows_needed(0.05), rel=0.1)


def test_figures_are_fractions() -> None:
    assert ScoreGain("macro_f1", 100, 2.0, 1.0, 0.04).figures() == {
        "gain": 0.02,
        "ci95": pytest.approx([0.02 - 0.0195996, 0.02 + 0.0195996], abs=1e-6),
        "p": 0.04,
    }


@pytest.mark.parametrize(
    ("counts", "said"), [((80, 20), False), ((81, 20), True), ((50, 50), False), ((0, 7), False), ((90, 0, 30), False)]
)
def test_classes_are_imbalanced_below_a_quarter_of_the_largest(counts: tuple[int, ...], said: bool) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    assert imbalanced(labels) == said
    assert leading_metric(labels) == ("macro_f1" if said else "accuracy")
    assert not imbalanced(np.zeros(0, dtype=np.int64))


@pytest.mark.parametrize(("rows", "classes"), [(4000, 2), (4000, 40)])
def test_a_comparison_takes_less_than_a_second(rows: int, classes: int) -> None:
    y_true, first, second = predictions(rows, 0, (1 / classes,) * classes)
    began = time.process_time()
    score_gains(y_true, first, second, classes)
    for name in SCORES:
        score_interval(name, Confusion.of(y_true, first, classes))
    assert time.process_time() - began < 2
