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

from bertlora.evaluation.comparison import Comparison
from bertlora.evaluation.side_by_side import PAIR_COLUMNS, holm, pair_note, pair_rows, side_by_side
from bertlora.evaluation.verdict import Evaluated
from bertlora.pipeline import training_run
from bertlora.recipe import Recipe
from bertlora.run.loaded import Run

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
def test_holm_equals_statsmodels(values: list[float]) -> None:
    assert holm(values) == pytest.approx(multipletests(values, method="holm")[1].tolist())


def test_every_pair_is_compared() -> None:
    y_true = np.arange(300) % 2
    random = np.random.default_rng(0)

    def evaluated(share: float) -> Evaluated:
        predicted = np.where(random.random(300) < share, y_true, 1 - y_true)
        return Evaluated(["a", "b"], y_true, {"lora": np.eye(2)[predicted] * 3})

    poor, good, twin = evaluated(0.6), evaluated(0.9), evaluated(0.88)
    found = side_by_side({"poor": poor, "good": good, "twin": twin})
    assert found["n"] == 300
    assert set(found["runs"]) == {"poor", "good", "twin"}
    pairs = {(pair["first"], pair["second"]): pair for pair in found["pairs"]}
    assert set(pairs) == {("poor", "good"), ("poor", "twin"), ("good", "twin")}
    assert pairs["poor", "good"]["verdict"].startswith("good beats poor by ")
    assert "do not differ significantly" in pairs["good", "twin"]["verdict"]
    accuracy = {name: figures["accuracy"] for name, figures in found["runs"].items()}
    assert [accuracy[name] for name in found["ranking"]] == sorted(accuracy.values(), reverse=True)
    assert found["ranking"][-1] == "poor"
    assert [pair["significant"] for pair in found["pairs"]] == [True, True, False]
    # At 0.05 / 3 a difference takes more rows than at 0.05.
    twins = Comparison.of(good.right("lora"), twin.right("lora"))
    assert twins.rows_to_settle() < pairs["good", "twin"]["rows_to_settle"] == twins.rows_to_settle(0.05 / 3)
    assert all(pair["mcnemar_p_holm"] >= pair["mcnemar_p"] for pair in pairs.values())


def test_compare_evaluates_runs_on_the_first_ones_rows(train: Train, capsys: Capsys) -> None:
    first, second = train("a"), train("b", "--seed", 7, "--rank", 4)
    found = good(capsys, "compare", first, second, "--json").json
    assert found["n"] == 6
    for path in (first, second):
        alone = good(capsys, "evaluate", path, "--data", first / "data", "--json").json
        assert found["runs"][str(path)] == alone["lora"]
    pair = found["pairs"][0]
    assert (pair["first"], pair["second"]) == (str(first), str(second))
    printed = good(capsys, "compare", first, second).out
    assert printed.startswith("Ranking on 6 rows (")
    (cells,) = pair_rows(found["ranking"], found["pairs"])
    cells = [Path(cells[0]).name, Path(cells[1]).name, *cells[2:]]
    ranks = [printed.index(f" {found['runs'][name]['accuracy']:.2%} ".replace("%", " %")) for name in found["ranking"]]
    table = printed.index("rows to settle")
    assert ranks == sorted(ranks)
    assert ranks[-1] < table
    assert all(cell in printed[table:] for cell in cells)
    assert pair["verdict"] not in printed
    assert printed.endswith(f"{pair_note(1)}\n")


def test_the_table_of_pairs_puts_the_better_run_first() -> None:
    pair = {"first": "a", "second": "b", "gain_points": -2.5, "gain_points_ci95": [-6.0, 1.0], "mcnemar_p_holm": 0.2}
    pairs = [
        pair | {"significant": False, "rows_to_settle": 1200},
        pair | {"second": "c", "gain_points": 0.0, "significant": False, "rows_to_settle": None},
        pair | {"first": "b", "second": "c", "significant": True, "rows_to_settle": None},
    ]
    assert len(PAIR_COLUMNS) == 7
    assert pair_rows(["a", "b", "c"], pairs) == [
        ["a", "b", "+2.5", "-1.0 to +6.0", "0.2", "no", "1,200"],
        ["a", "c", "+0.0", "-1.0 to +6.0", "0.2", "no", "no gap"],
        ["b", "c", "+2.5", "-1.0 to +6.0", "0.2", "yes", ""],
    ]
    (cells,) = pair_rows(["b", "a"], [pairs[0] | {"rows_to_settle": 2_000_000}])
    assert cells == ["b", "a", "-2.5", "-6.0 to +1.0", "0.2", "no", "over 1,000,000"]
    assert "Holm" not in pair_note(1)
    assert "corrected for 3 pairs (Holm)" in pair_note(3)


def test_compare_says_when_runs_learned_from_different_data(train: Train, capsys: Capsys) -> None:
    first, second = train("a"), train("b", "--split", "60/20/20")
    assert "trained on different data" in good(capsys, "compare", first, second).err


@pytest.mark.parametrize("twice", [False, True])
def test_compare_needs_two_runs(twice: bool, train: Train, capsys: Capsys) -> None:
    run = train("a")
    found = answer(capsys, "compare", run, *([run] if twice else []))
    assert found.status == 2
    assert found.err.count("\n") == 1
    assert "expected two or more different runs" in found.err


def test_seeds_train_several_runs_and_report_how_much_they_differ(train: Train, capsys: Capsys) -> None:
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


def test_seeds_need_rows_to_evaluate(
    tiny: Callable[[str], Path], tmp_path: Path, reviews: Path, capsys: Capsys
) -> None:
    flags = ("--model", tiny("bert"), *SMALL, "--epochs", 1)
    none = answer(capsys, "train", reviews, "--out", tmp_path / "a", "--split", "100/0/0", "--seeds", 2, *flags)
    assert none.status == 2
    assert "the data has no test and no validation rows to evaluate on" in none.err
    zero = answer(capsys, "train", reviews, "--out", tmp_path / "a", "--seeds", 0, *flags)
    assert zero.status == 2
    assert "--seeds: got 0" in zero.err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("main", "loaded"), [(True, 2), (False, 0)])
def test_of_several_processes_only_the_main_one_evaluates_seeds(
    main: bool, loaded: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And a single seed needs no run loaded again."""
    loads: list[Path] = []
    monkeypatch.setattr(training_run, "train_run", lambda data, recipe, out, **_: {"run": str(out)})
    monkeypatch.setattr(training_run, "PartialState", lambda **_: SimpleNamespace(is_main_process=main))
    monkeypatch.setattr(training_run.Run, "load", loads.append)
    monkeypatch.setattr(training_run, "_accuracy", lambda *_: 0.75)
    data = SimpleNamespace(rows={"test": 4})
    assert training_run.train_seeds(data, Recipe(), tmp_path, 1) == {"run": str(tmp_path)}  # type: ignore[arg-type]
    assert loads == []
    metrics = training_run.train_seeds(data, Recipe(), tmp_path, 2)  # type: ignore[arg-type]
    assert len(loads) == loaded
    assert ("seeds" in metrics) == main
    assert (tmp_path / "metrics.json").is_file() == main
