"""Targets: which labels are classes and which are numbers, how numbers are split and stored, and what is refused."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from bertlora.data.prepared import Prepared, prepare, read_rows
from bertlora.data.targets import Bins
from bertlora.errors import DataError
from bertlora.recipe import Recipe

Write = Callable[..., Path]


@pytest.fixture
def table(tmp_path: Path) -> Write:
    """Returns a function: labels → a CSV file with a different text for each."""

    def write(labels: Sequence[object], name: str = "scores.csv") -> Path:
        rows = [f"the {i}. text of {name} about number {i * 7919 % 1000},{label}" for i, label in enumerate(labels)]
        path = tmp_path / name
        path.write_text("\n".join(["text,score", *rows]) + "\n")
        return path

    return write


def task_of(path: Path, tmp_path: Path, task: str = "auto") -> Prepared:
    return prepare([str(path)], tmp_path / "data", task=task, overwrite=True)


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (["0.5", "1.25", "3", "2.0"], "regression"),
        (["1e-3", "-2.5", "7", "8"], "regression"),
        (["1", "2", "3", "4", "5"], "classification"),  # at most five whole numbers
        (["0", "1.0"], "classification"),
        (["0.5", "1.5", "unknown"], "classification"),
        (["0.5", "1.5", "nan_1"], "classification"),
    ],
)
def test_real_numbers_are_a_regression(labels: list[str], task: str, table: Write, tmp_path: Path) -> None:
    data = task_of(table(labels * 10), tmp_path)
    assert data.task == task
    assert Prepared.load(data.folder).task == task
    assert data.labels == (["score"] if task == "regression" else sorted(set(labels)))


def test_many_whole_numbers_may_be_either_so_the_user_is_asked(table: Write, tmp_path: Path) -> None:
    path = table([i % 10 + 1 for i in range(60)])
    question = r"scores.csv: column 'score' holds 10 different whole numbers, 1 to 10, .* task classification or"
    with pytest.raises(DataError, match=question):
        task_of(path, tmp_path)
    assert not (tmp_path / "data").exists()
    assert len(task_of(path, tmp_path, "classification").labels) == 10
    assert task_of(path, tmp_path, "regression").labels == ["score"]


def test_a_target_that_is_not_a_number_is_named_by_its_place(table: Write, tmp_path: Path) -> None:
    for odd in ("high", "inf", "1_000"):
        with pytest.raises(DataError, match=rf"scores.csv line 4: the target '{odd}' is not a finite number"):
            task_of(table([1.5, 2.5, odd, 3.5]), tmp_path, "regression")
    sources = [f"train={table([i / 3 for i in range(30)])}", f"test={table([1.5, 'low'], 'test.csv')}"]
    with pytest.raises(DataError, match=r"test.csv line 3: the target 'low'"):
        prepare(sources, tmp_path / "data")
    with pytest.raises(DataError, match="every target is 2, expected numbers that differ"):
        task_of(table([2.0] * 20), tmp_path, "regression")


def test_numbers_are_kept_to_the_last_digit_and_more_than_ten_thousand_may_differ(table: Write, tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=10_500)
    data = task_of(table([repr(x) for x in numbers.tolist()]), tmp_path)
    found = np.empty(len(numbers))
    for split in data.rows:
        rows = data.split(split)
        found[rows.rows] = rows.labels
        assert np.array_equal(data.targets(split), rows.labels)
    assert np.array_equal(found, numbers)
    assert read_rows([str(tmp_path / "scores.csv")], ["score"], task="regression").labels.tolist() == numbers.tolist()


def test_each_split_has_low_and_high_numbers_and_the_fingerprint_depends_on_them(table: Write, tmp_path: Path) -> None:
    numbers = np.arange(200) ** 2 / 7
    data = task_of(table(numbers.tolist()), tmp_path)
    tenths = {split: np.bincount(Bins(numbers).ids(data.targets(split)), minlength=10) for split in data.rows}
    assert {split: set(counts.tolist()) for split, counts in tenths.items()} == {
        "train": {14},
        "validation": {3},
        "test": {3},
    }
    numbers[0] += 1e-9
    assert task_of(table(numbers.tolist()), tmp_path).fingerprint != data.fingerprint
    assert data.checks == []


def test_bins_cover_every_number(table: Write) -> None:
    draw = np.random.default_rng(1)
    for rows in (3, 40, 1000):
        for numbers in (draw.normal(size=rows), draw.integers(3, size=rows).astype(float), np.zeros(rows)):
            bins = Bins(numbers)
            ids = bins.ids(numbers)
            assert set(ids.tolist()) == set(range(len(bins.names)))
            assert (np.diff(ids[np.argsort(numbers)]) >= 0).all()
            assert bins.ids(np.array([-1e9, 1e9])).tolist() == [0, len(bins.names) - 1]


def test_a_recipe_of_another_task_or_with_options_of_another_task_is_refused() -> None:
    with pytest.raises(DataError.__mro__[1], match="task: got regression, but the data is prepared for classification"):
        Recipe(task="regression").for_task("classification")
    for keys, fault in (
        ({"class_weights": "balanced"}, "class_weights: got balanced, which does not fit task = regression"),
        ({"best_metric": "macro_f1"}, "best_metric: got macro_f1"),
        ({"loss": "cross-entropy"}, "loss: got cross-entropy"),
    ):
        with pytest.raises(ValueError, match=fault):
            Recipe(**keys).for_task("regression")
    with pytest.raises(ValueError, match="loss: got huber"):
        Recipe(loss="huber").for_task("classification")
