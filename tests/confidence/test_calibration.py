"""Calibration: the temperature, and what a run saves of it."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax

from bertlora.confidence.calibration import FILES, Calibration, fit_temperature
from bertlora.confidence.probabilities import brier_score, calibration_error
from bertlora.errors import RunError


def draw(rng: np.random.Generator, rows: int, classes: int = 2, heat: float = 2.5) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits that are `heat` times too large, and labels from the probabilities of the right ones."""
    logits = 2 * rng.normal(size=(rows, classes))
    return heat * logits, (logits + rng.gumbel(size=(rows, classes))).argmax(axis=1)


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    return -float(log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


# The temperature


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("heat", [0.3, 1.0, 4.0])
def test_the_temperature_is_found(classes: int, heat: float) -> None:
    logits, labels = draw(np.random.default_rng(1), 20_000, classes, heat)
    assert fit_temperature(logits, labels) == pytest.approx(heat, rel=0.04)


def test_it_has_the_lowest_smoothed_log_loss() -> None:
    logits, labels = draw(np.random.default_rng(2), 400, 3)
    doubt = 1 / 401
    targets = (1 - doubt) * np.eye(3)[labels] + doubt / 3

    def loss(point: np.ndarray) -> float:
        return -float(np.mean(np.sum(targets * log_softmax(logits / point[0], axis=1), axis=1)))

    found = fit_temperature(logits, labels)
    assert found == pytest.approx(minimize(loss, [1.0], method="Nelder-Mead").x[0], rel=1e-3)
    plain = minimize(lambda point: log_loss(logits / point[0], labels), [1.0], method="Nelder-Mead").x[0]
    assert found == pytest.approx(plain, rel=0.03)


@pytest.mark.parametrize("classes", [2, 4])
def test_on_new_rows_it_lowers_log_loss_and_error_and_changes_no_label(classes: int) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        temperature = fit_temperature(*draw(rng, 300, classes))
        logits, labels = draw(rng, 5000, classes)
        before, after = softmax(logits, axis=1), softmax(logits / temperature, axis=1)
        assert log_loss(logits / temperature, labels) < log_loss(logits, labels)
        assert calibration_error(after, labels) < calibration_error(before, labels)
        assert brier_score(after, labels) < brier_score(before, labels)
        assert np.array_equal(before.argmax(axis=1), after.argmax(axis=1))


@pytest.mark.parametrize("rows", [30, 60, 200])
def test_a_model_that_has_learned_nothing_mostly_keeps_temperature_1(rows: int) -> None:
    """Small logits independent of the labels fit 60 rows by chance at a low temperature, but no other rows.

    Only the margin counts: the logit of the right class minus the logit of the wrong one.
    """
    rng, draws, heats = np.random.default_rng(rows), 600, np.exp(np.linspace(-4.6, 4.6, 60))
    seen = 0.05 * rng.normal(size=(draws, rows, 2))
    labels = rng.integers(2, size=(draws, rows))
    margins = np.where(labels == 0, 1, -1) * (seen[..., 0] - seen[..., 1])
    others = 0.05 * np.sqrt(2) * rng.normal(size=(draws, 2000))

    def loss(margins: np.ndarray, heat: np.ndarray) -> np.ndarray:
        return np.asarray(np.logaddexp(0, -margins / heat[:, None]).mean(axis=1))

    found = np.array([fit_temperature(*one) for one in zip(seen, labels, strict=True)])
    best = heats[np.argmin([loss(margins, np.full(draws, heat)) for heat in heats], axis=0)]
    raw = loss(others, np.ones(draws))
    harm, worst = (loss(others, heat) - raw for heat in (found, best))
    left = np.mean(found == 1)
    print(f"{rows} rows: {left:.1%} left at 1; {np.mean(harm):+.4f} nats on others, {np.mean(worst):+.4f} without test")
    assert left > 0.93
    # What luck still costs: 0.07 / N by theory (the chi-square tail beyond 3.84), a quarter of what it would.
    assert np.mean(harm) < 0.12 / rows
    assert np.mean(harm) < np.mean(worst) / 2


def test_an_overconfident_model_is_corrected_even_with_few_rows() -> None:
    rng = np.random.default_rng(10)
    gains = []
    for _ in range(100):
        temperature = fit_temperature(*draw(rng, 60, heat=4.0))
        logits, labels = draw(rng, 2000, heat=4.0)
        gains.append(log_loss(logits, labels) - log_loss(logits / temperature, labels))
    print(f"log loss falls by {np.mean(gains):.2f} nats, {np.mean(np.array(gains) > 0):.0%} of the time")
    assert np.mean(gains) > 0.3
    assert np.mean(np.array(gains) > 0) > 0.9


def test_the_gain_must_be_significant() -> None:
    """Around the bound of the likelihood-ratio test, 3.84, with few rows and with many."""
    for rows in (40, 400):
        labels = np.arange(rows) % 2
        said = []
        for heat in np.linspace(1.0, 3.0, 60):
            logits = heat * np.eye(2)[np.where(np.arange(rows) % 10 < 8, labels, 1 - labels)]
            target = np.eye(2)[labels] * (1 - 1 / (rows + 1)) + 0.5 / (rows + 1)
            loss = lambda t, z=logits, y=target: -float((y * log_softmax(z / t, axis=1)).sum())  # noqa: E731
            gain = loss(1.0) - minimize_scalar(loss, bounds=(0.05, 50), method="bounded").fun
            assert (fit_temperature(logits, labels) != 1.0) == (2 * gain > 3.84)
            said.append(2 * gain > 3.84)
        assert len(set(said)) == 2


def test_probabilities_that_are_right_stay_as_they_are() -> None:
    rng = np.random.default_rng(4)
    found = [fit_temperature(*draw(rng, 500, heat=1.0)) for _ in range(50)]
    assert np.mean(np.array(found) == 1) > 0.85
    assert np.mean(found) == pytest.approx(1.0, abs=0.05)
    assert max(abs(np.log(found))) < 0.35


@pytest.mark.parametrize(("margin", "rows"), [(0.2, 100), (0.2, 2000), (30.0, 100), (30.0, 2000)])
def test_n_right_rows_give_the_confidence_of_label_smoothing(margin: float, rows: int) -> None:
    """Half of one row's weight lies on the wrong class: the confidence is 1 - 1 / (2 (N + 1))."""
    labels = np.arange(rows) % 2
    logits = margin * np.eye(2)[labels]
    temperature = fit_temperature(logits, labels)
    assert softmax(logits / temperature, axis=1).max(axis=1) == pytest.approx(1 - 0.5 / (rows + 1), abs=1e-5)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.zeros((0, 2)), np.zeros(0, dtype=int)),
        (np.tile([3.0, 0.0], (29, 1)), np.zeros(29, dtype=int)),
        (np.zeros((100, 3)), np.arange(100) % 3),
        (np.full((100, 2), 7.0), np.arange(100) % 2),
    ],
    ids=["no rows", "few rows", "nothing said", "the same said of each class"],
)
def test_if_none_can_be_fitted_it_is_1(logits: np.ndarray, labels: np.ndarray) -> None:
    assert fit_temperature(logits, labels) == 1.0


