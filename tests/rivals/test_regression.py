"""Softmax regression: its strength is chosen on held-out rows, and its probabilities are calibrated."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_info, threadpool_limits

from bertlora.confidence.calibration import calibration_error
from bertlora.confidence.probabilities import Array, Labels, cross_entropy, softmax
from bertlora.rivals.regression import fit_regression

pytestmark = pytest.mark.usefixtures("every_strength")
STRENGTHS = tuple(10.0**power for power in range(-5, 4))


def drawn(rows: int, signal: float, seed: int, features: int = 40, classes: int = 2) -> tuple[Array, Labels]:
    """Returns features (N, F) and labels (N,) whose log odds are linear in the features."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, features))
    weight = np.random.default_rng(99).normal(size=(features, classes)) * signal / features**0.5
    noise = random.gumbel(size=(rows, classes))
    return x, (x @ weight + noise).argmax(axis=1)


@pytest.mark.parametrize("signal", [0.3, 3.0, 30.0])
def test_no_other_strength_is_much_better_on_new_rows(signal: float) -> None:
    """The strength is chosen only on the training rows. The best of nine on the new rows themselves is its rival."""
    x, y = drawn(300, signal, seed=1, classes=3)
    new, truth = drawn(20_000, signal, seed=3, classes=3)
    found = fit_regression(x, y, 3, STRENGTHS, seed=0)
    assert found is not None
    losses = [log_loss(truth, LogisticRegression(C=c, max_iter=1000).fit(x, y).predict_proba(new)) for c in STRENGTHS]
    assert cross_entropy(found.logits(new), truth) < min(losses) + 0.02
    assert max(losses) > min(losses) + 0.05


@pytest.mark.parametrize("signal", [0.0, 1.0, 10.0])
def test_the_probabilities_are_calibrated_on_new_rows(signal: float) -> None:
    """Without the temperature the weights for 120 rows of 40 features are overconfident, or too timid."""
    x, y = drawn(120, signal, seed=2)
    new, truth = drawn(20_000, signal, seed=3)
    found = fit_regression(x, y, 2, STRENGTHS, seed=0)
    assert found is not None
    assert calibration_error(softmax(found.logits(new)), truth) < 0.06
    assert cross_entropy(found.logits(new), truth) < np.log(2) + 0.01


def test_sparse_features_give_the_same_weights() -> None:
    x, y = drawn(200, 3.0, seed=4, classes=3)
    dense, sparse = (fit_regression(features, y, 3, STRENGTHS, seed=0) for features in (x, csr_array(x)))
    assert dense is not None
    assert sparse is not None
    assert dense.strength == sparse.strength
    assert sparse.weight == pytest.approx(dense.weight, abs=1e-4)


def test_classes_of_one_row_and_a_single_class() -> None:
    x = np.eye(6)
    assert fit_regression(x, np.zeros(6, np.int64), 2, STRENGTHS, seed=0) is None
    # No class can be held out and learned.
    alone = fit_regression(x[:2], np.array([0, 1]), 2, STRENGTHS, seed=0)
    assert alone is not None
    assert alone.strength == STRENGTHS[len(STRENGTHS) // 2]
    some = fit_regression(x, np.array([0, 0, 0, 1, 1, 2]), 4, STRENGTHS, seed=0)
    assert some is not None
    assert np.isfinite(some.loss)
    assert softmax(some.logits(x))[:, 3].max() == 0


def test_the_fit_keeps_blas_to_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    fit = LogisticRegression.fit

    def watched(self: LogisticRegression, *data: object, **more: object) -> LogisticRegression:
        threads.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return fit(self, *data, **more)

    monkeypatch.setattr(LogisticRegression, "fit", watched)
    with threadpool_limits(limits=2, user_api="blas"):
        fit_regression(np.random.default_rng(0).normal(size=(8, 3)), np.arange(8) % 2, 2, STRENGTHS, seed=0)
        assert set(threads) == {1}
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {2}
