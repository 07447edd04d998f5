"""Correlations and errors of numbers: against scipy and scikit-learn, resampled, and with intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from bertlora.confidence.agreement import FIGURES, Agreement, agreement_figures, resamples
from bertlora.confidence.probabilities import Array
from bertlora.errors import InputError

NUMBERS = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=12)


def expected(predicted: Array, y_true: Array) -> dict[str, float | None]:
    constant = np.ptp(predicted) == 0 or np.ptp(y_true) == 0
    return {
        "pearson": None if constant else float(pearsonr(predicted, y_true)[0]),
        "spearman": None if constant else float(spearmanr(predicted, y_true)[0]),
        "r2": None if np.ptp(y_true) == 0 else r2_score(y_true, predicted),
        "mae": mean_absolute_error(y_true, predicted),
        "rmse": root_mean_squared_error(y_true, predicted),
    }


@given(NUMBERS, st.sampled_from([0.0, 1e6]), st.data())
def test_figures_equal_those_of_other_libraries_also_of_repeated_rows(
    pairs: list[tuple[int, int]], far: float, data: st.DataObject
) -> None:
    predicted, y_true = np.array(pairs, dtype=np.float64).T + far
    found = Agreement(predicted, y_true)
    assert found.figures == pytest.approx(expected(predicted, y_true), abs=1e-7)
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs))))
    if times.sum() > 2:
        repeated = expected(np.repeat(predicted, times), np.repeat(y_true, times))
        weighted = {name: float(value[0]) for name, value in found.of(times[None].astype(float)).items()}
        given_back = {name: None if np.isnan(value) else value for name, value in weighted.items()}
        assert given_back == pytest.approx(repeated, abs=1e-7)


def test_resamples_draw_as_many_rows_as_there_are() -> None:
    times = np.concatenate(list(resamples(30, count=500)))
    assert times.shape == (500, 30)
    assert (times.sum(axis=1) == 30).all()
    assert times.mean(axis=0) == pytest.approx(np.ones(30), abs=0.25)
    assert np.array_equal(times, np.concatenate(list(resamples(30, count=500))))


def test_an_interval_has_the_figure_and_is_narrower_with_more_rows() -> None:
    """How often it has the true figure is counted in `test_promises.py`."""
    draw, widths = np.random.default_rng(0), {}
    for rows in (50, 800):
        y_true = draw.normal(size=rows)
        found = Agreement(0.8 * y_true + 0.6 * draw.normal(size=rows), y_true)
        for name, interval in found.intervals().items():
            assert interval is not None
            assert interval[0] <= found.figures[name] <= interval[1]
            widths[name, rows] = interval[1] - interval[0]
    assert all(widths[name, 800] < widths[name, 50] / 2 for name in FIGURES)


def test_what_is_not_defined_is_none() -> None:
    found = agreement_figures(np.full(5, 3.0), np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert (found["pearson"], found["pearson_ci95"], found["spearman"]) == (None, None, None)
    assert found["r2"] == pytest.approx(0)
    assert set(found) == {key for name in FIGURES for key in (name, f"{name}_ci95")}
    with pytest.raises(InputError, match="no rows"):
        Agreement(np.zeros(0), np.zeros(0))