def test_a_model_that_is_always_wrong_gets_the_highest_temperature() -> None:
    labels = np.arange(200) % 2
    assert fit_temperature(5 * np.eye(2)[1 - labels], labels) == pytest.approx(100.0, rel=1e-3)


@given(st.integers(2, 5), st.integers(1, 60), st.integers(0, 2**32 - 1), st.floats(1e-3, 1e4))
def test_a_temperature_is_always_found_and_never_far_worse(classes: int, rows: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = scale * rng.normal(size=(rows, classes)), rng.integers(classes, size=rows)
    temperature = fit_temperature(logits, labels)
    assert 0.01 <= temperature <= 100
    loss = log_loss(logits / temperature, labels)
    assert np.isfinite(loss)
    # One uncertain row of N is all that it may cost on the rows themselves.
    uncertain = -log_softmax(logits, axis=1).mean()
    assert loss <= log_loss(logits, labels) + uncertain / (rows + 1) + 1e-9


# What a run keeps


@pytest.fixture
def fitted() -> Calibration:
    return Calibration.fit(*draw(np.random.default_rng(7), 300, 3))


def test_a_fit_has_the_rows_and_both_errors() -> None:
    logits, labels = draw(np.random.default_rng(8), 500, 3)
    found = Calibration.fit(logits, labels)
    assert np.array_equal(found.logits, logits.astype(np.float32))
    assert np.array_equal(found.y_true, labels)
    assert found.temperature == pytest.approx(fit_temperature(logits, labels), rel=1e-4)
    assert found.temperature > 2
    assert found.ece_before == pytest.approx(calibration_error(softmax(logits, axis=1), labels), abs=1e-5)
    assert found.ece_after == pytest.approx(calibration_error(found.validation, labels))
    assert found.ece_after < found.ece_before / 2
    assert found.probabilities(logits) == pytest.approx(softmax(logits / found.temperature, axis=1))
    assert found.validation == pytest.approx(found.probabilities(logits), abs=1e-6)
    assert fit_temperature(found.logits.astype(float), found.y_true) == found.temperature


def test_without_validation_rows_the_temperature_is_1() -> None:
    found = Calibration.fit(np.zeros((0, 2)), np.zeros(0, dtype=np.int64))
    assert (found.temperature, found.rows) == (1.0, 0)
    assert np.array_equal(found.scaled(np.eye(2)), np.eye(2))


def test_it_comes_back_from_a_run_folder(fitted: Calibration, tmp_path: Path) -> None:
    assert Calibration.load(tmp_path) is None
    fitted.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    found = Calibration.load(tmp_path)
    assert found is not None
    assert (found.temperature, found.ece_before, found.ece_after) == (
        fitted.temperature,
        fitted.ece_before,
        fitted.ece_after,
    )
    assert (found.logits.dtype, found.y_true.dtype) == (np.float32, np.int64)
    assert np.array_equal(found.logits, fitted.logits)
    assert np.array_equal(found.y_true, fitted.y_true)
    assert json.loads((tmp_path / "calibration.json").read_text()) == {
        "temperature": fitted.temperature,
        "rows": 300,
        "ece_before": fitted.ece_before,
        "ece_after": fitted.ece_after,
    }


def refused(run: Path, file: str) -> str:
    with pytest.raises(RunError) as caught:
        Calibration.load(run)
    said = str(caught.value)
    assert "\n" not in said
    assert file in said
    assert said.endswith("the run is damaged")
    return said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        '{"temperature": 1.5}',
        '{"temperature": "warm", "rows": 300, "ece_before": 0.1, "ece_after": 0.1}',
        '{"temperature": null, "rows": 300, "ece_before": 0.1, "ece_after": 0.1}',
    ],
)
def test_a_damaged_table_is_named(text: str, fitted: Calibration, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    (tmp_path / "calibration.json").write_text(text)
    refused(tmp_path, "calibration.json")


@pytest.mark.parametrize("temperature", [0, -1, "NaN", "Infinity"])
def test_an_invalid_temperature_is_refused(temperature: object, fitted: Calibration, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    (tmp_path / "calibration.json").write_text(
        f'{{"temperature": {temperature}, "rows": 300, "ece_before": 0.1, "ece_after": 0.1}}'
    )
    assert "expected a number above 0" in refused(tmp_path, "calibration.json")


def test_damaged_rows_are_named(fitted: Calibration, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    file = tmp_path / "validation.safetensors"
    whole = file.read_bytes()
    for damaged in (b"", whole[:40], whole[:-100]):
        file.write_bytes(damaged)
        refused(tmp_path, "validation.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {"logits": t["logits"]},
        lambda t: {"logits": t["logits"][:-1], "labels": t["labels"][:-1]},
        lambda t: {"logits": t["logits"][:-1], "labels": t["labels"]},
        lambda t: {"logits": t["logits"][:, 0].copy(), "labels": t["labels"]},
        lambda t: {"logits": t["logits"], "labels": t["labels"] + 1},
        lambda t: {"logits": t["logits"], "labels": t["labels"] - 1},
        lambda t: {"logits": t["logits"].astype(np.int32), "labels": t["labels"]},
        lambda t: {"logits": t["logits"] * np.float32("nan"), "labels": t["labels"]},
    ],
)
def test_rows_that_are_not_those_of_the_table_are_refused(change, fitted: Calibration, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    fitted.save(tmp_path)
    file = tmp_path / "validation.safetensors"
    save_file(change(load_file(file)), file)
    refused(tmp_path, "validation.safetensors")


@pytest.mark.parametrize("name", FILES)
def test_one_file_without_the_other_is_a_damaged_run(name: str, fitted: Calibration, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    (tmp_path / name).unlink()
    refused(tmp_path, name)
