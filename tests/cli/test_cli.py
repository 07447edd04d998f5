"""Every verb of the command line, on tiny models: what it prints, writes and returns."""

import json
import os
import re
import select
import shlex
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from command_line import SMALL, Answer, answer, check_schema, good, on_terminal, start

from bertlora.data.checks import named_rows
from bertlora.data.reviews import embedded_specs
from bertlora.pipeline.prepare import absolute_specs
from bertlora.recipe import Recipe, recipe_keys, recipe_names, recipe_path

Capsys = pytest.CaptureFixture[str]
TEXTS = ["a joy from start to finish", "dull, lifeless, and far too long for what it is", "i loved it"]
FIGURES = {"accuracy", "accuracy_ci95", "macro_f1", "loss", "ece", "per_class", "confusion"}
FIGURES |= {"top_confusions", "other_confusions"}
FIGURES |= {"balanced_accuracy", "weighted_f1", "matthews", "roc_auc", "average_precision", "brier"}
NOT_THE_CLOCK = ("seconds", "examples_per_s", "tokens_per_s", "peak_rss_mib", "run")


@pytest.fixture(scope="module")
def base(tiny: Callable[[str], Path]) -> Path:
    """Returns the folder of the tiny BERT."""
    return tiny("bert")


@pytest.fixture
def model(base: Path) -> tuple[object, ...]:
    """Returns the flags of a tiny model and a short training."""
    return ("--model", base, *SMALL)


@pytest.fixture
def trained(run_of_reviews: Path, tmp_path: Path) -> Path:
    """Returns a run folder, trained for two epochs on the reviews."""
    return shutil.copytree(run_of_reviews, tmp_path / "run")


def timeless(metrics: Any) -> Any:
    """Metrics without what the clock and the folder decide."""
    if isinstance(metrics, dict):
        return {key: timeless(value) for key, value in metrics.items() if key not in NOT_THE_CLOCK}
    return [timeless(value) for value in metrics] if isinstance(metrics, list) else metrics


def test_recipes(tmp_path: Path, base: Path, capsys: Capsys) -> None:
    listed = good(capsys, "recipes").out
    assert all(name in listed for name in recipe_names())
    assert list(good(capsys, "recipes", "--json").json["recipes"]) == recipe_names()
    toml = good(capsys, "recipes", "sst2-bert").out
    assert toml.startswith(recipe_path("sst2-bert").read_text().partition("model =")[0] + "\n# base model")
    (tmp_path / "mine.toml").write_text(toml)
    assert good(capsys, "recipes", tmp_path / "mine.toml").out == toml
    again = good(capsys, "recipes", tmp_path / "mine.toml", "--json").json
    assert again == good(capsys, "recipes", "sst2-bert", "--json").json
    assert list(again) == list(recipe_keys())
    assert good(capsys, "plan", "--recipe", tmp_path / "mine.toml", "--model", base).status == 0


def test_env(capsys: Capsys) -> None:
    facts = good(capsys, "env", "--json").json
    assert {"python", "bertlora", "torch", "transformers", "peft", "threads", "precision", "device"} <= set(facts)
    assert facts["torch"] in good(capsys, "env").out


def test_cache(tmp_path: Path, base: Path, capsys: Capsys) -> None:
    said = good(capsys, "cache", base).out
    assert str(base) in said
    facts = good(capsys, "cache", base, "--to", tmp_path / "model", "--json").json
    assert facts["sha256"] in said
    assert facts["folder"] == str(tmp_path / "model")
    assert good(capsys, "cache", tmp_path / "model", "--json").json["sha256"] == facts["sha256"]


