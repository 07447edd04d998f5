"""Ridge regression: as strong as the data need, in any unit, and against scikit-learn's own cross-validation."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.linear_model import RidgeCV

from bertlora.confidence.probabilities import Array
from bertlora.rivals.regression import fit_linear
from bertlora.rivals.ridge import fit_ridge
from bertlora.rivals.tfidf import fit_tfidf


def sample(rows: int, noise: float, seed: int = 0) -> tuple[Array, Array]:
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(rows, 30))
    return features, features[:, :5].sum(axis=1) + noise * draw.normal(size=rows)


@pytest.mark.parametrize("noise", [0.1, 1.0, 5.0])
def test_it_is_about_as_good_as_leave_one_out(noise: float) -> None:
    features, targets = sample(150, noise)
    fitted = fit_ridge(features, targets, seed=0)
    assert fitted is not None
    others, truth = sample(2000, 0.0, seed=1)
    theirs = RidgeCV(alphas=np.logspace(-3, 5, 40)).fit(features, targets).predict(others)
    ours = fitted.logits(others)[:, 0]
    assert np.mean((ours - truth) ** 2) <= 1.2 * np.mean((theirs - truth) ** 2) + 1e-3
    assert fitted.loss >= 0.7 * noise**2


def test_noise_gives_the_mean_and_a_unit_changes_nothing() -> None:
    draw = np.random.default_rng(2)
    features, targets = draw.normal(size=(200, 30)), draw.normal(size=200)
    fitted = fit_ridge(features, targets, seed=0)
    assert fitted is not None
    assert np.ptp(fitted.logits(features)) < 0.5
    in_unit = fit_ridge(features, 1000 * targets + 5, seed=0)
    assert in_unit is not None
    assert in_unit.strength == pytest.approx(fitted.strength)
    assert in_unit.logits(features) == pytest.approx(1000 * fitted.logits(features) + 5)
    sparse = fit_ridge(csr_array(features), targets, seed=0)
    assert sparse is not None
    assert sparse.logits(features) == pytest.approx(fitted.logits(features), abs=1e-2)


def test_what_cannot_be_fitted_and_which_model_fits_which_targets() -> None:
    features, targets = sample(40, 0.1)
    assert fit_ridge(features, np.full(40, 2.0), seed=0) is None
    few = fit_ridge(features[:6], targets[:6], seed=0)
    assert few is not None
    assert np.isnan(few.loss)
    numbers = fit_linear(features, targets, 1, (1.0,), 0)
    classes = fit_linear(features, (targets > 0).astype(np.int64), 2, (1.0,), 0)
    assert numbers is not None
    assert classes is not None
    assert (len(numbers.weight), len(classes.weight)) == (1, 2)


def test_tfidf_learns_numbers_from_words() -> None:
    words, draw = {"good": 2.0, "fine": 1.0, "dull": -1.0, "bad": -2.0}, np.random.default_rng(0)
    chosen = [draw.choice(list(words), size=2).tolist() for _ in range(200)]
    texts = [f"the film is {a} and the cast is {b} number {i}" for i, (a, b) in enumerate(chosen)]
    targets = np.array([words[a] + words[b] for a, b in chosen])
    fitted = fit_tfidf(texts[:150], None, targets[:150], 1, seed=0)
    assert fitted is not None
    assert np.corrcoef(fitted.logits(texts[150:])[:, 0], targets[150:])[0, 1] > 0.95
