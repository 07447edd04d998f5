"""Two classifiers on the same rows: McNemar's test, the rows it needs, and the sentences."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from bertlora.confidence.intervals import gain_interval
from bertlora.errors import InputError
from bertlora.evaluation.comparison import Comparison, mcnemar, rows_needed

NAMES = ("the linear probe", "LoRA")


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
    """Two significant digits move N by up to 3 %, and the exact test is a little more conservative than the formula."""
    rows = rows_needed(discordant, gain)
    assert 0.75 < power(rows, discordant, gain) < 0.84
    assert power(rows // 2, discordant, gain) < 0.6
    assert power(2 * rows, discordant, gain) > 0.95


# The sentences


def test_a_clear_gain() -> None:
    first, second = outcomes(600, 20, 200, 180)
    gain, low, high = gain_interval(first, second)
    assert Comparison.of(first, second).sentence(NAMES) == (
        f"LoRA beats the linear probe by 18.0 points, 95 % CI {low:.1f} to {high:.1f} "
        f"(McNemar's exact test, p = {mcnemar(first, second):.2g})."
    )
    assert Comparison.of(first, second).open_sentence == ""
    assert Comparison.of(first, second).figures(NAMES)["rows_to_settle"] is None
    assert 0 < low < gain < high


def test_a_clear_loss_has_the_interval_the_right_way_round() -> None:
    first, second = outcomes(60, 30, 5, 5)
    _, low, high = gain_interval(first, second)
    said = Comparison.of(first, second).sentence(NAMES)
    assert said.startswith(f"LoRA is worse than the linear probe by 25.0 points, 95 % CI {-high:.1f} to {-low:.1f} ")
    assert 0 < -high < 25 < -low


def test_no_clear_difference_and_how_many_rows_would_settle_the_measured_gap() -> None:
    first, second = outcomes(780, 20, 24, 48)
    _, low, high = gain_interval(first, second)
    found = Comparison.of(first, second)
    assert found.sentence(NAMES) == (
        f"LoRA and the linear probe do not differ significantly: +0.5 points, 95 % CI {low:+.1f} to {high:+.1f} "
        "(McNemar's exact test, p = 0.65)."
    )
    # (1.96 √(44/872) + 0.8416 √(44/872 - (4/872)²))² / (4/872)² = 18,800
    assert found.open_sentence == "If the true gap is 0.5 points, about 19,000 rows would show it."
    assert found.rows_to_settle() == found.figures(NAMES)["rows_to_settle"] == 19_000


def test_no_number_of_rows_settles_a_gap_of_zero() -> None:
    found = Comparison.of(*outcomes(780, 20, 20, 52))
    assert found.open_sentence == "The measured gap is zero: more rows would only make the interval narrower."
    assert found.figures(NAMES)["rows_to_settle"] is None


def test_a_tiny_gap_is_too_small_to_settle() -> None:
    found = Comparison.of(*outcomes(22_500, 620, 630, 1250))
    assert found.open_sentence == "A gap of 0.04 points is too small to settle: it would take more than 1,000,000 rows."
    assert found.rows_for_a_point == 3900


@given(st.tuples(*[st.integers(0, 40)] * 4).filter(sum))
def test_to_settle_an_open_gap_takes_more_rows_than_there_are(counts: tuple[int, int, int, int]) -> None:
    found = Comparison.of(*outcomes(*counts))
    needed = found.figures(NAMES)["rows_to_settle"]
    assert (found.open_sentence == "") == found.significant
    assert (needed is None) == (found.significant or counts[1] == counts[2])
    assert needed is None or needed > found.rows


def test_with_the_rows_to_settle_the_measured_gap_is_found_four_times_in_five() -> None:
    found = Comparison.of(*outcomes(80, 5, 10, 5))
    needed = found.rows_to_settle()
    assert needed is not None
    assert 0.75 < power(needed, 0.15, 0.05) < 0.84


@pytest.mark.parametrize(
    ("counts", "gain"), [((40, 4, 6, 0), "+4.0"), ((40, 6, 4, 0), "-4.0"), ((50, 0, 0, 0), "+0.0")]
)
def test_a_difference_that_is_not_significant(counts: tuple[int, int, int, int], gain: str) -> None:
    said = Comparison.of(*outcomes(*counts)).sentence(NAMES)
    assert said.startswith(f"LoRA and the linear probe do not differ significantly: {gain} points, 95 % CI ")
    assert "beats" not in said
    assert "borderline" not in said


def test_the_interval_excludes_zero_but_the_test_does_not_reject() -> None:
    """Four rows won and none lost: four heads in a row prove nothing (p = 1/8)."""
    found = Comparison.of(*outcomes(46, 0, 4, 0))
    assert found.low > 0
    assert found.p == pytest.approx(0.125)
    assert not found.significant
    said = found.sentence(NAMES)
    assert said.startswith("LoRA and the linear probe do not differ significantly: +8.0 points")
    assert said.endswith(
        "(McNemar's exact test, p = 0.12), a borderline case: the interval excludes zero, but the test does not reject."
    )


def test_the_test_rejects_but_the_interval_includes_zero() -> None:
    found = Comparison(rows=100, only_first=4, only_second=14, gain=10.0, low=-0.5, high=19.0, p=0.031)
    assert not found.significant
    assert found.sentence(NAMES).endswith(", a borderline case: the test rejects, but the interval includes zero.")


@given(st.tuples(*[st.integers(0, 40)] * 4).filter(sum))
def test_the_sentence_never_says_more_than_test_and_interval(counts: tuple[int, int, int, int]) -> None:
    first, second = outcomes(*counts)
    said = Comparison.of(first, second).sentence(("a", "b"))
    _, low, high = gain_interval(first, second)
    sure = mcnemar(first, second) < 0.05
    assert ("b beats a" in said) == (sure and low > 0)
    assert ("b is worse than a" in said) == (sure and high < 0)
    assert ("do not differ significantly" in said) == (not (sure and (low > 0 or high < 0)))
    assert ("borderline" in said) == (sure != (low > 0 or high < 0))
    assert "-0.0" not in said
    # The same the other way round; the two resamplings may differ at the edge.
    if "borderline" not in said + (other := Comparison.of(second, first).sentence(("b", "a"))):
        assert ("a is worse than b" in other) == ("b beats a" in said)


@pytest.mark.parametrize(("right", "seed"), [(0.9, 1), (0.7, 2)])
def test_two_that_are_equally_good_are_seldom_significantly_different(right: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    said = [Comparison.of(rng.random(300) < right, rng.random(300) < right).significant for _ in range(400)]
    assert np.mean(said) < 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5


def test_figures_go_into_json_and_back() -> None:
    found = Comparison.of(*outcomes(780, 20, 24, 48))
    figures = found.figures(("runs/a", "runs/b"))
    assert json.loads(json.dumps(figures)) == figures
    assert (figures["rows"], figures["only_first"], figures["only_second"]) == (872, 20, 24)
    assert figures["gain_points"] == pytest.approx(100 * 4 / 872)
    assert figures["gain_points_ci95"] == [found.low, found.high]
    assert figures["rows_for_a_point"] == 4000
    assert figures["verdict"].startswith("runs/b and runs/a do not differ significantly: +0.5 points, ")


def test_no_rows_are_refused() -> None:
    with pytest.raises(InputError, match="no rows"):
        Comparison.of(np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)).sentence(NAMES)