def test_prepare(tmp_path: Path, reviews: Path, base: Path, capsys: Capsys) -> None:
    found = good(capsys, "prepare", reviews, "--out", tmp_path / "data", "--model", base)
    assert re.search(r"train +28\b.*validation +6\b.*test +6\b", found.out, re.DOTALL)
    assert "labels: negative, positive" in found.out
    out = tmp_path / "half"
    half = good(capsys, "prepare", reviews, "--out", out, "--split", "50/0/50", "--sample", 20, "--json").json
    assert {"rows", "labels", "fingerprint", "checks"} <= set(half)
    assert half["rows"] == {"train": 10, "test": 10}
    assert half["labels"] == ["negative", "positive"]
    other = good(capsys, "prepare", reviews, "--out", out, "--seed", 1, "--overwrite", "--json").json
    assert other["rows"] == {"train": 28, "validation": 6, "test": 6}
    assert other["fingerprint"] != half["fingerprint"]


def test_prepare_with_columns_named(tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "r.csv").write_text("a,b,c\n" + "".join(f"one {i},two {i},{i % 2}\n" for i in range(10)))
    named = ("--text-column", "a", "--text-pair-column", "b", "--label-column", "c")
    assert good(capsys, "prepare", tmp_path / "r.csv", "--out", tmp_path / "d", *named, "--json").json["rows"]
    facts = json.loads((tmp_path / "d" / "dataset.json").read_text())
    assert facts["columns"] == {"text": "a", "text_pair": "b", "label": "c"}


def test_plan(tmp_path: Path, reviews: Path, model: tuple[object, ...], capsys: Capsys) -> None:
    found = good(capsys, "plan", *model, "--targets", "query,value", "--json").json
    keys = {"trainable", "total", "trainable_percent", "lora_parameters", "adapter_bytes", "targets"}
    assert keys <= set(found)
    # 2 layers x 2 projections of 32 x 32, rank 2; and a head of 32 x 2 + 2.
    assert (found["lora_parameters"], found["trainable"]) == (2 * 2 * 2 * (32 + 32), 512 + 66)
    assert found["trainable_percent"] == pytest.approx(100 * found["trainable"] / found["total"])
    assert len(found["targets"]) == 4
    assert (
        f"{found['trainable']:,} of {found['total']:,}" in good(capsys, "plan", *model, "--targets", "query,value").out
    )
    good(capsys, "prepare", reviews, "--out", tmp_path / "data")
    for data in (reviews, tmp_path / "data"):
        assert good(capsys, "plan", data, *model, "--epochs", 5, "--json").json["steps"] == 5 * 4


def test_plan_agrees_with_training(trained: Path, model: tuple[object, ...], capsys: Capsys) -> None:
    expected = good(capsys, "plan", *model, "--json").json["adapter_bytes"]
    assert (trained / "adapter" / "adapter_model.safetensors").stat().st_size == pytest.approx(expected, rel=0.02)


def test_train_from_a_prepared_folder(tmp_path: Path, reviews: Path, model: tuple[object, ...], capsys: Capsys) -> None:
    good(capsys, "prepare", reviews, "--out", tmp_path / "data")
    run = tmp_path / "run"
    found = good(capsys, "train", tmp_path / "data", "--out", run, *model, "--epochs", 2, "--samples", "i loved it")
    last = rf"^{run}: trained in .*; validation accuracy \d+\.\d\d % \(epoch [12], chosen on these rows\)$"
    assert re.search(last, found.out, re.MULTILINE)
    assert re.search(r"^On the same rows: linear probe accuracy .* %.*; TF-IDF accuracy ", found.out, re.MULTILINE)
    assert "i loved it" in found.out
    assert re.fullmatch(
        r"linear probe: the frozen encoder reads 28 texts\n"
        r"(epoch [12]/2  train loss .*  validation loss .*  accuracy .* %.*texts/s.*\n){2}",
        found.err,
    )
    there = {path.name for path in run.iterdir()}
    assert {"recipe.toml", "adapter", "history.jsonl", "metrics.json", "run.json"} <= there
    assert not {"checkpoints", "data"} & there


