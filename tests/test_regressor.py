"""LoraRegressor: scikit-learn's conventions for regressors, and saving."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone, is_regressor
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_score
from small_training import BAD, GOOD

from bertlora import LoraClassifier, LoraRegressor
from bertlora.errors import DataError, InputError, RecipeError, RunError

TEXTS = [*GOOD, *BAD]
SCORES = np.concatenate([np.linspace(7, 10, len(GOOD)), np.linspace(0, 3, len(BAD))])
Make = Callable[..., LoraRegressor]


@pytest.fixture(scope="module")
def make(tiny: Callable[[str], Path]) -> Make:
    def regressor(**keys: Any) -> LoraRegressor:
        settings = {"batch_size": 8, "epochs": 1, "max_length": 32, "precision": "fp32", "learning_rate": 1e-2}
        return LoraRegressor(model=str(tiny("bert")), **(settings | keys))

    return regressor


@pytest.fixture(scope="module")
def fitted(make: Make) -> LoraRegressor:
    return make(epochs=10).fit(TEXTS, SCORES, validation=(TEXTS, SCORES.tolist()))


def test_it_follows_the_conventions_of_regressors(fitted: LoraRegressor, make: Make) -> None:
    assert is_regressor(fitted)
    assert clone(fitted).get_params() == fitted.get_params()
    predicted = fitted.predict(TEXTS)
    assert predicted.shape == (len(TEXTS),)
    assert fitted.score(TEXTS, SCORES) == pytest.approx(r2_score(SCORES, predicted))
    assert fitted.score(TEXTS, SCORES) > 0.5
    assert len(fitted.predict([])) == 0
    assert len(cross_val_score(make(max_steps=1), TEXTS, SCORES, cv=2, scoring="neg_mean_absolute_error")) == 2


def test_intervals_hold_the_validation_rows_that_chose_them(fitted: LoraRegressor, make: Make) -> None:
    ends = fitted.predict_interval(TEXTS, 0.75)
    assert ends.shape == (len(TEXTS), 2)
    assert np.mean((ends[:, 0] <= SCORES) & (ends[:, 1] >= SCORES)) >= 0.75
    with pytest.raises(InputError, match="sets: got 2"):
        fitted.predict_interval(TEXTS, 2)


def test_it_is_saved_as_a_run_that_a_classifier_refuses(fitted: LoraRegressor, tmp_path: Path) -> None:
    fitted.save(tmp_path / "run")
    loaded = LoraRegressor.load(tmp_path / "run")
    assert loaded.predict(TEXTS) == pytest.approx(fitted.predict(TEXTS), abs=1e-6)
    assert loaded.predict_interval(TEXTS) == pytest.approx(fitted.predict_interval(TEXTS), abs=1e-6)
    with pytest.raises(RunError, match="does regression, which LoraClassifier does not"):
        LoraClassifier.load(tmp_path / "run")


def test_targets_and_options_are_checked(make: Make) -> None:
    for targets, fault in (
        (["high"] * 16, "y: expected numbers"),
        ([*SCORES[:-1], np.nan], r"y: row 15 is nan, expected a finite number"),
        (np.zeros((16, 2)), r"y: got shape \(16, 2\)"),
        (np.full(16, 2.0), "every target of the training rows is 2"),
        (SCORES[:3], "X has 16 texts and y 3 labels"),
    ):
        with pytest.raises(DataError, match=fault):
            make().fit(TEXTS, targets)
    with pytest.raises(RecipeError, match="class_weights: got balanced, which does not fit task = regression"):
        make(class_weights="balanced").fit(TEXTS, SCORES)
