"""Several runs on the same rows: `compare`, and `train --seeds`."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import SMALL, answer, good
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from bertlora import pipeline
from bertlora.evaluation.side_by_side import holm, side_by_side
from bertlora.evaluation.verdict import Judged
from bertlora.recipe import Recipe
from bertlora.run import Run

Capsys = pytest.CaptureFixture[str]
Train = Callable[..., Path]


@pytest.fixture
def train(tiny: Callable[[str], Path], tmp_path: Path, reviews: Path, capsys: Capsys) -> Train:
    """Returns a function that trains a tiny run under a name."""

    def run(name: str, *flags: object) -> Path:
        base = ("--model", tiny("bert"), *SMALL)
        good(capsys, "train", reviews, "--out", tmp_path / name, *base, "--epochs", 2, *flags)
        return tmp_path / name

    return run


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_that_of_statsmodels(values: list[float]) -> None:
    assert holm(values) == pytest.approx(multipletests(values, method="holm")[1].tolist())


def test_every_pair_is_compared() -> None:
    given_labels = np.arange(300) % 2
    random = np.random.default_rng(0)

    def judged(share: float) -> Judged:
        predicted = np.where(random.random(300) < share, given_labels, 1 - given_labels)
        return Judged(["a", "b"], given_labels, {"lora": np.eye(2)[predicted] * 3})

    found = side_by_side({"poor": judged(0.6), "good": judged(0.9), "twin": judged(0.9)})
    assert found["n"] == 300
    assert set(found["runs"]) == {"poor", "good", "twin"}
    pairs = {(pair["first"], pair["second"]): pair for pair in found["pairs"]}
    assert set(pairs) == {("poor", "good"), ("poor", "twin"), ("good", "twin")}
    assert pairs["poor", "good"]["verdict"].startswith("good beats poor by ")
    assert "not distinguishable" in pairs["good", "twin"]["verdict"]
    assert all(pair["mcnemar_p_holm"] >= pair["mcnemar_p"] for pair in pairs.values())


def test_compare_judges_runs_on_the_first_ones_rows(train: Train, capsys: Capsys) -> None:
    first, second = train("a"), train("b", "--seed", 7, "--rank", 4)
    found = good(capsys, "compare", first, second, "--json").json
    assert found["n"] == 6
    for path in (first, second):
        alone = good(capsys, "evaluate", path, "--data", first / "data", "--json").json
        assert found["runs"][str(path)] == alone["lora"]
    pair = found["pairs"][0]
    assert (pair["first"], pair["second"]) == (str(first), str(second))
    printed = good(capsys, "compare", first, second).out
    assert "6 rows (" in printed
    assert pair["verdict"] in printed


def test_compare_says_when_runs_learned_from_different_data(train: Train, capsys: Capsys) -> None:
    first, second = train("a"), train("b", "--split", "60/20/20")
    assert "learned from different data" in good(capsys, "compare", first, second).err


@pytest.mark.parametrize("twice", [False, True])
def test_compare_needs_two_runs(twice: bool, train: Train, capsys: Capsys) -> None:
    run = train("a")
    found = answer(capsys, "compare", run, *([run] if twice else []))
    assert found.status == 2
    assert found.err.count("\n") == 1
    assert "expected two different runs or more" in found.err


def test_seeds_train_several_runs_and_tell_how_far_they_differ(train: Train, capsys: Capsys) -> None:
    out = train("several", "--seeds", 3, "--seed", 5)
    metrics = json.loads((out / "metrics.json").read_text())
    seeds = metrics["seeds"]
    assert (seeds["values"], seeds["split"]) == ([5, 6, 7], "test")
    folders = [out, out / "seeds" / "6", out / "seeds" / "7"]
    accuracies = [good(capsys, "evaluate", folder, "--json").json["lora"]["accuracy"] for folder in folders]
    assert seeds["accuracies"] == pytest.approx(accuracies)
    assert seeds["mean"] == pytest.approx(np.mean(accuracies))
    assert [Run.load(folder).manifest.seed for folder in folders] == [5, 6, 7]
    # The run itself is the one that a single seed gives.
    alone = train("alone", "--seed", 5)
    weights = "adapter/adapter_model.safetensors"
    assert (out / weights).read_bytes() == (alone / weights).read_bytes()
    # What is finished is left as it is; what is not is trained.
    (folders[2] / "run.json").unlink()
    before = (folders[1] / "run.json").stat().st_mtime_ns
    good(capsys, "train", "--out", out, "--resume", "--seeds", 3)
    assert (folders[2] / "run.json").is_file()
    assert (folders[1] / "run.json").stat().st_mtime_ns == before


def test_seeds_need_rows_to_judge_by(
    tiny: Callable[[str], Path], tmp_path: Path, reviews: Path, capsys: Capsys
) -> None:
    flags = ("--model", tiny("bert"), *SMALL, "--epochs", 1)
    none = answer(capsys, "train", reviews, "--out", tmp_path / "a", "--split", "100/0/0", "--seeds", 2, *flags)
    assert none.status == 2
    assert "neither test nor validation rows" in none.err
    zero = answer(capsys, "train", reviews, "--out", tmp_path / "a", "--seeds", 0, *flags)
    assert zero.status == 2
    assert "--seeds: got 0" in zero.err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("main", "loaded"), [(True, 2), (False, 0)])
def test_of_several_processes_the_main_one_alone_judges_seeds(
    main: bool, loaded: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And a single seed needs no run loaded again."""
    loads: list[Path] = []
    monkeypatch.setattr(pipeline, "train_run", lambda data, recipe, out, **_: {"run": str(out)})
    monkeypatch.setattr(pipeline, "PartialState", lambda **_: SimpleNamespace(is_main_process=main))
    monkeypatch.setattr(pipeline.Run, "load", loads.append)
    monkeypatch.setattr(pipeline, "_accuracy", lambda *_: 0.75)
    data = SimpleNamespace(rows={"test": 4})
    assert pipeline.train_seeds(data, Recipe(), tmp_path, 1) == {"run": str(tmp_path)}  # type: ignore[arg-type]
    assert loads == []
    metrics = pipeline.train_seeds(data, Recipe(), tmp_path, 2)  # type: ignore[arg-type]
    assert len(loads) == loaded
    assert ("seeds" in metrics) == main
    assert (tmp_path / "metrics.json").is_file() == main