def test_imbalanced_classes_are_weighted_and_the_epoch_is_chosen_by_macro_f1(
    tmp_path: Path, reviews: Path, model: tuple[object, ...], capsys: Capsys
) -> None:
    """Without a word on either, and every line after training is by macro F1 too."""
    lines = reviews.read_text().splitlines()
    rare = [line for line in lines[1:] if line.endswith(",negative")][:4]
    common = [line for line in lines[1:] if line.endswith(",positive")]
    parts = {"train": [*rare[:2], *common[:12]], "validation": [*rare[2:], *common[12:18]]}
    specs = []
    for split, part in parts.items():
        (tmp_path / f"{split}.csv").write_text("\n".join([lines[0], *part, ""]))
        specs.append(f"{split}={tmp_path / split}.csv")
    run = tmp_path / "run"
    found = good(capsys, "train", *specs, "--out", run, *model, "--epochs", 2, "--seeds", 2)
    recipe, metrics = Recipe.named(str(run / "recipe.toml")), json.loads((run / "metrics.json").read_text())
    assert (recipe.class_weights, recipe.best_metric, metrics["best_metric"]) == ("balanced", "macro_f1", "macro_f1")
    check_schema("train", metrics)
    best = max(metrics["epochs"], key=lambda line: (line["macro_f1"], -line["validation_loss"]))
    kept = metrics["validation"]
    assert (kept["epoch"], kept["macro_f1"]) == (best["epoch"], pytest.approx(best["macro_f1"]))
    said = rf"; validation macro F1 {kept['macro_f1']:.4f} \(epoch {kept['epoch']:g}, chosen on these rows\)$"
    assert re.search(said, found.out, re.MULTILINE)
    rivals = {name: found["validation_macro_f1"] for name, found in metrics["rivals"].items()}
    assert f"linear probe macro F1 {rivals['probe']:.4f} in " in found.out
    assert f"TF-IDF macro F1 {rivals['tfidf']:.4f} in " in found.out
    seeds = metrics["seeds"]
    assert seeds["accuracies"][0] == pytest.approx(kept["macro_f1"])
    assert "validation split (each epoch chosen on these rows), seeds 42, 43: 2 seeds: mean macro F1 " in found.out
    (check,) = [line for line in found.err.splitlines() if line.startswith("warning: imbalance")]
    assert "try" not in check


def test_train_prints_one_object(tmp_path: Path, reviews: Path, model: tuple[object, ...], capsys: Capsys) -> None:
    run = tmp_path / "run"
    found = good(capsys, "train", reviews, "--out", run, *model, "--epochs", 2, "--json").json
    assert {"run", "train", "validation", "epochs"} <= set(found)
    measured = {"examples", "tokens", "seconds", "examples_per_s", "tokens_per_s", "peak_rss_mib", "loss"}
    assert measured <= set(found["train"])
    assert {"accuracy", "loss"} <= set(found["validation"])
    assert [line["epoch"] for line in found["epochs"]] == [1, 2]
    assert found["train"]["examples"] == 2 * 28
    assert json.loads((run / "metrics.json").read_text()) == found
    assert [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()] == found["epochs"]
    assert (run / "data" / "dataset.json").is_file(), "data read from a file are kept with the run"


def test_train_names_what_is_odd_in_a_line_each(
    tmp_path: Path, reviews: Path, model: tuple[object, ...], capsys: Capsys
) -> None:
    text = reviews.read_text()
    (tmp_path / "odd.csv").write_text(text + "<br />odd,positive\n<br />odd,positive\nshort,negative\n")
    found = good(capsys, "train", tmp_path / "odd.csv", "--out", tmp_path / "run", *model, "--epochs", 1)
    lines = [line for line in found.err.splitlines() if re.match("note|warning|error", line)]
    assert [line.split(": ")[:2] for line in lines] == [["warning", name] for name in ("exact_duplicates", "html")]
    checks = good(capsys, "prepare", tmp_path / "odd.csv", "--out", tmp_path / "same", "--json").json["checks"]
    (check,) = (check for check in checks if check["name"] == "exact_duplicates")
    assert lines[0] == f"warning: exact_duplicates: 1 ({named_rows(check, 3)}); {check['advice']}"
    table = good(capsys, "prepare", tmp_path / "odd.csv", "--out", tmp_path / "data").out
    for name, severity in (("exact_duplicates", "warning"), ("html", "warning"), ("very_short", "note")):
        assert re.search(rf"^ *{name} +{severity} ", table, re.MULTILINE)


