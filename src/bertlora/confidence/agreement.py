"""How well predicted numbers agree with the true ones: correlations and errors, with bootstrap intervals.

Every figure is computed for weighted rows. So all resamples of a bootstrap are computed at once: a resample is a row of
weights, how often each row was drawn.

Letters: N rows, R resamples.
"""

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from bertlora.confidence.probabilities import Array
from bertlora.errors import InputError

FIGURES = ("pearson", "spearman", "r2", "mae", "rmse")
FIGURE_NAMES = {"pearson": "Pearson", "spearman": "Spearman", "r2": "R²", "mae": "MAE", "rmse": "RMSE"}
RESAMPLES = 2_000
LEVEL = 0.95
# Numbers of all resamples that are in memory at a time.
CHUNK = 2_000_000
# A spread below this fraction of the numbers themselves is rounding.
ROUNDING = 1e-12


class Resampled:
    """Figures of N rows, each computed for weighted rows; from them, point values and bootstrap intervals."""

    def __init__(self, rows: int, count: int = RESAMPLES) -> None:
        """Takes the number of rows, and the number of resamples for the intervals."""
        if not rows:
            raise InputError("no rows to evaluate; give at least one")
        self._rows, self._count = rows, count

    @cached_property
    def figures(self) -> dict[str, float | None]:
        """The figures by name; None if one is not defined, as a correlation with equal numbers."""
        found = self.of(np.ones((1, self._rows)))
        return {name: float(value[0]) if np.isfinite(value[0]) else None for name, value in found.items()}

    def intervals(self, level: float = LEVEL, seed: int = 0) -> dict[str, list[float] | None]:
        """Returns the percentile bootstrap interval of each figure over rows; None if the figure is not defined."""
        drawn = [self.of(times) for times in resamples(self._rows, seed, self._count)]
        both: dict[str, list[float] | None] = {}
        for name, value in self.figures.items():
            draws = np.concatenate([part[name] for part in drawn])
            draws = draws[np.isfinite(draws)]
            both[name] = None if value is None or not len(draws) else list(percentiles(draws, level))
        return both

    def with_intervals(self) -> dict[str, float | list[float] | None]:
        """Returns each figure, and its 95 % interval under `NAME_ci95`."""
        ends = self.intervals()
        both: dict[str, float | list[float] | None] = {}
        for name, value in self.figures.items():
            both |= {name: value, f"{name}_ci95": ends[name]}
        return both

    def of(self, times: Array) -> dict[str, Array]:
        """Returns each figure (R,), NaN if it is not defined, for rows that occur `times` (R, N)."""
        raise NotImplementedError


class Agreement(Resampled):
    """The agreement of predictions (N,) with true numbers (N,): `FIGURES`.

    Raises:
        InputError: there are no rows.
    """

    def __init__(self, predicted: Array, y_true: Array) -> None:
        super().__init__(len(y_true))
        # Sums of squares lose digits if the numbers are far from 0. No figure depends on where 0 is.
        self._predicted, self._true = predicted - y_true.mean(), y_true - y_true.mean()
        self.errors = predicted - y_true

    def of(self, times: Array) -> dict[str, Array]:
        """Returns each figure (R,), NaN if it is not defined, for rows that occur `times` (R, N)."""
        p, y, size = self._predicted, self._true, times.sum(axis=1)
        squared = times @ self.errors**2 / size
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "pearson": correlation(times, p, y),
                "spearman": correlation(times, weighted_ranks(times, p), weighted_ranks(times, y)),
                "r2": 1 - squared / _variance(times, y),
                "mae": times @ np.abs(self.errors) / size,
                "rmse": np.sqrt(squared),
            }


def resamples(rows: int, seed: int = 0, count: int = RESAMPLES) -> Iterator[Array]:
    """Yields how often each of N rows is drawn, (R, N) float64: `count` draws of N rows with replacement, in parts."""
    random, part = np.random.default_rng(seed), max(1, CHUNK // rows)
    for begin in range(0, count, part):
        size = min(part, count - begin)
        drawn = random.integers(rows, size=(size, rows)) + rows * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)


def percentiles(draws: Array, level: float) -> tuple[float, float]:
    """Returns the ends of the middle part of draws; `level` is its share of them, 0..1."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def correlation(times: Array, first: Array, second: Array) -> Array:
    """Returns Pearson's correlation (R,) of two variables, (N,) or (R, N), for rows that occur `times` (R, N)."""
    size = times.sum(axis=1)
    means = [_sums(times, x) / size for x in (first, second)]
    covariance = _sums(times, first * second) / size - means[0] * means[1]
    return np.asarray(covariance / np.sqrt(_variance(times, first) * _variance(times, second)))


def weighted_ranks(times: Array, values: Array) -> Array:
    """Returns the rank (R, N) of each value (N,) among rows that occur `times` (R, N); equal values share their mean.

    The ranks are centred at the middle rank of all rows, for precision.
    """
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    count = np.add.reduceat(times[:, order], starts, axis=1)
    ranks = np.cumsum(count, axis=1) - (count - 1) / 2
    return np.asarray(ranks[:, group] - times.sum(axis=1, keepdims=True) / 2)


def _sums(times: Array, values: Array) -> Array:
    return np.asarray(times @ values if values.ndim == 1 else (times * values).sum(axis=1))


def _variance(times: Array, values: Array) -> Array:
    """Returns the variance (R,); NaN if it is only rounding."""
    size = times.sum(axis=1)
    squares = _sums(times, values**2) / size
    found = squares - (_sums(times, values) / size) ** 2
    return np.where(found > ROUNDING * squares, found, np.nan)


def agreement_figures(predicted: Array, y_true: Array) -> dict[str, float | list[float] | None]:
    """Returns each figure, and its 95 % interval under `NAME_ci95`."""
    return Agreement(predicted, y_true).with_intervals()
