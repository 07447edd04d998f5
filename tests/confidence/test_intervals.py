"""Intervals of a fraction and of a difference: against scipy and statsmodels, and their coverage."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import bootstrap, norm
from statsmodels.stats.proportion import proportion_confint

from bertlora.confidence.intervals import FEWEST, accuracy_interval, exact_interval, gain_interval
from bertlora.errors import InputError

# Coverage is counted over this number of data sets; three standard errors of a true 95 % are 2.1 points.
DATA_SETS = 1000
ERROR = 3 * (0.95 * 0.05 / DATA_SETS) ** 0.5


def outcomes(both: int, only_first: int, only_second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, only_first, only_second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def hits(right: int, rows: int) -> np.ndarray:
    return np.arange(rows) < right


# The interval of an accuracy


@pytest.mark.parametrize(("right", "rows"), [(90, 100), (31, 50), (700, 1000), (790, 872)])
def test_accuracy_interval_is_scipys_percentile_bootstrap(right: int, rows: int) -> None:
    theirs = bootstrap((hits(right, rows),), np.mean, n_resamples=9999, method="percentile", rng=1).confidence_interval
    # Two draws of 10,000 resamples may differ by a row or so at each end.
    assert accuracy_interval(hits(right, rows)) == pytest.approx(tuple(theirs), abs=1.1 / rows)


@pytest.mark.parametrize(("right", "rows"), [(20, 20), (0, 20), (991, 1000), (9, 400), (1, 1)])
def test_with_few_wrong_or_few_right_it_is_the_exact_interval(right: int, rows: int) -> None:
    expected = proportion_confint(right, rows, method="beta")
    assert accuracy_interval(hits(right, rows)) == pytest.approx(expected)
    assert exact_interval(right, rows) == pytest.approx(expected)


@given(st.integers(1, 300).flatmap(lambda rows: st.tuples(st.integers(0, rows), st.just(rows))))
def test_accuracy_interval_contains_the_accuracy_has_width_and_is_reproducible(case: tuple[int, int]) -> None:
    right, rows = case
    low, high = accuracy_interval(hits(right, rows), resamples=500)
    assert 0 <= low <= right / rows <= high <= 1
    assert high - low > 0
    assert (low, high) == accuracy_interval(hits(right, rows), resamples=500)


@pytest.mark.parametrize(("rows", "accuracy"), [(50, 0.98), (200, 0.95), (872, 0.9), (872, 0.995)])
def test_accuracy_interval_contains_the_true_value_19_times_in_20(rows: int, accuracy: float) -> None:
    interval = cache(lambda right: accuracy_interval(hits(right, rows)))
    counts = np.random.default_rng(rows).binomial(rows, accuracy, DATA_SETS)
    found = np.array([interval(int(right)) for right in counts])
    assert np.mean((found[:, 0] <= accuracy) & (accuracy <= found[:, 1])) > 0.95 - ERROR
    # It is no wider than need be: half of the width on either side would miss far more often.
    middle, half = found.mean(axis=1), np.diff(found, axis=1)[:, 0] / 4
    assert np.mean(np.abs(middle - accuracy) <= half) < 0.9


def test_the_bootstrap_would_miss_the_true_value_if_few_rows_are_wrong() -> None:
    """Why there is another interval: 99 % right, 100 rows."""
    draws = np.random.default_rng(0).binomial(100, 0.99, DATA_SETS)
    alone = [bootstrap((hits(int(n), 100),), np.mean, n_resamples=200, method="percentile", rng=0) for n in draws[:200]]
    ends = np.array([found.confidence_interval for found in alone])
    assert np.mean((ends[:, 0] <= 0.99) & (ends[:, 1] >= 0.99)) < 0.8
    ours = np.array([accuracy_interval(hits(int(n), 100)) for n in draws[:200]])
    assert np.mean((ours[:, 0] <= 0.99) & (ours[:, 1] >= 0.99)) > 0.9


# The interval of a gain


@pytest.mark.parametrize("counts", [(70, 5, 20, 5), (30, 8, 9, 13), (450, 10, 30, 10)])
def test_gain_interval_is_scipys_paired_bootstrap(counts: tuple[int, int, int, int]) -> None:
    first, second = outcomes(*counts)
    theirs = bootstrap(
        (first, second),
        lambda a, b, axis: 100 * (b.mean(axis=axis) - a.mean(axis=axis)),
        paired=True,
        vectorized=True,
        n_resamples=9999,
        method="percentile",
        rng=2,
    ).confidence_interval
    low, high = gain_interval(counts[1], counts[2], len(first))
    assert (low, high) == pytest.approx(tuple(theirs), abs=110 / len(first))
    assert low < 100 * (second.mean() - first.mean()) < high


def score_interval(lost: int, won: int, rows: int) -> tuple[float, float]:
    """Returns the differences that a score test does not reject; a search finds the most likely fractions for each."""

    def surprise(gain: float) -> float:
        def unlikeliness(share: float) -> float:
            shares = np.array([share, share + gain, 1 - 2 * share - gain])
            return -float(np.array([lost, won, rows - lost - won]) @ np.log(np.maximum(shares, 1e-300)))

        most = (1 - gain) / 2
        search = minimize_scalar(
            unlikeliness, bounds=(max(0.0, -gain), most), method="bounded", options={"xatol": 1e-14}
        )
        share = search.x
        return float((won - lost - rows * gain) / np.sqrt(rows * (2 * share + gain * (1 - gain))))

    z = norm.ppf(0.975)
    gain = (won - lost) / rows
    low = brentq(lambda g: surprise(g) - z, -0.999, gain - 1e-6)
    high = brentq(lambda g: surprise(g) + z, gain + 1e-6, 0.999)
    return 100 * low, 100 * high


@pytest.mark.parametrize(("lost", "won", "rows"), [(1, 3, 50), (3, 1, 50), (0, 4, 30), (2, 7, 872), (5, 4, 12)])
def test_with_few_differences_it_is_the_score_interval(lost: int, won: int, rows: int) -> None:
    low, high = gain_interval(lost, won, rows)
    assert (low, high) == pytest.approx(score_interval(lost, won, rows), abs=1e-3)
    assert low < 100 * (won - lost) / rows < high


@pytest.mark.parametrize("rows", [1, 20, 872, 25_000])
def test_the_interval_of_two_equal_classifiers_has_width(rows: int) -> None:
    """If all rows agree, the score interval is known: z² / (N + z²) on either side."""
    bound = 100 * 1.959964**2 / (rows + 1.959964**2)
    assert gain_interval(0, 0, rows) == pytest.approx((-bound, bound), rel=1e-5)


@given(st.tuples(*[st.integers(0, 30)] * 3).filter(sum))
def test_gain_interval_contains_the_gain_grows_with_the_level_and_is_reproducible(counts: tuple[int, int, int]) -> None:
    (lost, won, _), rows = counts, sum(counts)
    low, high = gain_interval(lost, won, rows, resamples=500)
    assert -100 <= low <= 100 * (won - lost) / rows <= high <= 100
    assert high > low
    assert (low, high) == gain_interval(lost, won, rows, resamples=500)
    wider = gain_interval(lost, won, rows, level=0.99, resamples=500)
    assert wider[0] <= low <= high <= wider[1]


@given(
    st.integers(0, FEWEST - 1).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, FEWEST - 1 - n))),
    st.integers(1, 200),
)
def test_the_score_interval_mirrors(differing: tuple[int, int], same: int) -> None:
    lost, won = differing
    low, high = gain_interval(lost, won, lost + won + same)
    assert gain_interval(won, lost, lost + won + same) == pytest.approx((-high, -low))


def test_both_methods_give_similar_ends_at_their_border() -> None:
    """With one more difference the bootstrap is used: its ends are within a point of the score interval's."""
    below, above = (gain_interval(2, FEWEST - less, 200) for less in (3, 2))
    assert below == pytest.approx(above, abs=1.0)


