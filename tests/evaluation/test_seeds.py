"""Several seeds: mean, spread and interval, against scipy."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from bertlora.errors import InputError
from bertlora.evaluation.seeds import summarise


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_mean_spread_and_interval_are_scipys(accuracies: list[float]) -> None:
    found = summarise(accuracies)
    assert found.mean == pytest.approx(np.mean(accuracies))
    assert found.deviation == pytest.approx(np.std(accuracies, ddof=1))
    assert found.mean_ci95 is not None
    if found.deviation > 1e-9:  # scipy warns of numbers that are nearly the same
        theirs = ttest_1samp(accuracies, 0.5).confidence_interval(0.95)
        assert found.mean_ci95 == pytest.approx((max(theirs.low, 0), min(theirs.high, 1)))
    assert 0 <= found.mean_ci95[0] <= found.mean + 1e-12
    assert found.mean - 1e-12 <= found.mean_ci95[1] <= 1


def test_the_sentence_by_hand() -> None:
    """Deviation √1.5 points; times t(0.975, 4 degrees) = 2.776, over √5: 1.52 points on either side of 90."""
    found = summarise([0.89, 0.91, 0.9, 0.9 + 0.01 * 2**0.5, 0.9 - 0.01 * 2**0.5])
    assert found.sentence == (
        "5 seeds: mean accuracy 90.0 %, standard deviation 1.2 points, 95 % CI of the mean 88.5 to 91.5 (across "
        "seeds, on the same rows); lowest 88.6, highest 91.4."
    )


def test_a_correlation_may_be_negative() -> None:
    low, _ = summarise([-0.1, 0.1], "Matthews correlation").mean_ci95 or (0.0, 0.0)
    assert low == -1
    assert (summarise([0.1, 0.3], "F1").mean_ci95 or (1.0, 1.0))[0] == 0


def test_a_correlation_is_no_fraction() -> None:
    found = summarise([0.98, 0.9, 0.99], "Matthews correlation")
    assert found.sentence.startswith("3 seeds: mean Matthews correlation 0.9567, standard deviation 0.04933, 95 %")
    assert found.mean_ci95 is not None
    assert found.mean_ci95[1] == 1
    assert "lowest 1.5, highest 2.5." in summarise([1.5, 2.5], "RMSE").sentence


def test_one_seed_has_no_spread() -> None:
    found = summarise([0.875])
    assert (found.mean, found.deviation, found.mean_ci95) == (0.875, None, None)
    assert found.sentence.startswith("One seed: accuracy 87.5 %;")


def test_the_interval_holds_the_true_mean_19_times_in_20() -> None:
    rng = np.random.default_rng(0)
    found = [summarise(rng.normal(0.9, 0.01, 5).tolist()).mean_ci95 for _ in range(1000)]
    held = np.mean([interval is not None and interval[0] <= 0.9 <= interval[1] for interval in found])
    assert abs(held - 0.95) < 3 * (0.95 * 0.05 / 1000) ** 0.5


def test_figures_go_into_json_and_back() -> None:
    figures = summarise([0.8, 0.9]).figures()
    assert json.loads(json.dumps(figures)) == figures
    assert set(figures) == {"metric", "accuracies", "mean", "deviation", "mean_ci95", "verdict"}
    assert figures["accuracies"] == [0.8, 0.9]


def test_no_seeds_are_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        summarise([])