def test_train_from_every_kind_of_source_is_the_same(
    tmp_path: Path, reviews: Path, model: tuple[object, ...], capsys: Capsys
) -> None:
    good(capsys, "prepare", reviews, "--out", tmp_path / "data")
    toml = good(capsys, "recipes", "default").out.replace("data = []", f'data = ["{reviews}"]')
    (tmp_path / "mine.toml").write_text(toml)
    sources: dict[str, tuple[object, ...]] = {
        "prepared": (tmp_path / "data",),
        "file": (reviews,),
        "key": ("--data", reviews),
        "recipe": ("--recipe", tmp_path / "mine.toml"),
    }
    found = {
        name: timeless(good(capsys, "train", *words, "--out", tmp_path / name, *model, "--epochs", 1, "--json").json)
        for name, words in sources.items()
    }
    assert all(metrics == found["prepared"] for metrics in found.values())


def test_the_recipe_of_a_run_names_the_data_it_was_trained_on(
    tmp_path: Path, reviews: Path, model: tuple[object, ...], monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("my data")
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"{split}.csv").write_bytes(reviews.read_bytes())
    good(capsys, "prepare", reviews, "--out", "prepared")
    there = tmp_path / folder
    sources: dict[tuple[str, ...], tuple[str, ...]] = {
        ("reviews.csv",): (str(reviews),),
        ("my data",): (str(there),),
        ("train=my data/train.csv", "test=my data/test.csv"): (f"train={there}/train.csv", f"test={there}/test.csv"),
        ("prepared",): (str(tmp_path / "prepared"),),
    }
    for given, stored in sources.items():
        words = (*given, "--recipe", "imdb-distilbert", "--targets", "query", "--samples", "", "--out", "run", *model)
        good(capsys, "train", *words, "--epochs", 1, "--overwrite")
        assert Recipe.named("run/recipe.toml").data == stored
    assert absolute_specs(["hub:a/b"]) == ("hub:a/b",)


@pytest.mark.parametrize(("split", "advice"), [("70/15/15", ""), ("80/20/0", " --split validation"), ("100/0/0", None)])
def test_train_ends_with_an_advice_that_works(
    split: str, advice: str | None, tmp_path: Path, reviews: Path, model: tuple[object, ...], capsys: Capsys
) -> None:
    run = tmp_path / "run"
    *_, last = good(capsys, "train", reviews, "--out", run, *model, "--epochs", 1, "--split", split).out.splitlines()
    if advice is None:
        assert "Next" not in last
    else:
        assert last == f"Next: bertlora evaluate {run}{advice}"
        good(capsys, *shlex.split(last.removeprefix("Next: bertlora ")))


def test_train_from_named_splits(tmp_path: Path, model: tuple[object, ...], capsys: Capsys) -> None:
    for name, rows in (("a", 12), ("b", 6), ("c", 4)):
        lines = [f"{name} text {i},{'good' if i % 2 else 'bad'}\n" for i in range(rows)]
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "".join(lines))
    splits = [
        f"{split}={tmp_path / name}.csv" for split, name in zip(("train", "validation", "test"), "abc", strict=True)
    ]
    found = good(capsys, "train", *splits, "--out", tmp_path / "run", *model, "--epochs", 1, "--json").json
    assert found["train"]["examples"] == 12
    assert good(capsys, "evaluate", tmp_path / "run", "--json").json["n"] == 4
    assert good(capsys, "evaluate", tmp_path / "run", "--split", "validation", "--json").json["n"] == 6