@pytest.mark.parametrize(
    ("rows", "lost", "won"), [(100, 0.0, 0.05), (100, 0.1, 0.2), (872, 0.0, 0.01), (872, 0.02, 0.05), (872, 0.01, 0.01)]
)
def test_gain_interval_contains_the_true_value_19_times_in_20(rows: int, lost: float, won: float) -> None:
    interval = cache(lambda a, b: gain_interval(a, b, rows, resamples=3000))
    counts = np.random.default_rng(7).multinomial(rows, [lost, won, 1 - lost - won], DATA_SETS)
    found = np.array([interval(int(a), int(b)) for a, b, _ in counts])
    truth = 100 * (won - lost)
    # Ends are whole numbers of rows over N: one that equals the truth, up to rounding, holds it.
    assert np.mean((found[:, 0] <= truth + 1e-9) & (truth - 1e-9 <= found[:, 1])) > 0.95 - ERROR


def test_no_rows_are_refused() -> None:
    with pytest.raises(InputError, match="no rows"):
        accuracy_interval(np.zeros(0, dtype=bool))
    with pytest.raises(InputError, match="no rows"):
        gain_interval(0, 0, 0)


@given(st.integers(0, 300), st.integers(1, 300), st.floats(0.5, 0.999))
def test_exact_interval_is_statsmodels_at_each_level(right: int, rows: int, level: float) -> None:
    expected = proportion_confint(min(right, rows), rows, alpha=1 - level, method="beta")
    assert exact_interval(min(right, rows), rows, level) == pytest.approx(expected, abs=1e-9)
