"""Label sets: against the definition, and what they say; `test_promises.py` counts how often their guarantees hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from promises.confidence import SKEWED, drawn, perfect, skewed
from scipy.special import softmax

from bertlora.confidence.calibration import Calibration
from bertlora.confidence.label_sets import LabelSets, rows_needed
from bertlora.confidence.predictions import Predictions
from bertlora.errors import InputError


def certain(confidence: list[float], labels: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities of two classes with these confidences in class 0, and labels."""
    sure = np.array(confidence)
    return np.stack([sure, 1 - sure], axis=1), np.array(labels)


NINE = certain([0.9, 0.8, 0.7, 0.6, 0.55, 0.95, 0.85, 0.75, 0.65], [0] * 8 + [1])


def test_sets_by_hand() -> None:
    """Nine rows: with the smallest probability of a right label as the floor, one gap of ten is below."""
    assert LabelSets.of(*NINE, 0.9).floors == pytest.approx([0.35, 0.35])
    assert LabelSets.of(*NINE, 0.8).floors == pytest.approx([0.55, 0.55])
    assert LabelSets.of(*NINE, 0.91).floors.tolist() == [0, 0]
    sets = LabelSets.of(*NINE, 0.9)(np.array([[0.96, 0.04], [0.6, 0.4], [0.5, 0.5], [0.2, 0.8]]))
    assert sets.tolist() == [[True, False], [True, True], [True, True], [False, True]]


def test_sets_of_each_class_by_hand() -> None:
    """Class 0 has eight rows, enough for 0.8 (four needed); class 1 has one row, too few."""
    found = LabelSets.of(*NINE, 0.8, per_class=True)
    assert found.floors == pytest.approx([0.55, 0])
    assert found.rows.tolist() == [8, 1]
    assert found(np.array([[0.96, 0.04], [0.5, 0.5], [0.2, 0.8]])).tolist() == [
        [True, True],
        [True, True],
        [False, True],
    ]


def drawn_rows(seed: int, classes: int, rows: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities and labels; few steps give many ties."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(size=(rows, classes)) * steps) / steps
    return softmax(scores, axis=1), rng.integers(classes, size=rows)


DRAWN = st.builds(
    drawn_rows, st.integers(0, 2**32 - 1), st.integers(2, 4), st.integers(1, 60), st.sampled_from([1, 3, 1000])
)


@given(DRAWN, st.floats(0.01, 1.0), st.booleans())
def test_floors_are_quantiles_of_the_scores(
    rows: tuple[np.ndarray, np.ndarray], coverage: float, per_class: bool
) -> None:
    """As in the literature: the ⌈(n + 1) (1 - α)⌉-th smallest of the scores 1 - p of n rows, all labels without it."""
    probabilities, labels = rows
    classes = probabilities.shape[1]
    found = LabelSets.of(probabilities, labels, coverage, per_class)
    sets = found(probabilities)
    assert sets.shape == probabilities.shape
    assert sets[np.arange(len(sets)), probabilities.argmax(axis=1)].all()
    for k in range(classes):
        own = labels == k if per_class else np.full(len(labels), True)
        n = int(own.sum())
        scores = sorted(1 - probabilities[own, labels[own]])
        place = int(np.ceil((n + 1) * coverage - 1e-9))
        assert found.floors[k] == pytest.approx(1 - scores[place - 1] if place <= n else 0.0)
        assert found.rows[k] == n
        assert n == 0 or sets[own, labels[own]].mean() >= coverage - 1e-9
        assert place <= n or sets[:, k].all()
    too_few = {k for k in range(classes) if coverage == 1 or found.rows[k] < rows_needed(coverage)}
    assert bool(found.note([f"class {k}" for k in range(classes)])) == bool(too_few)


def test_without_per_class_a_rare_class_pays_for_the_others() -> None:
    """With it each class is covered, which `test_promises.py` counts."""
    rng = np.random.default_rng(3)
    held = []
    for _ in range(50):
        y_true, labels = (rng.choice(3, size, p=SKEWED) for size in (300, 400))
        hits = LabelSets.of(skewed(rng, y_true), y_true, 0.9)(skewed(rng, labels))[np.arange(400), labels]
        held.append([hits[labels == k].mean() for k in range(3)])
    frequent, next_frequent, rare = np.mean(held, axis=0)
    assert rare < 0.75
    assert min(frequent, next_frequent) > 0.9


def test_sets_leave_labels_out() -> None:
    rng = np.random.default_rng(4)
    for classes in (2, 4):
        sets = LabelSets.of(*perfect(rng, 400, classes), 0.9)(perfect(rng, 400, classes)[0])
        assert 1 <= sets.sum(axis=1).mean() < classes


@pytest.mark.parametrize(("coverage", "rows"), [(0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99), (0.5, 1), (0.75, 3)])
def test_rows_needed_is_the_fewest_with_which_a_label_can_be_left_out(coverage: float, rows: int) -> None:
    assert rows_needed(coverage) == rows
    sure = certain([0.9] * rows, [0] * rows)
    assert (LabelSets.of(*sure, coverage).floors > 0).all()
    fewer = certain([0.9] * (rows - 1) + [0.8], [0] * (rows - 1) + [1])
    assert LabelSets.of(*fewer, coverage, per_class=True).floors[0] == 0


def test_the_note_says_why_a_label_is_in_every_set() -> None:
    names = ["bad", "good"]
    assert LabelSets.of(*NINE, 0.9).note(names) == ""
    assert (
        LabelSets.of(*NINE, 0.95).note(names) == "every set contains all labels: 0.95 needs 19 validation rows, got 9"
    )
    assert LabelSets.of(*NINE, 0.8, per_class=True).note(names) == (
        "labels in every set, because 0.8 needs 4 validation rows of a class: 'good' (1)"
    )
    assert "no smaller set is right" in LabelSets.of(*NINE, 1.0).note(names)
    many = LabelSets.of(np.full((24, 24), 1 / 24), np.arange(24), 0.9, per_class=True)
    assert many.note([f"c{k}" for k in range(24)]).endswith("'c9' (1) and 14 more")


def test_predictions_have_sets_and_their_notes() -> None:
    rng = np.random.default_rng(1)
    calibration = Calibration.fit(*drawn(rng, 60, 3))
    names = ["a", "b", "c"]
    probabilities = calibration.probabilities(drawn(rng, 30, 3)[0])
    found = Predictions.of(names, calibration, sets=0.9, per_class=True)
    sets = LabelSets.of(calibration.validation, calibration.y_true, 0.9, per_class=True)
    lines = found(np.log(probabilities) * calibration.temperature)
    for line, row, held in zip(lines, probabilities, sets(probabilities), strict=True):
        assert set(line["labels"]) == {names[k] for k in range(3) if held[k]}
        assert [line["probabilities"][name] for name in line["labels"]] == pytest.approx(
            sorted(row[held], reverse=True)
        )
        assert line["labels"][0] == line["label"]
    assert found.notes == []
    few = Calibration.fit(*drawn(rng, 12, 3))
    assert len(Predictions.of(names, few, abstain="coverage=0.5", sets=0.95, per_class=True).notes) == 2
    with pytest.raises(InputError, match="per_class is for label sets; give sets too"):
        Predictions.of(names, calibration, per_class=True)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="expected a fraction between 0 and 1"):
        LabelSets.of(*NINE, share)


def test_no_rows_are_refused() -> None:
    with pytest.raises(InputError, match="no rows to choose a threshold on"):
        LabelSets.of(np.zeros((0, 2)), np.zeros(0, dtype=int), 0.9)
