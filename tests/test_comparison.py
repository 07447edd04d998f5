"""Two classifiers on the same rows: McNemar's test, the rows it needs, and what is said of them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from bertlora.errors import InputError
from bertlora.evaluation.comparison import Comparison, mcnemar, rows_needed
from bertlora.evaluation.intervals import gain_interval

NAMES = ("the probe", "LoRA")


def outcomes(both: int, only_first: int, only_second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, only_first, only_second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


# The test


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
def test_mcnemar_equals_statsmodels(pairs: list[tuple[bool, bool]]) -> None:
    first, second = np.array(pairs).T
    table = [[np.sum((first == a) & (second == b)) for b in (True, False)] for a in (True, False)]
    expected = statsmodels_mcnemar(np.array(table), exact=True).pvalue
    assert mcnemar(first, second) == pytest.approx(expected)
    assert mcnemar(second, first) == pytest.approx(expected)


# The rows needed


@pytest.mark.parametrize(
    ("discordant", "gain", "rows"),
    [
        (0.05, 0.01, 3900),  # (1.96 √0.05 + 0.8416 √0.0499)² / 0.0001 = 3922
        (0.1, 0.01, 7800),  # 7847
        (0.2, 0.1, 150),  # 154.2
        (0.0, 0.01, 780),  # as many differences as the gain at least: 782
    ],
)
def test_rows_needed_by_hand(discordant: float, gain: float, rows: int) -> None:
    assert rows_needed(discordant, gain) == rows


def power(rows: int, discordant: float, gain: float, trials: int = 4000) -> float:
    """Returns how often McNemar's exact test finds the gain in simulated data."""
    rng = np.random.default_rng(rows)
    won, lost = (discordant + gain) / 2, (discordant - gain) / 2
    counts = rng.multinomial(rows, [lost, won, 1 - discordant], trials)
    smaller, differing = counts[:, :2].min(axis=1), counts[:, :2].sum(axis=1)
    return float(np.mean(2 * binom.cdf(smaller, differing, 0.5) < 0.05))


