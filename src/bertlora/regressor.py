"""LoraRegressor: a scikit-learn regressor for texts and numbers in memory."""

from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted

from bertlora.confidence.learned import Learned
from bertlora.confidence.probabilities import Array
from bertlora.confidence.spread import COVERAGE, Spread
from bertlora.data.in_memory import texts_of
from bertlora.data.targets import Bins
from bertlora.errors import DataError, InputError
from bertlora.estimator import LoraEstimator, weighted
from bertlora.task import REGRESSION

# The name of the number in a run, where no column gives one.
NAME = "value"


class LoraRegressor(RegressorMixin, LoraEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """A scikit-learn text regressor: LoRA on a small BERT. `score` is R², as of every regressor.

    Parameters are `recipe`, a recipe's name or TOML file, and every recipe key (see `bertlora recipes default`). A key
    that is None is taken from the recipe.

    Attributes:
        adapted_: the trained model.
        recipe_: the recipe with all keys resolved.
        history_: the evaluations.
        rivals_: linear probe and TF-IDF, each with ridge regression, fitted on the same texts.
        spread_: the validation rows by which intervals are chosen; none without validation.

    Example:
        >>> regressor = LoraRegressor(model="minilm", rank=8).fit(texts, scores)  # doctest: +SKIP
        >>> regressor.predict(["A joy from start to finish."])  # doctest: +SKIP
    """

    _task = REGRESSION
    spread_: Spread

    def fit(
        self,
        X: Any,  # noqa: N803
        y: Any,
        validation: tuple[Any, Any] | None = None,
        verbose: int = 0,
        sample_weight: Any = None,
    ) -> Self:
        """Trains on texts and numbers.

        Args:
            X: (N,) texts, or (N, 2) pairs of texts: a list, an array or a pandas column.
            y: (N,) numbers.
            validation: texts and numbers on which the best adapter and the intervals are chosen. None holds out
                `validation_fraction` of the rows, 0.1 if that is 30 rows or more. Without any the last adapter is kept.
            verbose: 1 shows the progress: a bar on a terminal or in a notebook, otherwise a line for each evaluation.
            sample_weight: (N,) how much each row counts in the loss, and in the fits of the rivals: 0 or more. None
                is 1 for all. A row of weight 0 is left out, one of weight 2 counts as two. Only ratios matter.
                Validation rows count equally.

        Raises:
            DataError: no texts, a target or weight that is not a finite number, a negative weight, or targets that are
                all equal.
            RecipeError: a parameter is out of its range, or does not fit a regression.
        """
        given = self._resolved()
        texts_of(X)  # a message about a row must count all of them, so before any is held out
        y = _numbers(y, "y")
        X, y, weights = weighted(X, y, sample_weight)  # noqa: N806
        strata = Bins(y).ids(y) if len(y) else None
        (X, y, weights), validation = self._with_validation(X, y, weights, validation, given, strata)  # noqa: N806
        held_out = None if validation is None else (validation[0], _numbers(validation[1], "validation"))
        names = list(self.recipe_.label_names) or [NAME]
        if len(names) > 1:
            raise DataError(f"label_names: got {len(names)}, expected one, the name of the number")
        spread = self._fitted(X, y, weights, held_out, names, verbose)
        assert isinstance(spread, Spread)
        self.spread_ = spread
        return self

    def predict(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Returns the number of each text, (N,), in the unit of y."""
        return self._outputs(X)[:, 0]

    def predict_interval(self, X: Any, coverage: float = COVERAGE) -> npt.NDArray[np.float64]:  # noqa: N803
        """Returns intervals, (N, 2): low and high. This share of them, 0..1, contains the true number.

        Raises:
            InputError: `coverage` is out of its range, or `fit` got too few validation texts.
        """
        check_is_fitted(self, "adapted_")
        half = self.spread_.predictions([NAME], sets=coverage).half
        if half is None:
            raise InputError("intervals are chosen on validation rows; give fit some")
        value: Array = self.predict(X)
        return np.column_stack([value - half, value + half])

    def _learned(self) -> tuple[Learned, dict[str, Any]]:
        return self.spread_, {"label_kind": "f"}

    @classmethod
    def load(cls, path: str | Path) -> "LoraRegressor":
        """Returns the regressor of a run folder, or of an adapter that PEFT saved.

        Raises:
            RunError: the run is unfinished, of a newer format, was trained on another base, or predicts classes.
        """
        self, run = cls._loaded(path)
        assert isinstance(run.calibration, Spread)
        self.spread_ = run.calibration
        return self


def _numbers(y: Any, name: str) -> Array:
    """Returns targets as finite numbers, (N,)."""
    try:
        found = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: expected numbers ({error})") from error
    if found.ndim != 1:
        raise DataError(f"{name}: got shape {found.shape}, expected (N,) numbers")
    odd = np.flatnonzero(~np.isfinite(found))
    if len(odd):
        raise DataError(f"{name}: row {odd[0]} is {found[odd[0]]}, expected a finite number; leave such rows out")
    return found
