"""Several runs on the same rows: `compare`, and `train --seeds`."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import SMALL, answer, good

from bertlora.evaluation.side_by_side import PAIR_COLUMNS, pair_note, pair_rows, side_by_side
from bertlora.evaluation.verdict import Evaluated
from bertlora.pipeline import training_seeds
from bertlora.recipe import Recipe
from bertlora.run.loaded import Run

Capsys = pytest.CaptureFixture[str]
Train = Callable[..., Path]


@pytest.fixture(scope="module")
def trained(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns a function that trains a tiny run with some flags, once."""
    from bertlora.cli import main

    @cache
    def run(reviews: str, *flags: object) -> Path:
        folder = tmp_path_factory.mktemp("compare")
        (folder / "reviews.csv").write_text(reviews)
        small = ("--model", tiny("bert"), *SMALL, "--epochs", 2, *flags)
        assert main([str(x) for x in ("train", folder / "reviews.csv", "--out", folder / "run", *small)]) == 0
        return folder / "run"

    return run


@pytest.fixture
def train(trained: Callable[..., Path], tmp_path: Path, reviews: Path) -> Train:
    """Returns a function that gives a tiny run, trained with some flags on the reviews, under a name."""
    return lambda name, *flags: shutil.copytree(trained(reviews.read_text(), *flags), tmp_path / name)


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
    assert all(pair["tested"]["p"] >= pair["mcnemar_p"] for pair in pairs.values())
    assert all("corrected for 3 comparisons" in pair["verdict"] for pair in pairs.values())
    assert (found["metric"], found["choice"]["best"], found["choice"]["of"]) == ("accuracy", found["ranking"][0], 3)


def test_runs_that_number_their_classes_otherwise_are_compared_by_class() -> None:
    """With 5 % positives by macro F1; it depends on which class is which, and not on their numbers."""
    random = np.random.default_rng(1)
    y_true = (random.random(600) < 0.05).astype(int)
    guesses = [np.where(random.random(600) < share, y_true, 1 - y_true) for share in (0.95, 0.8)]

    def evaluated(turned: bool) -> dict[str, Evaluated]:
        first = Evaluated(["a", "b"], y_true, {"lora": np.eye(2)[guesses[0]]})
        second = guesses[1], y_true, ["a", "b"]
        if turned:
            second = 1 - guesses[1], 1 - y_true, ["b", "a"]
        return {"x": first, "y": Evaluated(second[2], second[1], {"lora": np.eye(2)[second[0]]})}

    found, turned = (side_by_side(evaluated(turn)) for turn in (False, True))
    assert found["metric"] == "macro_f1"
    assert found["pairs"] == turned["pairs"]
    assert found["choice"] == turned["choice"]
    assert found["runs"]["y"]["macro_f1"] == pytest.approx(turned["runs"]["y"]["macro_f1"])
    assert "points of macro F1" in found["pairs"][0]["verdict"]


def test_compare_evaluates_runs_on_the_first_ones_rows(train: Train, capsys: Capsys) -> None:
    first, second = train("a"), train("b", "--seed", 7, "--rank", 4)
    found = good(capsys, "compare", first, second, "--json").json
    assert found["n"] == 6
    assert found["where"] == f"validation split of the data of {first}"
    for path in (first, second):
        alone = good(capsys, "evaluate", path, "--data", first / "data", "--split", "validation", "--json").json
        assert alone["lora"].pop("training_seconds") > 0
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
    assert f"{pair_note(1)}\n" in printed
    assert printed.endswith(f"{found['note']}\n")
    assert "evaluate the run that you choose on its test split" in found["note"]
    on_test = good(capsys, "compare", first, second, "--split", "test")
    assert "choose on the validation split" in on_test.out


def test_compare_takes_the_test_split_if_there_is_no_validation_split(train: Train, capsys: Capsys) -> None:
    runs = [train(name, "--split", "60/0/40", *flags) for name, flags in (("a", ()), ("b", ("--seed", 7)))]
    found = good(capsys, "compare", *runs, "--json").json
    assert (found["n"], found["where"]) == (16, f"test split of the data of {runs[0]}")


def test_the_table_of_pairs_puts_the_better_run_first() -> None:
    tested = {"gain_points": -2.5, "gain_points_ci95": [-6.0, 1.0], "p": 0.2}
    pair = {"first": "a", "second": "b", "rows": 900, "tested": tested, "significant": False, "rows_to_settle": 1200}
    same = tested | {"gain_points": 0.0}
    pairs = [
        pair | {"first": "b", "second": "c", "significant": True, "rows_to_settle": None},
        pair,
        pair | {"second": "c", "tested": same, "rows_to_settle": None},
    ]
    assert len(PAIR_COLUMNS) == 7
    assert pair_rows(["a", "b", "c"], pairs) == [
        ["a", "b", "+2.5", "-1.0 to +6.0", "0.2", "no", "1,200"],
        ["a", "c", "+0.0", "-1.0 to +6.0", "0.2", "no", "no gap"],
        ["b", "c", "+2.5", "-1.0 to +6.0", "0.2", "yes", ""],
    ]
    (cells,) = pair_rows(["b", "a"], [pair | {"rows_to_settle": 2_000_000}])
    assert cells == ["b", "a", "-2.5", "-6.0 to +1.0", "0.2", "no", "over 1,000,000"]
    assert pair_rows(["a", "b"], [pair | {"rows": 29, "rows_to_settle": None}])[0][-1] == "too few rows to say"
    assert "Holm" not in pair_note(1)
    assert "corrected for 3 pairs (Holm)" in pair_note(3)
    assert "Gap: of macro F1. p: paired permutation test." in pair_note(1, "macro_f1")