@pytest.mark.parametrize(("discordant", "gain"), [(0.05, 0.01), (0.1, 0.03), (0.2, 0.1)])
def test_with_the_rows_needed_four_gains_in_five_are_found(discordant: float, gain: float) -> None:
    """Two significant digits move N by up to 3 %, and the exact test is a little more careful than the formula's."""
    rows = rows_needed(discordant, gain)
    assert 0.75 < power(rows, discordant, gain) < 0.84
    assert power(rows // 2, discordant, gain) < 0.6
    assert power(2 * rows, discordant, gain) > 0.95


# What is said


def test_a_clear_gain() -> None:
    first, second = outcomes(600, 20, 200, 180)
    gain, low, high = gain_interval(first, second)
    assert Comparison.of(first, second).sentence(NAMES) == (
        f"LoRA beats the probe by 18.0 points, 95 % interval {low:.1f} to {high:.1f} "
        f"(McNemar's exact p = {mcnemar(first, second):.2g}, 1,000 rows)."
    )
    assert 0 < low < gain < high


def test_a_clear_loss_has_the_interval_the_right_way_round() -> None:
    first, second = outcomes(60, 30, 5, 5)
    _, low, high = gain_interval(first, second)
    said = Comparison.of(first, second).sentence(NAMES)
    assert said.startswith(f"LoRA falls behind the probe by 25.0 points, 95 % interval {-high:.1f} to {-low:.1f} ")
    assert 0 < -high < 25 < -low


def test_no_clear_difference_and_how_many_rows_would_show_one() -> None:
    first, second = outcomes(780, 20, 24, 48)
    _, low, high = gain_interval(first, second)
    assert Comparison.of(first, second).sentence(NAMES) == (
        f"LoRA and the probe are not distinguishable on 872 rows: +0.5 points, 95 % interval {low:+.1f} to {high:+.1f} "
        f"(McNemar's exact p = 0.65); about 4,000 rows would show a 1-point difference."
    )


def test_with_rows_enough_a_point_would_have_shown() -> None:
    said = Comparison.of(*outcomes(22_500, 620, 630, 1250)).sentence(NAMES)
    assert said.endswith("; a 1-point difference would probably have shown, as about 3,900 rows are enough.")


@pytest.mark.parametrize(
    ("counts", "gain"), [((40, 4, 6, 0), "+4.0"), ((40, 6, 4, 0), "-4.0"), ((50, 0, 0, 0), "+0.0")]
)
def test_where_nothing_can_be_said(counts: tuple[int, int, int, int], gain: str) -> None:
    said = Comparison.of(*outcomes(*counts)).sentence(NAMES)
    assert said.startswith(f"LoRA and the probe are not distinguishable on 50 rows: {gain} points, 95 % interval ")
    assert "beats" not in said
    assert "borderline" not in said


def test_where_the_interval_leaves_out_zero_and_the_test_does_not() -> None:
    """Four rows won and none lost: four heads in a row are no proof (p = 1/8)."""
    found = Comparison.of(*outcomes(46, 0, 4, 0))
    assert found.low > 0
    assert found.p == pytest.approx(0.125)
    assert not found.apart
    said = found.sentence(NAMES)
    assert said.startswith("LoRA and the probe are not distinguishable on 50 rows: +8.0 points")
    assert (
        "(McNemar's exact p = 0.12), a borderline case, as the interval leaves out zero and the test does not;" in said
    )


def test_where_the_test_leaves_out_zero_and_the_interval_does_not() -> None:
    found = Comparison(rows=100, only_first=4, only_second=14, gain=10.0, low=-0.5, high=19.0, p=0.031)
    assert not found.apart
    assert "a borderline case, as the test leaves out zero and the interval does not;" in found.sentence(NAMES)


@given(st.tuples(*[st.integers(0, 40)] * 4).filter(sum))
def test_the_sentence_never_says_more_than_test_and_interval(counts: tuple[int, int, int, int]) -> None:
    first, second = outcomes(*counts)
    said = Comparison.of(first, second).sentence(("a", "b"))
    _, low, high = gain_interval(first, second)
    sure = mcnemar(first, second) < 0.05
    assert ("b beats a" in said) == (sure and low > 0)
    assert ("b falls behind a" in said) == (sure and high < 0)
    assert ("not distinguishable" in said) == (not (sure and (low > 0 or high < 0)))
    assert ("borderline" in said) == (sure != (low > 0 or high < 0))
    assert "-0.0" not in said
    # The same the other way round; the two resamplings may differ at the edge.
    if "borderline" not in said + (other := Comparison.of(second, first).sentence(("b", "a"))):
        assert ("a falls behind b" in other) == ("b beats a" in said)


@pytest.mark.parametrize(("right", "seed"), [(0.9, 1), (0.7, 2)])
def test_two_that_are_equally_good_are_seldom_told_apart(right: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    said = [Comparison.of(rng.random(300) < right, rng.random(300) < right).apart for _ in range(400)]
    assert np.mean(said) < 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5


def test_figures_go_into_json_and_back() -> None:
    found = Comparison.of(*outcomes(780, 20, 24, 48))
    figures = found.figures(("runs/a", "runs/b"))
    assert json.loads(json.dumps(figures)) == figures
    assert (figures["rows"], figures["only_first"], figures["only_second"]) == (872, 20, 24)
    assert figures["gain_points"] == pytest.approx(100 * 4 / 872)
    assert figures["gain_points_ci95"] == [found.low, found.high]
    assert figures["rows_for_a_point"] == 4000
    assert figures["verdict"].startswith("runs/b and runs/a are not distinguishable on 872 rows")


def test_no_rows_are_refused() -> None:
    with pytest.raises(InputError, match="no rows"):
        Comparison.of(np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)).sentence(NAMES)
