"""Pairs of classifiers on the same rows: McNemar's test, the rows it needs, Holm's correction, and the sentences."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from bertlora.confidence.intervals import gain_interval
from bertlora.errors import InputError
from bertlora.evaluation.comparison import FEWEST_ROWS, Comparison, compare_all, holm
from bertlora.evaluation.gains import AccuracyGain, mcnemar, rows_needed

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
        (0.05, 0.01, 3922),  # (1.96 √0.05 + 0.8416 √0.0499)² / 0.0001
        (0.1, 0.01, 7847),
        (0.2, 0.1, 154.6),
        (0.0, 0.01, 782),  # as many differences as the gain at least
        (0.1, 0.1, 76.1),  # one way only
        (0.9, 0.9, 6 / 0.9),  # the exact test needs six differences
    ],
)
def test_rows_needed_by_hand(discordant: float, gain: float, rows: float) -> None:
    assert rows_needed(discordant, gain) == pytest.approx(rows, rel=0.002)


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
    rows = round(rows_needed(discordant, gain))
    assert 0.75 < power(rows, discordant, gain) < 0.84
    assert power(rows // 2, discordant, gain) < 0.6
    assert power(2 * rows, discordant, gain) > 0.95


# The sentences


def test_a_clear_gain() -> None:
    first, second = outcomes(600, 20, 200, 180)
    low, high = gain_interval(20, 200, 1000)
    assert Comparison.of(first, second).sentence(NAMES) == (
        f"LoRA beats the linear probe by 18.0 points, 95 % CI {low:.1f} to {high:.1f} "
        f"(McNemar's exact test, p = {mcnemar(first, second):.2g})."
    )
    assert Comparison.of(first, second).open_sentence == ""
    assert Comparison.of(first, second).figures(NAMES)["rows_to_settle"] is None
    assert 0 < low < 18 < high


def test_a_clear_loss_has_the_interval_the_right_way_round() -> None:
    first, second = outcomes(60, 30, 5, 5)
    low, high = gain_interval(30, 5, 100)
    said = Comparison.of(first, second).sentence(NAMES)
    assert said.startswith(f"LoRA is worse than the linear probe by 25.0 points, 95 % CI {-high:.1f} to {-low:.1f} ")
    assert 0 < -high < 25 < -low


def test_no_clear_difference_and_how_many_rows_would_settle_the_measured_gap() -> None:
    low, high = gain_interval(20, 24, 872)
    found = Comparison.of(*outcomes(780, 20, 24, 48))
    assert found.sentence(NAMES) == (
        f"LoRA and the linear probe do not differ significantly: +0.5 points, 95 % CI {low:+.1f} to {high:+.1f} "
        "(McNemar's exact test, p = 0.65)."
    )
    # (1.96 √(44/872) + 0.8416 √(44/872 - (4/872)²))² / (4/872)² = 18,800
    assert found.open_sentence == "If the true gap is 0.5 points, about 19,000 rows would show it."
    assert found.rows_to_settle == found.figures(NAMES)["rows_to_settle"] == 19_000


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
    assert (needed is None) == (found.significant or counts[1] == counts[2] or found.rows < FEWEST_ROWS)
    assert needed is None or needed > found.rows


def test_with_the_rows_to_settle_the_measured_gap_is_found_four_times_in_five() -> None:
    needed = Comparison.of(*outcomes(80, 5, 10, 5)).rows_to_settle
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
    gain = AccuracyGain(100, 4, 14)
    found = Comparison(gain, gain, p=0.031)
    found.__dict__["interval"] = (-0.5, 19.0)
    assert not found.significant
    assert found.sentence(NAMES).endswith(", a borderline case: the test rejects, but the interval includes zero.")


@given(st.tuples(*[st.integers(0, 40)] * 4).filter(sum))
def test_the_sentence_never_says_more_than_test_and_interval(counts: tuple[int, int, int, int]) -> None:
    first, second = outcomes(*counts)
    said = Comparison.of(first, second).sentence(("a", "b"))
    low, high = gain_interval(counts[1], counts[2], sum(counts))
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
    assert figures["tested"] == {
        "metric": "accuracy",
        "pairs": 1,
        "gain_points": figures["gain_points"],
        "gain_points_ci95": figures["gain_points_ci95"],
        "p": figures["mcnemar_p"],
    }
    assert figures["rows_for_a_point"] == 4000
    assert figures["verdict"].startswith("runs/b and runs/a do not differ significantly: +0.5 points, ")


def test_no_rows_are_refused() -> None:
    with pytest.raises(InputError, match="no rows"):
        Comparison.of(np.zeros(0, dtype=bool), np.zeros(0, dtype=bool))
    with pytest.raises(InputError, match="no rows"):
        compare_all(np.zeros(0, dtype=int), {"a": (np.zeros(0, dtype=int),) * 2}, 2)


@given(st.tuples(*[st.integers(0, 12)] * 4).filter(lambda counts: 0 < sum(counts) < FEWEST_ROWS))
def test_of_few_rows_nothing_is_said_about_the_rows_that_would_settle_it(counts: tuple[int, int, int, int]) -> None:
    found = Comparison.of(*outcomes(*counts))
    figures = found.figures(NAMES)
    assert figures["rows_for_a_point"] is None
    assert figures["rows_to_settle"] is None
    assert (
        found.significant or found.open_sentence == f"{sum(counts)} rows are too few to say how many would settle it."
    )


# Several comparisons


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_equals_statsmodels(values: list[float]) -> None:
    found = holm(values)
    assert [p for p, _ in found] == pytest.approx(multipletests(values, method="holm")[1].tolist())
    # An interval at the level 1 - 0.05 / tests excludes zero where p < 0.05 / tests: exactly where the corrected p is
    # below 0.05.
    for value, (p, tests) in zip(values, found, strict=True):
        assert (p < 0.05) == (value < 0.05 / tests)
        assert 1 <= tests <= len(values)


def test_several_pairs_are_corrected_in_words_intervals_and_figures() -> None:
    y_true = np.arange(400) % 2

    def wrong(*rows: int) -> np.ndarray:
        return np.where(np.isin(np.arange(400), rows), 1 - y_true, y_true)

    # Against `good`, `near` loses 8 rows (p = 2⁻⁷), `twin` loses 3 and wins 2, `poor` loses 60.
    good, near, poor = wrong(1, 2), wrong(*range(1, 11)), wrong(*range(1, 63))
    twin = wrong(*range(3, 6))
    alone = compare_all(y_true, {"near": (near, good)}, 2)["near"]
    assert alone.p == pytest.approx(2**-7)
    assert alone.sentence(NAMES).startswith("LoRA beats the linear probe by 2.0 points")
    found = compare_all(y_true, {"near": (near, good), "twin": (twin, good), "poor": (poor, good)}, 2)
    assert [found[name].tests for name in ("poor", "near", "twin")] == [3, 2, 1]
    assert found["near"].p == pytest.approx(2 * 2**-7)
    assert found["near"].low < alone.low
    assert "; p and interval are corrected for 3 comparisons)." in found["near"].sentence(NAMES)
    # With ten equals more, the same pair proves nothing, and its interval says the same.
    many = {"near": (near, good)} | {str(i): (twin, good) for i in range(10)}
    lost = compare_all(y_true, many, 2)["near"]
    assert (lost.p, lost.tests) == (pytest.approx(11 * 2**-7), 11)
    assert not lost.significant
    assert "LoRA and the linear probe do not differ significantly" in lost.figures(NAMES)["verdict"]
    assert lost.figures(NAMES)["mcnemar_p"] == alone.p
    assert lost.figures(NAMES)["tested"]["p"] == lost.p
    assert lost.rows_to_settle > alone.difference.rows_needed(0.05)


def test_imbalanced_classes_are_compared_by_macro_f1() -> None:
    y_true = np.repeat([0, 1], [380, 20])
    lazy = np.zeros(400, dtype=int)
    keen = np.where(np.arange(400) >= 385, 1, np.arange(400) < 12)  # 15 of 20 found, 12 false alarms
    found = compare_all(y_true, {"a": (lazy, keen)}, 2)["a"]
    assert found.accuracy.p > 0.5
    said = found.sentence(("lazy", "keen"))
    assert said.startswith(f"keen beats lazy by {found.gain:.1f} points of macro F1, 95 % CI ")
    assert f"(paired permutation test, p = {found.p:.2g})" in said
    assert found.figures(("lazy", "keen"))["tested"]["metric"] == "macro_f1"
    assert set(found.figures(("lazy", "keen"))) >= {"macro_f1", "balanced_accuracy", "matthews"}
