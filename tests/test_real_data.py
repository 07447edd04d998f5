"""The verdict on real rows (SST-2 sentences and IMDB reviews): other libraries compute the same figures.

The data is next to a development checkout; without it, these tests are skipped.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import classification_report
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import proportion_confint

from bertlora.data.prepared import prepare
from bertlora.evaluation.comparison import Comparison
from bertlora.evaluation.verdict import Evaluated, evaluate_rows, figures
from bertlora.pipeline.training_run import split_examples, train_run
from bertlora.recipe import Recipe
from bertlora.run.loaded import Run

DATA = Path(__file__).parents[2] / "shared" / "data"
KEPT = {"sst2": 872, "imdb": 800}
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not DATA.is_dir(), reason="the real data is not available")]


@pytest.fixture(scope="module", params=KEPT)
def evaluated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Evaluated, dict[str, Any]]:
    """Returns the outputs and figures of a run, trained on some rows, on held-out rows; reviews without their end."""
    folder = tmp_path_factory.mktemp(request.param)
    rows = pd.read_parquet(DATA / f"{request.param}_train.parquet").sample(frac=1, random_state=1)
    kept = pd.read_parquet(DATA / "sst2_validation.parquet") if request.param == "sst2" else rows[-KEPT["imdb"] :]
    for name, part in {"train": rows[:150], "validation": rows[150:210], "test": kept}.items():
        part = part[["text", "label"]].assign(text=part["text"].str.slice(stop=300))
        part.to_parquet(folder / f"{name}.parquet")
    data = prepare([f"{name}={folder / name}.parquet" for name in ("train", "validation", "test")], folder / "data")
    recipe = Recipe.named("default").replace(max_length=24, epochs=1)
    precision = train_run(data, recipe, folder / "run")["train"]["precision"]
    run = Run.load(folder / "run")
    found = evaluate_rows(run, split_examples(run.adapted.reader, data, "test"), data.split("test"), precision)
    return found, figures(found)


def test_intervals_agree_with_scipys_bootstrap(evaluated: tuple[Evaluated, dict[str, Any]]) -> None:
    found, result = evaluated
    assert result["n"] in KEPT.values()
    for name in ("base", "probe", "lora"):
        right = found.right(name)
        theirs = bootstrap((right,), np.mean, method="percentile", n_resamples=20_000, rng=0).confidence_interval
        assert result[name]["accuracy_ci95"] == pytest.approx([theirs.low, theirs.high], abs=4e-3)
        # And with a formula, for this number of rows.
        wilson = proportion_confint(right.sum(), len(right), method="wilson")
        assert result[name]["accuracy_ci95"] == pytest.approx(wilson, abs=5e-3)


def test_the_comparison_agrees_with_statsmodels_and_scipy(evaluated: tuple[Evaluated, dict[str, Any]]) -> None:
    found, result = evaluated
    probe, lora = found.right("probe"), found.right("lora")
    table = [[np.sum(lora & probe), np.sum(lora & ~probe)], [np.sum(~lora & probe), np.sum(~lora & ~probe)]]
    assert result["mcnemar_p"] == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)
    ours = Comparison.of(probe, lora)
    difference = 100 * (lora.astype(float) - probe.astype(float))
    theirs = bootstrap((difference,), np.mean, method="percentile", n_resamples=20_000, rng=0).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.4)
    assert ours.gain == pytest.approx(difference.mean())


def test_the_metrics_by_class_are_scikit_learns(evaluated: tuple[Evaluated, dict[str, Any]]) -> None:
    found, result = evaluated
    theirs = classification_report(
        found.y_true, found.raw_logits["lora"].argmax(axis=1), output_dict=True, zero_division=0, labels=[0, 1]
    )
    for number, label in enumerate(found.labels):
        assert result["lora"]["per_class"][label] == pytest.approx(
            {key.replace("-score", ""): value for key, value in theirs[str(number)].items()}
        )
    if result["n"] == KEPT["sst2"]:
        assert [result["lora"]["per_class"][label]["support"] for label in found.labels] == [428, 444]
