"""Recipes under the same seeds: the analysis of variance against statsmodels, and the words."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from bertlora.evaluation.recipes import RecipeGain, compare_recipes

SEEDS = [1, 2, 3]


def runs(accuracy: float, seed: int, rows: int = 200, seeds: int = 3) -> np.ndarray:
    """Returns which rows the runs of a recipe get right, (S, N); some rows are harder than others."""
    random = np.random.default_rng(seed)
    difficulty = np.random.default_rng(0).random(rows) ** (1 / accuracy - 1)
    return random.random((seeds, rows)) < difficulty


def test_the_standard_error_is_the_one_of_a_two_way_analysis_of_variance() -> None:
    points = 100.0 * (runs(0.8, 1, 60, 4).astype(float) - runs(0.7, 2, 60, 4))
    seed, row = np.indices(points.shape)
    frame = pd.DataFrame({"points": points.ravel(), "seed": seed.ravel(), "row": row.ravel()})
    squares = anova_lm(ols("points ~ C(seed) + C(row)", frame).fit())["mean_sq"]
    of_seeds, of_rows = squares["C(seed)"], max(squares["C(row)"] - squares["Residual"], 0)
    found = RecipeGain(points)
    assert found.error == pytest.approx(((of_seeds + of_rows) / points.size) ** 0.5)
    assert found.degrees == pytest.approx(3 * (of_seeds + of_rows) ** 2 / of_seeds**2)
    assert found.gain == pytest.approx(points.mean())


def test_the_test_over_seeds_is_scipys() -> None:
    first, second = runs(0.7, 1), runs(0.8, 2)
    found = RecipeGain(100.0 * (second.astype(float) - first))
    theirs = ttest_rel(second.mean(axis=1), first.mean(axis=1))
    assert found.p_seeds == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize("seed", range(20))
def test_test_and_interval_agree(seed: int) -> None:
    found = RecipeGain(100.0 * (runs(0.75, seed).astype(float) - runs(0.7, seed + 100)))
    low, high = found.interval()
    assert low < found.gain < high
    assert (found.p < 0.05) == (low > 0 or high < 0)


def test_equal_recipes_have_no_difference() -> None:
    found = RecipeGain(np.zeros((3, 50)))
    assert (found.gain, found.p, found.p_seeds, found.interval()) == (0, 1, 1, (0, 0))


def test_recipes_are_compared() -> None:
    y_true = np.arange(200) % 2
    found = compare_recipes(y_true, {"a": runs(0.6, 1), "b": runs(0.9, 2), "c": runs(0.6, 3)}, SEEDS)
    assert json.loads(json.dumps(found)) == found
    assert (found["n"], found["seeds"], found["metric"], found["ranking"][0]) == (200, SEEDS, "accuracy", "b")
    assert found["runs"]["a"]["accuracies"] == pytest.approx(runs(0.6, 1).mean(axis=1))
    pairs = {(pair["first"], pair["second"]): pair for pair in found["pairs"]}
    assert [pair["significant"] for pair in pairs.values()] == [True, False, True]
    first = pairs["a", "b"]
    assert first["tested"]["pairs"] == 3
    assert first["tested"]["p"] > first["p"]
    assert first["gains_points"] == pytest.approx(100 * (runs(0.9, 2).mean(axis=1) - runs(0.6, 1).mean(axis=1)))
    assert first["verdict"].startswith(f"b beats a by {first['gain_points']:.1f} points, 95 % CI ")
    assert "(t test over 3 seeds and the rows, p = " in first["verdict"]
    assert "corrected for 3 comparisons" in first["verdict"]
    assert first["verdict"].endswith("so the interval is wide; more seeds narrow it.")
    assert pairs["b", "c"]["verdict"].startswith("c is worse than b by ")
    assert pairs["a", "c"]["verdict"].startswith("c and a do not differ significantly: ")


def test_of_imbalanced_classes_each_counts_the_same() -> None:
    y_true = np.repeat([0, 1], [180, 20])
    always = np.tile(y_true == 0, (5, 1))
    half = np.tile(np.arange(200) % 2 == 0, (5, 1))
    found = compare_recipes(y_true, {"always": always, "half": half}, range(5))
    assert found["metric"] == "balanced_accuracy"
    assert [found["runs"][name]["mean"] for name in ("always", "half")] == pytest.approx([0.5, 0.5])
    assert "points of balanced accuracy" in found["pairs"][0]["verdict"]
    assert "more seeds" not in found["pairs"][0]["verdict"]
    assert "mean balanced accuracy 50.0 %" in found["runs"]["half"]["verdict"]