def test_label_names_are_shown_and_data_keep_their_own(
    tmp_path: Path, reviews: Path, model: tuple[object, ...], capsys: Capsys
) -> None:
    run = tmp_path / "run"
    good(capsys, "train", reviews, "--out", run, *model, "--epochs", 1, "--label-names", "Negative,Positive")
    (line,) = good(capsys, "predict", run, "i loved it").lines
    assert list(line["probabilities"]) == ["Negative", "Positive"]
    shown = tmp_path / "shown.csv"
    shown.write_text("text,label\nI loved it.,Positive\nI hated it.,Negative\n")
    for data in ((), ("--data", reviews), ("--data", shown)):
        found = good(capsys, "evaluate", run, *data, "--json").json
        assert list(found["lora"]["per_class"]) == ["Negative", "Positive"]
        assert sum(sum(row) for row in found["lora"]["confusion"]) == found["n"]


@pytest.mark.usefixtures("one_thread", "every_strength")
def test_an_interrupted_run_resumes_to_the_same_end(
    trained: Path, tmp_path: Path, reviews: Path, model: tuple[object, ...], capsys: Capsys
) -> None:
    """An interrupted run is written in place; a killed one was to replace another run, which then still predicts."""
    how = (reviews, *model, "--epochs", 8, "--lora-dropout", 0.1)
    whole = good(capsys, "train", *how, "--out", tmp_path / "whole", "--json").json
    answers = good(capsys, "predict", trained, *TEXTS).lines

    assert stopped(signal.SIGINT, "train", *how, "--out", tmp_path / "a") == (130, "bertlora: interrupted")
    assert not (tmp_path / "a" / "run.json").exists()
    assert stopped(signal.SIGKILL, "train", *how, "--out", trained, "--overwrite")[0] == -signal.SIGKILL
    assert good(capsys, "predict", trained, *TEXTS).lines == answers

    for run in (tmp_path / "a", trained):
        found = good(capsys, "train", *how, "--out", run, "--resume", "--json").json
        assert timeless(found) == timeless(whole)
        assert found["run"] == str(run)
        adapters = [(one / "adapter" / "adapter_model.safetensors").read_bytes() for one in (tmp_path / "whole", run)]
        assert adapters[0] == adapters[1]
        assert not [path for path in run.iterdir() if path.name.startswith((".", "checkpoint"))]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Lets this process add in the order of one that `start` started: the sums are then the same to the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def stopped(sign: signal.Signals, *argv: object) -> tuple[int, str]:
    """Sends a signal to a training after its third epoch; returns its exit status and the start of its last line."""
    with start(*argv) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(b"epoch 3/"):
                process.send_signal(sign)
                break
        last = (process.stderr.read().decode().splitlines() or [""])[-1]
        return process.wait(), last.partition(";")[0]


def test_resume_without_a_word_on_the_recipe(
    tmp_path: Path, reviews: Path, model: tuple[object, ...], capsys: Capsys
) -> None:
    run = tmp_path / "run"
    good(capsys, "train", reviews, "--out", run, *model, "--epochs", 2)
    expected = json.loads((run / "metrics.json").read_text())
    (run / "run.json").unlink()
    stored = Recipe.named(str(run / "recipe.toml")).data
    found = good(capsys, "train", "--out", run, "--resume", "--json").json
    assert timeless(found) == timeless(expected)
    assert Recipe.named(str(run / "recipe.toml")).data == stored == (str(reviews),)


def test_overwrite_trains_again(trained: Path, reviews: Path, model: tuple[object, ...], capsys: Capsys) -> None:
    (trained / "left-over").write_text("of the run before")
    good(capsys, "train", reviews, "--out", trained, *model, "--epochs", 1, "--overwrite")
    assert not (trained / "left-over").exists()
    assert json.loads((trained / "metrics.json").read_text())["epochs"][-1]["epoch"] == 1