def test_compare_says_which_run_was_trained_on_the_rows(train: Train, capsys: Capsys) -> None:
    first, second = train("a"), train("b", "--seed", "7")
    (caution,) = (line for line in good(capsys, "compare", first, second).err.splitlines() if "caution" in line)
    assert str(second) in caution
    assert "texts on which the run was trained" in caution


@pytest.mark.parametrize("twice", [False, True])
def test_compare_needs_two_runs(twice: bool, train: Train, capsys: Capsys) -> None:
    run = train("a")
    found = answer(capsys, "compare", run, *([run] if twice else []))
    assert found.status == 2
    assert found.err.count("\n") == 1
    assert "expected two or more different runs" in found.err


def test_seeds_train_several_runs_and_report_how_much_they_differ(train: Train, capsys: Capsys) -> None:
    out = train("several", "--seeds", 3)
    metrics = json.loads((out / "metrics.json").read_text())
    seeds = metrics["seeds"]
    assert (seeds["values"], seeds["split"]) == ([42, 43, 44], "test")
    folders = [out, out / "seeds" / "43", out / "seeds" / "44"]
    accuracies = [good(capsys, "evaluate", folder, "--json").json["lora"]["accuracy"] for folder in folders]
    assert seeds["accuracies"] == pytest.approx(accuracies)
    assert seeds["mean"] == pytest.approx(np.mean(accuracies))
    assert [Run.load(folder).manifest.seed for folder in folders] == [42, 43, 44]
    # The run itself is the one that a single seed gives.
    alone = train("alone")
    weights = "adapter/adapter_model.safetensors"
    assert (out / weights).read_bytes() == (alone / weights).read_bytes()
    # What is finished is left as it is; what is not is trained.
    (folders[2] / "run.json").unlink()
    before = (folders[1] / "run.json").stat().st_mtime_ns
    good(capsys, "train", "--out", out, "--resume", "--seeds", 3)
    assert (folders[2] / "run.json").is_file()
    assert (folders[1] / "run.json").stat().st_mtime_ns == before


def test_recipes_are_compared_under_the_same_seeds(train: Train, capsys: Capsys) -> None:
    first, second = train("a", "--seeds", 3), train("b", "--rank", 4)
    missing = answer(capsys, "compare", first, second, "--seeds", 3)
    assert missing.status == 2
    assert missing.err.splitlines()[-1] == (
        f"bertlora: --seeds: {second} has no run with the seed 43 or 44; train with --train-missing, or by "
        f"'bertlora train --out {second} --resume --seeds 3'"
    )
    found = good(capsys, "compare", first, second, "--seeds", 3, "--train-missing", "--json").json
    assert (second / "seeds" / "43" / "run.json").is_file()
    assert (found["n"], found["seeds"], found["where"]) == (6, [42, 43, 44], f"validation split of the data of {first}")
    for path in (first, second):
        for seed, folder in enumerate((path, path / "seeds" / "43", path / "seeds" / "44")):
            alone = good(capsys, "evaluate", folder, "--data", first / "data", "--split", "validation", "--json").json
            assert found["runs"][str(path)]["accuracies"][seed] == alone["lora"]["accuracy"]
    printed = good(capsys, "compare", first, second, "--seeds", 3)
    assert "training" not in printed.err
    assert found["pairs"][0]["verdict"] in printed.out
    assert "Every pair, under the seeds 42, 43, 44:" in printed.out


def test_recipes_need_the_same_first_seed(train: Train, capsys: Capsys) -> None:
    first, second = train("a"), train("b", "--seed", 7)
    found = answer(capsys, "compare", first, second, "--seeds", 3, "--train-missing")
    assert found.status == 2
    assert f"train {second} again with --seed 42 --seeds 3" in found.err
    assert "--seeds: got 2, expected 3 or more" in answer(capsys, "compare", first, second, "--seeds", 2).err
    assert not (first / "seeds").exists()


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
    monkeypatch.setattr(training_seeds, "train_run", lambda data, recipe, out, **_: {"run": str(out)})
    monkeypatch.setattr(training_seeds, "PartialState", lambda **_: SimpleNamespace(is_main_process=main))
    monkeypatch.setattr(training_seeds.Run, "load", loads.append)
    monkeypatch.setattr(training_seeds, "leading_figure", lambda *_: ("accuracy", 0.75))
    rewritten: list[Path] = []
    monkeypatch.setattr(training_seeds, "rewrite_metrics", lambda out, _: rewritten.append(out))
    data = SimpleNamespace(rows={"test": 4}, task="classification")
    assert training_seeds.train_seeds(data, Recipe(), tmp_path, 1) == {"run": str(tmp_path)}  # type: ignore[arg-type]
    assert loads == []
    metrics = training_seeds.train_seeds(data, Recipe(), tmp_path, 2)  # type: ignore[arg-type]
    assert len(loads) == loaded
    assert ("seeds" in metrics) == main
    assert rewritten == [tmp_path] * main
