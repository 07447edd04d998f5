"""Two classifiers on the same rows: McNemar's test, the paired bootstrap, and what is said of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from bertlora.evaluation.comparison import gain_interval, mcnemar, verdict


def outcomes(both: int, only_first: int, only_second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, only_first, only_second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (2, 10, 2 * (1 + 12 + 66) / 4096),  # 0.0386: two tails of twelve fair coins
        (10, 2, 2 * (1 + 12 + 66) / 4096),
        (0, 6, 2 / 64),
        (5, 5, 1.0),
        (0, 1, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_by_hand(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(*outcomes(40, only_first, only_second, 8)) == pytest.approx(p)


def test_mcnemar_of_the_textbook() -> None:
    """Agresti's 1990 approval ratings: 150 changed one way, 86 the other; p = 3.7e-5."""
    assert mcnemar(*outcomes(794, 150, 86, 570)) == pytest.approx(3.7e-5, rel=0.02)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_equals_scipys_binomial_test(pairs: list[tuple[bool, bool]]) -> None:
    first, second = np.array(pairs).T
    lost, won = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    expected = binomtest(lost, lost + won, 0.5).pvalue if lost + won else 1.0
    assert mcnemar(first, second) == pytest.approx(expected)
    assert mcnemar(second, first) == pytest.approx(expected)


@pytest.mark.parametrize("counts", [(70, 5, 20, 5), (30, 8, 9, 13), (450, 10, 30, 10)])
def test_gain_interval_equals_a_direct_paired_bootstrap(counts: tuple[int, int, int, int]) -> None:
    first, second = outcomes(*counts)
    rng = np.random.default_rng(5)
    rows = rng.integers(len(first), size=(10_000, len(first)))
    gains = 100 * (second[rows].mean(axis=1) - first[rows].mean(axis=1))
    gain, low, high = gain_interval(first, second)
    assert gain == pytest.approx(100 * (second.mean() - first.mean()))
    assert (low, high) == pytest.approx(tuple(np.percentile(gains, [2.5, 97.5])), abs=110 / len(first))
    assert low < gain < high


def test_gain_interval_is_the_same_each_time_and_mirrors() -> None:
    first, second = outcomes(70, 5, 20, 5)
    assert gain_interval(first, second) == gain_interval(first, second)
    assert gain_interval(second, first)[0] == -gain_interval(first, second)[0]
    assert gain_interval(first, first) == (0.0, 0.0, 0.0)


def test_verdict_of_a_clear_gain() -> None:
    first, second = outcomes(600, 20, 200, 180)
    gain, low, high = gain_interval(first, second)
    assert verdict(("the probe", "LoRA"), first, second) == (
        f"LoRA beats the probe by 18.0 points, 95 % interval {low:.1f} to {high:.1f} "
        f"(McNemar's exact p = {mcnemar(first, second):.2g}, 1,000 rows)."
    )
    assert 0 < low < gain < high


def test_verdict_of_a_clear_loss_has_the_interval_the_right_way_round() -> None:
    first, second = outcomes(60, 30, 5, 5)
    _, low, high = gain_interval(first, second)
    said = verdict(("the probe", "LoRA"), first, second)
    assert said.startswith(f"LoRA falls behind the probe by 25.0 points, 95 % interval {-high:.1f} to {-low:.1f} ")
    assert 0 < -high < 25 < -low


@pytest.mark.parametrize(
    ("counts", "gain"), [((40, 4, 6, 0), "+4.0"), ((40, 6, 4, 0), "-4.0"), ((50, 0, 0, 0), "+0.0")]
)
def test_verdict_where_nothing_can_be_said(counts: tuple[int, int, int, int], gain: str) -> None:
    said = verdict(("the probe", "LoRA"), *outcomes(*counts))
    assert said.startswith(f"LoRA and the probe are not distinguishable on 50 rows: {gain} points, 95 % interval ")
    assert "beats" not in said