def test_a_quiet_verb_says_nothing_but_its_results(
    tmp_path: Path, reviews: Path, model: tuple[object, ...], capsys: Capsys
) -> None:
    (tmp_path / "mine.toml").write_text(f'data = "{reviews}"\nepochs = 1\n')
    recipe = ("--recipe", tmp_path / "mine.toml", *model)
    said = good(capsys, "train", "--out", tmp_path / "a", *recipe)
    found = good(capsys, "train", "--out", tmp_path / "b", *recipe, "--quiet")
    assert "epoch 1/1" in said.err
    assert found.err == ""
    assert "trained in" in found.out
    assert good(capsys, "compare", tmp_path / "a", tmp_path / "b", "--quiet", "--json").err == ""
    assert "evaluating" in good(capsys, "compare", tmp_path / "a", tmp_path / "b").err


def test_evaluate_prints_the_four_lines(trained: Path, capsys: Capsys) -> None:
    found = good(capsys, "evaluate", trained, "--json").json
    base, lora = found["base"]["accuracy"], found["lora"]["accuracy"]
    points, chance = 100 * (lora - base), found["majority_share"]
    relative = f"{points / base:.2f}%"
    if base <= chance:
        relative = f"not shown, the base is not above chance ({100 * chance:.2f}%)"
    expected = (
        f"Base BERT Accuracy: {base:.4f} ({100 * base:.2f}%)\n"
        f"BERT + LoRA Accuracy: {lora:.4f} ({100 * lora:.2f}%)\n"
        f"Improvement: {points:.2f} percentage points\n"
        f"Relative Improvement: {relative}\n"
    )
    said = good(capsys, "evaluate", trained)
    assert said.out.startswith(f"{found['verdict']}\n\n6 rows (test split), in fp32\n")
    assert said.out.endswith(expected)
    assert said.err == ""
    parts = ("linear probe  ", "LoRA, class", "true \\ predicted", "Base BERT Accuracy")
    order = [said.out.index(part) for part in parts]
    assert order == sorted(order)


def test_the_verdict_says_so_if_the_rows_ran_in_bf16(run_of_reviews: Path, capsys: Capsys) -> None:
    for precision in ("fp32", "bf16"):  # a CPU without bf16 computes it too
        found = good(capsys, "evaluate", run_of_reviews, "--precision", precision, "--json").json
        first = found["verdict"].splitlines()[0]
        assert ("rows (in bf16)" in first) == (precision == "bf16"), first
        assert found["precision"] == precision
        said = good(capsys, "evaluate", run_of_reviews, "--precision", precision).out
        assert said.startswith(f"{first}\n")


def test_evaluate_gives_every_figure(trained: Path, reviews: Path, capsys: Capsys) -> None:
    own = good(capsys, "evaluate", trained, "--json").json
    assert own["n"] == 6
    for name in ("base", "probe", "lora"):
        assert set(own[name]) >= FIGURES
        low, high = own[name]["accuracy_ci95"]
        assert 0 <= low <= own[name]["accuracy"] <= high <= 1
        assert set(own[name]["per_class"]["positive"]) == {"precision", "recall", "f1", "support"}
    assert {"improvement_points", "improvement_relative_percent", "mcnemar_p", "verdict"} <= set(own)
    assert good(capsys, "evaluate", trained, "--data", reviews, "--json").json["n"] == 40
    named = good(capsys, "evaluate", trained, "--data", trained / "data", "--json").json
    assert (own["where"], named["where"]) == ("test split", f"{trained / 'data'}, test split")
    assert named | {"where": "test split"} == own
    assert good(capsys, "evaluate", trained, "--data", f"test={reviews}", "--json").json["n"] == 40


