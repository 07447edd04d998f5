"""The plan and the training that follows it: the same rows, steps and tokens; and a plan leaves nothing behind."""

import itertools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bertlora
from bertlora.data.prepared import prepare
from bertlora.training.costs import Line, Timed
from bertlora.training.typical import rows_of_typical_length
from bertlora.training.work import Work

Tiny = Callable[[str], Path]
WORDS = ["the", "film", "its", "cast", "is", "was", "has", "been", "never", "always", "so", "good", "dull", "long"]
SMALL: dict[str, Any] = {"max_length": 32, "precision": "fp32", "rank": 2}


def table_of(path: Path, labels: Sequence[str] = ("good", "bad")) -> Path:
    """A CSV file of 300 texts of 3 to 40 words, no two alike; these labels take turns."""
    draw = random.Random(0)
    texts = {" ".join(draw.choices(WORDS, k=draw.randint(3, 40))) for _ in range(400)}
    lines = [f"{text},{label}" for text, label in zip(sorted(texts)[:300], itertools.cycle(labels), strict=False)]
    path.write_text("\n".join(["text,label", *lines]) + "\n")
    return path


def prepared_folder(path: Path) -> Path:
    source = str(table_of(path, ["good;long", "bad", "good", "bad;long;odd"]))
    return prepare([source], path.with_name("data"), split="60/40/0", task="multilabel").folder


CASES: dict[str, tuple[Callable[[Path], Path], str, dict[str, Any], dict[str, int]]] = {
    "a file of numbers": (
        lambda path: table_of(path, ["0.5", "1.5", "2.25", "3.5"]),
        "default",
        {"epochs": 2, "batch_size": 16},
        {"train": 210, "validation": 45, "test": 45},
    ),
    "a prepared folder, several labels": (
        prepared_folder,
        "default",
        {"epochs": 3, "batch_size": 8, "gradient_accumulation": 2, "max_steps": 17, "evaluate_every_steps": 7},
        {"train": 180, "validation": 120},
    ),
    "a recipe that draws its sample for training": (
        table_of,
        "imdb-distilbert-quick",
        {"sample": 50, "batch_size": 16},
        {"train": 50, "validation": 45, "test": 45},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_plan_counts_what_training_does(case: str, tiny: Tiny, tmp_path: Path) -> None:
    make, recipe, keys, rows = CASES[case]
    model = tiny("distilbert" if "distilbert" in recipe else "bert")
    source, settings = make(tmp_path / "reviews.csv"), {"model": str(model), **SMALL, **keys}

    def state() -> tuple[object, ...]:
        numbers = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()
        files = sorted(str(path) for path in tmp_path.rglob("*"))
        return *numbers, random.getstate(), torch.get_num_threads(), files

    before = state()
    plan = bertlora.plan(source, recipe, **settings)
    assert state() == before

    done = bertlora.train(source, tmp_path / "run", recipe, **settings)
    assert plan["rows"] == done["rows"] == rows
    assert {key: plan[key] for key in ("steps", "examples", "tokens")} == {
        key: done["train"][key] for key in ("steps", "examples", "tokens")
    }
    assert plan["epochs"] == done["epochs"][-1]["epoch"]
    assert plan["evaluations"] == len(done["epochs"])
    assert json.loads(json.dumps(plan)) == plan
    low, high = plan["seconds_range"]
    assert low < plan["seconds"] < high
    assert sum(plan["seconds_of"].values()) == pytest.approx(plan["seconds"], abs=0.1)
    assert min(plan["seconds_of"].values()) > 0


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=60),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(0, 40),
)
def test_work_of_whole_epochs_is_the_rows_times_the_epochs(
    lengths: list[int], batch: int, accumulated: int, epochs: int, most: int
) -> None:
    recipe = bertlora.Recipe(batch_size=batch, gradient_accumulation=accumulated, epochs=epochs, max_steps=most)
    work = Work.of(recipe, np.array(lengths))
    assert work.steps == recipe.steps(len(lengths))
    assert work.examples <= epochs * len(lengths)
    assert (work.tokens == epochs * sum(lengths)) == (work.examples == epochs * len(lengths)) == (work.epochs == epochs)
    assert work.epochs <= work.evaluations < work.epochs + 1


@given(
    st.floats(0, 10),
    st.floats(0, 1),
    st.lists(st.integers(10, 50), min_size=1, max_size=3),
    st.lists(st.integers(100, 5000), min_size=1, max_size=3),
)
def test_the_line_finds_the_cost_a_step_and_a_token(fixed: float, each: float, few: list[int], many: list[int]) -> None:
    def timed(sizes: list[int]) -> list[Timed]:
        return [Timed(sizes[0], fixed + each * sizes[0])] * len(sizes)

    line = Line.through(timed(few), timed(many))
    assert (line.fixed, line.each) == pytest.approx((fixed, each), abs=1e-6)
    noisy = [*timed(many), *timed(many), Timed(many[0], 1000.0)]  # another program had the core for a while
    assert Line.through(timed(few), noisy) == line
    alone = Line.through([], timed(many))
    assert alone.at(many[0]) == pytest.approx(fixed + each * many[0], abs=1e-6)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=300), st.integers(1, 64))
def test_rows_of_typical_length_cost_as_much_as_all(lengths: list[int], count: int) -> None:
    found = np.array(lengths)[rows_of_typical_length(np.array(lengths), count)]
    assert len(found) == count
    # The quantiles of a distribution miss its mean by at most the range over their number.
    assert abs(found.mean() - np.mean(lengths)) <= np.ptp(lengths) / count + np.ptp(lengths) / len(lengths) + 1e-9
