"""Several labels per text: temperatures and thresholds, what is saved, and the figures against scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from bertlora.confidence.calibration import fit_temperature
from bertlora.confidence.label_agreement import LabelAgreement
from bertlora.confidence.probabilities import Array, sigmoid
from bertlora.confidence.thresholds import Chosen, Thresholds, choose_thresholds
from bertlora.errors import InputError, RunError

NAMES = ["food", "price", "rare"]


def rows_of(count: int, seed: int = 0) -> tuple[Array, Chosen]:
    """Logits (count, 3) that are too large by a factor of 2, and labels; the last label is in no row."""
    draw = np.random.default_rng(seed)
    logits = draw.normal([-1.0, -3.0, -60.0], [2.0, 2.0, 0.1], size=(count, 3))
    return 2 * logits, draw.random((count, 3)) < sigmoid(logits)


def test_each_label_has_the_temperature_of_two_classes_and_a_threshold_that_beats_a_half_on_new_rows() -> None:
    logits, y_true = rows_of(1000)
    found = Thresholds.fit(logits, y_true)
    kept = found.logits.astype(np.float64)
    both = [
        fit_temperature(np.stack([z * 0, z], axis=1), y.astype(np.int64)) for z, y in zip(kept.T, y_true.T, strict=True)
    ]
    assert found.temperatures[:2] == pytest.approx(both[:2])
    assert found.temperatures[:2] == pytest.approx([2.0, 2.0], rel=0.2)
    assert (found.temperatures[2], found.thresholds[2]) == (1.0, 0.5)  # no row has the label
    fresh, truth = rows_of(20_000, seed=1)
    half = found.probabilities(fresh) >= 0.5
    for k in (0, 1):
        assert f1_score(truth[:, k], found.chosen(fresh)[:, k]) > f1_score(truth[:, k], half[:, k]) + 0.005


def test_a_threshold_lies_between_the_rows_and_few_rows_change_nothing() -> None:
    y_true = np.repeat([[True], [False]], 6, axis=0)
    parted = np.where(y_true, 0.3, 0.1)
    assert choose_thresholds(parted, y_true) == pytest.approx([0.2])
    y_true[:2] = False  # four rows have the label
    assert choose_thresholds(parted, y_true).tolist() == [0.5]
    assert Thresholds.fit(np.zeros((0, 2)), np.zeros((0, 2), bool)).thresholds.tolist() == [0.5, 0.5]


def test_predictions_name_the_chosen_labels_and_other_options_are_refused() -> None:
    found = Thresholds(np.array([2.0, 1.0, 1.0]), np.array([0.5, 0.1, 0.9]), *_none(3))
    (line,) = found.predictions(NAMES)(np.array([[2.0, -1.0, 2.0]]))
    assert line["labels"] == ["food", "price"]
    assert line["probabilities"] == pytest.approx(dict(zip(NAMES, 1 / (1 + np.exp([-1.0, 1.0, -2.0])), strict=True)))
    (line,) = found.predictions(NAMES, raw=True)(np.array([[2.0, -1.0, 2.1]]))
    assert line["labels"] == ["rare", "food"]
    for options in ({"abstain": "coverage=0.9"}, {"sets": 0.0}, {"per_class": True}):
        with pytest.raises(InputError, match=f"{next(iter(options))}: is for one label"):
            found.predictions(NAMES, **options)


def test_it_is_saved_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    found = Thresholds.fit(*rows_of(50))
    found.save(tmp_path)
    loaded = Thresholds.load(tmp_path)
    assert loaded is not None
    for name in ("temperatures", "thresholds", "logits", "y_true"):
        assert np.array_equal(getattr(loaded, name), getattr(found, name))
    Thresholds.without_rows(2).save(tmp_path)
    assert Thresholds.load(tmp_path) is not None
    file = tmp_path / "calibration.json"
    file.write_text(file.read_text().replace("0.5", "1.5"))
    with pytest.raises(RunError, match=r"calibration.json: cannot be read \(thresholds: expected numbers in 0\.\.1"):
        Thresholds.load(tmp_path)


@pytest.mark.parametrize("seed", range(20))
def test_figures_equal_those_of_scikit_learn_also_of_repeated_rows(seed: int) -> None:
    draw = np.random.default_rng(seed)
    probabilities = draw.integers(5, size=(12, 4)) / 4  # with ties
    y_true, chosen = draw.random((12, 4)) < [0.5, 0.5, 0.2, 0.0], draw.random((12, 4)) < 0.4
    times = draw.integers(3, size=12) if seed else np.ones(12, dtype=np.int64)
    weighted = LabelAgreement(chosen, probabilities, y_true).of(times[None].astype(np.float64))
    given, named, p = (np.repeat(table, times, axis=0) for table in (y_true, chosen, probabilities))
    there = given.any(axis=0)
    expected = {
        "macro_f1": f1_score(given[:, there], named[:, there], average="macro", zero_division=0),
        "micro_f1": f1_score(given, named, average="micro", zero_division=0),
        "subset_accuracy": accuracy_score(given, named),
        "average_precision": average_precision_score(given[:, there], p[:, there], average="macro"),
    }
    assert {name: float(value[0]) for name, value in weighted.items()} == pytest.approx(expected)


def test_nothing_is_defined_without_labels() -> None:
    none = np.zeros((3, 2), bool)
    nothing = LabelAgreement(none, none.astype(float), none)
    assert nothing.figures == {"macro_f1": None, "micro_f1": None, "subset_accuracy": 1.0, "average_precision": None}
    assert nothing.with_intervals()["macro_f1_ci95"] is None


def _none(labels: int) -> tuple[np.ndarray, Chosen]:
    return np.zeros((0, labels), np.float32), np.zeros((0, labels), bool)