def test_evaluate_reads_the_tokens_that_are_kept(
    trained: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = good(capsys, "evaluate", trained, "--json").json
    monkeypatch.setattr("bertlora.data.reader.token_chunks", lambda *_: pytest.fail("tokenised again"))
    assert good(capsys, "evaluate", trained, "--json").json == first


def test_evaluate_says_which_rows(trained: Path, reviews: Path, capsys: Capsys) -> None:
    data = trained / "data"
    for words, name in {
        (): "test split",
        ("--split", "validation"): "validation split",
        ("--data", data, "--split", "validation"): f"{data}, validation split",
        ("--data", f"test={reviews}"): f"test={reviews}, test split",
        ("--data", reviews): str(reviews),
    }.items():
        assert f"rows ({name}), in fp32\n" in good(capsys, "evaluate", trained, *words).out


def test_predict_gives_one_line_for_each_text_in_order(trained: Path, capsys: Capsys) -> None:
    lines = good(capsys, "predict", trained, *TEXTS).lines
    assert [line["text"] for line in lines] == TEXTS
    for line in lines:
        assert set(line) == {"text", "label", "confidence", "probabilities"}
        assert list(line["probabilities"]) == ["negative", "positive"]
        assert sum(line["probabilities"].values()) == pytest.approx(1)
        assert line["confidence"] == line["probabilities"][line["label"]] == max(line["probabilities"].values())
    alone = [good(capsys, "predict", trained, text).lines[0] for text in TEXTS]
    assert [line["confidence"] for line in alone] == pytest.approx([line["confidence"] for line in lines], abs=1e-6)


def test_predict_with_the_base(trained: Path, capsys: Capsys) -> None:
    lora, base = (
        good(capsys, "predict", trained, *TEXTS).lines,
        good(capsys, "predict", trained, *TEXTS, "--base").lines,
    )
    assert [line["text"] for line in base] == TEXTS
    assert all(a["confidence"] != b["confidence"] for a, b in zip(lora, base, strict=True))


@pytest.mark.parametrize("suffix", ["txt", "log", "csv", "parquet"])
def test_predict_reads_files_of_any_length_in_order(
    trained: Path, tmp_path: Path, suffix: str, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertlora.cli.predicting.CHUNK_TEXTS", 256)
    texts = [f"{TEXTS[i % 3]}, number {i} {'and on ' * (i % 7)}".strip() for i in range(600)]
    path, table = tmp_path / f"texts.{suffix}", pd.DataFrame({"review": texts})
    if suffix in ("txt", "log"):
        path.write_text("\n".join(texts))
    elif suffix == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)
    assert [line["text"] for line in good(capsys, "predict", trained, "--file", path).lines] == texts


def test_predict_reads_one_split_of_several(trained: Path, tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "d").mkdir()
    for split in ("train", "test"):
        (tmp_path / "d" / f"{split}.csv").write_text(f"text,label\na film to {split},1\n")
    for words, split in (((), "test"), (("--split", "train"), "train")):
        (line,) = good(capsys, "predict", trained, "--file", tmp_path / "d", *words).lines
        assert line["text"] == f"a film to {split}"


def test_predict_takes_pairs(tmp_path: Path, model: tuple[object, ...], capsys: Capsys) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("sentence1,sentence2,label\n" + "".join(f"one {i},two {i},{i % 2}\n" for i in range(12)))
    good(capsys, "train", path, "--out", tmp_path / "run", *model, "--epochs", 1)
    lines = good(capsys, "predict", tmp_path / "run", "--file", path).lines
    assert [(line["text"], line["text_pair"]) for line in lines] == [(f"one {i}", f"two {i}") for i in range(12)]
    given = [word for i in range(2) for word in ("--pair", f"one {i}", f"two {i}")]
    for line, same in zip(good(capsys, "predict", tmp_path / "run", *given).lines, lines[:2], strict=True):
        assert line | {"confidence": 0, "probabilities": 0} == same | {"confidence": 0, "probabilities": 0}
        assert line["probabilities"] == pytest.approx(same["probabilities"], abs=1e-5)


def test_predict_answers_each_line_of_stdin_at_once(trained: Path) -> None:
    with start("predict", trained) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for text in TEXTS:
            process.stdin.write(f"{text}\n".encode())
            ready, _, _ = select.select([process.stdout], [], [], 60)
            assert ready, "no answer while stdin is open"
            assert json.loads(process.stdout.readline())["text"] == text
        process.stdin.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_predict_into_head_is_no_fault(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("a film\n" * 5000)
    with start("predict", trained, "--file", tmp_path / "many.txt") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["text"] == "a film"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_export(trained: Path, tmp_path: Path, base: Path, capsys: Capsys) -> None:
    expected = good(capsys, "predict", trained, *TEXTS).lines
    merged = good(capsys, "export", trained, "--to", tmp_path / "merged", "--json").json
    assert merged["format"] == "merged"
    assert merged["texts"] == 6
    assert merged["largest_difference"] < 1e-3
    assert served(tmp_path / "merged") == pytest.approx(
        [line["probabilities"]["positive"] for line in expected], abs=1e-5
    )
    said = good(capsys, "export", trained, "--to", tmp_path / "adapter", "--format", "adapter").out
    assert str(tmp_path / "adapter") in said
    lines = good(capsys, "predict", tmp_path / "adapter", *TEXTS, "--model", base).lines
    assert [line["confidence"] for line in lines] == pytest.approx([line["confidence"] for line in expected], abs=1e-6)


def served(folder: Path) -> list[float]:
    """What transformers gives for the texts without bertlora: the probability of `positive`."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.id2label == {0: "negative", 1: "positive"}
    with torch.inference_mode():
        logits = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    return [float(p) for p in logits.softmax(dim=1)[:, 1]]


@pytest.fixture
def small_demo(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the demo train the tiny model for an epoch on every tenth review."""
    specs = []
    for split, path in (spec.split("=") for spec in embedded_specs()):
        (tmp_path / f"{split}.jsonl").write_text("".join(Path(path).read_text().splitlines(keepends=True)[::10]))
        specs.append(f"{split}={tmp_path / split}.jsonl")
    monkeypatch.setattr("bertlora.pipeline.demo.embedded_specs", lambda: specs)
    small = Recipe.named("default").replace(model=str(base), max_length=32, epochs=1, precision="fp32")
    monkeypatch.setattr(Recipe, "named", lambda name: small)


@pytest.mark.usefixtures("small_demo")
def test_demo(tmp_path: Path, capsys: Capsys) -> None:
    run = tmp_path / "demo"
    found = good(capsys, "demo", "--out", run)
    for part in ("Base BERT Accuracy: ", "BERT + LoRA Accuracy: ", "sample text", f"Next: bertlora predict {run}"):
        assert part in found.out
    assert re.search(r"; validation accuracy .* % \(epoch 1, chosen on these rows\)$", found.out, re.MULTILINE)
    assert "film reviews written for bertlora" in found.err
    metrics = good(capsys, "demo", "--out", run, "--overwrite", "--json").json
    assert {"train", "validation", "epochs", "samples", "evaluation"} <= set(metrics)
    assert metrics["evaluation"]["lora"]["accuracy"] == good(capsys, "evaluate", run, "--json").json["lora"]["accuracy"]


def test_debug_shows_the_traceback(capsys: Capsys) -> None:
    found: Answer = answer(capsys, "recipes", "nothing", "--debug")
    assert found.status == 2
    assert "Traceback" in found.err


def test_a_fault_of_the_program_is_status_1(monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    def broken(name: str) -> Recipe:
        raise AssertionError("two\nlines")

    monkeypatch.setattr(Recipe, "named", broken)
    found = answer(capsys, "recipes", "default")
    assert (found.status, found.out) == (1, "")
    assert found.err == "bertlora: internal fault: AssertionError: two lines; --debug shows where\n"


def test_the_tests_touch_no_network() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"


# A terminal


def test_on_a_terminal_a_bar_shows_loss_speed_and_time_left(
    reviews: Path, tmp_path: Path, model: tuple[object, ...]
) -> None:
    command = ("train", reviews, "--out", tmp_path / "run", "--epochs", "2", *model)
    text = on_terminal(*command, stream="stderr", columns=120)
    assert re.search(r"training .* 8/8  loss \d\.\d{4}  [\d.]+ texts/s .*\d:\d\d:\d\d", text)
    assert "epoch 2/2  train loss" in text
    assert "Traceback" not in text
