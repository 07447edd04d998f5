"""From a CSV file to a run folder: what is written, what is kept, what is refused; trackers; two processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import start
from fork_server import Process
from helpers import probabilities_of
from safetensors.numpy import load_file
from small_training import small_recipe, without_timings

import bertlora.data.reader
from bertlora.data.prepared import Prepared, prepare
from bertlora.data.reader import split_examples
from bertlora.errors import HealthError, OutputError, RecipeError, RunError
from bertlora.evaluation.verdict import evaluate_rows, figures
from bertlora.files import size_of
from bertlora.model.engine import Execution
from bertlora.pipeline.train import resumed_recipe
from bertlora.pipeline.training_run import train_run
from bertlora.recipe import Recipe
from bertlora.run.folder import check_run_folder
from bertlora.run.loaded import Run
from bertlora.run.manifest import read_manifest
from bertlora.training import accelerator
from bertlora.training.events import Evaluation, Probing, Step

Tiny = Callable[[str], Path]
SAMPLES = ("i loved it, a joy", "a dull mess")


@pytest.fixture
def data(reviews: Path, tmp_path: Path) -> Prepared:
    return prepare([str(reviews)], tmp_path / "data")


def brisk_recipe(tiny: Tiny, **changes: Any) -> Recipe:
    settings = {"batch_size": 8, "targets": ("all-linear",), "samples": SAMPLES, "lora_dropout": 0.1}
    return small_recipe(tiny("bert"), **(settings | changes))


def weights(run: Path) -> dict[str, Any]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def same_weights(first: Path, second: Path) -> bool:
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_from_csv_to_run(tiny: Tiny, data: Prepared, tmp_path: Path) -> None:
    out, events = tmp_path / "run", []
    metrics = train_run(data, brisk_recipe(tiny, epochs=8), out, on_event=events.append)

    written = {path.name for path in out.iterdir()}
    assert {"recipe.toml", "adapter", "history.jsonl", "metrics.json", "run.json"} <= written
    assert not any("checkpoint" in name or "partial" in name for name in written)
    assert json.loads((out / "metrics.json").read_text()) == metrics
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert history == metrics["epochs"]
    assert [line["epoch"] for line in history] == list(range(1, 9))
    assert events[0] == Probing(data.rows["train"])
    assert sum(isinstance(e, Step) for e in events) == 8 * 4
    assert sum(isinstance(e, Evaluation) for e in events) == 8

    assert {"examples", "tokens", "seconds", "examples_per_s", "tokens_per_s", "peak_rss_mib", "loss"} <= set(
        metrics["train"]
    )
    assert metrics["run"] == str(out)
    assert metrics["train"]["examples"] == 8 * data.rows["train"]
    best = max(history, key=lambda line: (line["accuracy"], -line["validation_loss"]))
    assert metrics["validation"]["accuracy"] == best["accuracy"]
    assert metrics["validation"]["loss"] == best["validation_loss"]
    resolved = brisk_recipe(tiny, epochs=8).replace(**RESOLVED)
    assert Recipe.named(str(out / "recipe.toml")) == resolved
    manifest = read_manifest(out)
    assert manifest.labels == data.labels == ["negative", "positive"]
    assert manifest.data["fingerprint"] == data.fingerprint


def test_samples_are_predicted_before_and_after(tiny: Tiny, data: Prepared, tmp_path: Path) -> None:
    metrics = train_run(data, brisk_recipe(tiny, epochs=8), tmp_path / "run")
    run = Run.load(tmp_path / "run")
    before, after = probabilities_of(run.adapted, SAMPLES, base=True), run.predict_proba(SAMPLES)
    labels = run.manifest.labels
    assert [s["text"] for s in metrics["samples"]] == list(SAMPLES)
    assert [s["before"] for s in metrics["samples"]] == [labels[i] for i in before.argmax(axis=1)]
    assert [s["after"] for s in metrics["samples"]] == [labels[i] for i in after.argmax(axis=1)]
    assert [s["confidence"] for s in metrics["samples"]] == pytest.approx(after.max(axis=1).tolist())
    assert metrics["samples"][0]["after"] == "positive"


def test_the_run_gives_the_accuracy_that_training_saw(tiny: Tiny, data: Prepared, tmp_path: Path) -> None:
    metrics = train_run(data, brisk_recipe(tiny), tmp_path / "run")
    run = Run.load(tmp_path / "run")
    result = figures(evaluate_rows(run, split_examples(run.adapted.reader, data, "validation")))
    assert result["lora"]["accuracy"] == metrics["validation"]["accuracy"]
    assert result["lora"]["loss"] == pytest.approx(metrics["validation"]["loss"], abs=1e-5)
    assert result["probe"] is not None


def test_a_run_without_validation(tiny: Tiny, reviews: Path, tmp_path: Path) -> None:
    data = prepare([str(reviews)], tmp_path / "data", split="80/0/20")
    metrics = train_run(data, brisk_recipe(tiny), tmp_path / "run")
    assert metrics["validation"] == {"accuracy": None, "macro_f1": None, "loss": None, "epoch": 2.0}
    assert (
        "There were no validation texts, so its accuracy is not known."
        in (tmp_path / "run" / "adapter" / "README.md").read_text()
    )


def test_shown_labels_take_the_place_of_the_datas(tiny: Tiny, data: Prepared, tmp_path: Path) -> None:
    train_run(data, brisk_recipe(tiny, label_names=("Negative", "Positive")), tmp_path / "run")
    manifest = read_manifest(tmp_path / "run")
    assert manifest.labels == ["Negative", "Positive"]
    assert manifest.source_labels == ["negative", "positive"]
    with pytest.raises(RecipeError, match="label_names: got 1, expected one for each of negative, positive"):
        train_run(data, brisk_recipe(tiny, label_names=("Negative",)), tmp_path / "other")
    assert not (tmp_path / "other").exists()


# Tokens


def test_a_second_training_does_not_tokenise(
    tiny: Tiny, data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    token_chunks = bertlora.data.reader.token_chunks

    def counting(tokenizer: Any, texts: Any) -> Any:
        found = list(texts)
        asked.append(len(found))
        return token_chunks(tokenizer, found)

    monkeypatch.setattr(bertlora.data.reader, "token_chunks", counting)
    train_run(data, brisk_recipe(tiny), tmp_path / "first")
    assert asked == [data.rows["train"], data.rows["validation"]]
    assert list((data.folder / "tokens").rglob("*.npy"))
    # Another length, side and seed need no second tokenisation.
    train_run(data, brisk_recipe(tiny, max_length=16, truncation="left", seed=1), tmp_path / "second")
    assert len(asked) == 2
    train_run(data, brisk_recipe(tiny), tmp_path / "third")
    assert len(asked) == 2
    assert same_weights(tmp_path / "first", tmp_path / "third")
    assert not same_weights(tmp_path / "first", tmp_path / "second")


# Resuming


@pytest.mark.parametrize("every", [0, 3])
def test_an_interrupted_run_resumes_to_the_same_weights(
    tiny: Tiny, data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """Neither the rivals nor the frozen prefix are computed again."""
    recipe = brisk_recipe(tiny, evaluate_every_steps=every, head_start="probe", adapt_last_layers=1)
    whole = train_run(data, recipe, tmp_path / "whole")

    def stop(event: object) -> None:
        if isinstance(event, Evaluation):
            raise KeyboardInterrupt

    out = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        train_run(data, recipe, out, on_event=stop)
    with pytest.raises(RunError, match=r"did not finish; continue it by .* --resume"):
        Run.load(out)
    with pytest.raises(OutputError, match="resume=True to continue it, or overwrite=True"):
        check_run_folder(out, resume=False, overwrite=False)
    check_run_folder(out, resume=True, overwrite=False)
    with monkeypatch.context() as patch:
        for name in ("bertlora.rivals.fitted.Rivals.fit", "bertlora.model.engine.execution.Execution._fill"):
            patch.setattr(name, lambda *_: pytest.fail("it is done twice"))
        resumed = train_run(data, recipe, out, resume=True)
    for name in ("probe.safetensors", "tfidf.safetensors", "calibration.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert same_weights(tmp_path / "whole", out)
    assert without_timings(resumed["epochs"]) == without_timings(whole["epochs"])
    assert resumed["samples"] == whole["samples"]
    assert not (out / "checkpoints").exists()
    with pytest.raises(RunError, match="the run is finished"):
        check_run_folder(out, resume=True, overwrite=False)


RESOLVED = {"task": "classification", "loss": "cross-entropy", "class_weights": "none", "best_metric": "accuracy"}
LONGER = {"schedule": "constant", "warmup_fraction": 0.0, "average_weights": 0.0}


def test_more_epochs_continue_a_run_whose_steps_do_not_depend_on_them(
    tiny: Tiny, data: Prepared, tmp_path: Path
) -> None:
    """Interrupted in the second of two epochs and continued to three, it is the run of three epochs."""
    recipe = brisk_recipe(tiny, epochs=2, **LONGER)

    def stop(event: object) -> None:
        if isinstance(event, Evaluation):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(data, recipe, tmp_path / "run", on_event=stop)
    longer = resumed_recipe(tmp_path / "run", (), None, {"epochs": 3})
    assert longer == recipe.replace(epochs=3, **RESOLVED)
    found = train_run(data, longer, tmp_path / "run", resume=True)
    whole = train_run(data, recipe.replace(epochs=3), tmp_path / "whole")
    assert same_weights(tmp_path / "run", tmp_path / "whole")
    assert without_timings(found["epochs"]) == without_timings(whole["epochs"])


@pytest.mark.parametrize(
    ("changes", "epochs", "seeds", "expected"),
    [
        ({}, 1, 1, r"epochs: got 1, but .* was begun with 2; leave the recipe out"),
        ({"schedule": "cosine"}, 3, 1, "for which the cosine schedule was planned from the first step"),
        ({"warmup_fraction": 0.1, "average_weights": 0.1}, 3, 1, "the warm-up and the average of weights were planned"),
        ({}, 3, 2, "and so were its other seeds"),
    ],
)
def test_other_epochs_are_refused(
    tmp_path: Path, changes: dict[str, Any], epochs: int, seeds: int, expected: str
) -> None:
    (tmp_path / "recipe.toml").write_text(Recipe(epochs=2, **(LONGER | changes)).to_toml())
    with pytest.raises(RecipeError, match=expected):
        resumed_recipe(tmp_path, (), None, {"epochs": epochs}, seeds)


def test_resuming_on_other_data_is_refused(tiny: Tiny, data: Prepared, reviews: Path, tmp_path: Path) -> None:
    def stop(event: object) -> None:
        if isinstance(event, Evaluation):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(data, brisk_recipe(tiny), tmp_path / "run", on_event=stop)
    other = prepare([str(reviews)], tmp_path / "other", seed=7)
    events: list[object] = []
    with pytest.raises(RunError, match="begun on other data"):
        train_run(other, brisk_recipe(tiny), tmp_path / "run", resume=True, on_event=events.append)
    assert not events  # the pass for the linear probe, which takes a while, has not begun


def test_folders_that_cannot_take_a_run(tmp_path: Path) -> None:
    check_run_folder(tmp_path / "new", resume=False, overwrite=False)
    with pytest.raises(RunError, match="holds no run to resume"):
        check_run_folder(tmp_path / "new", resume=True, overwrite=False)
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="holds something already"):
        check_run_folder(tmp_path, resume=False, overwrite=False)
    check_run_folder(tmp_path, resume=False, overwrite=True)


def test_a_run_that_fails_keeps_the_batch_and_what_was_finished(
    tiny: Tiny, data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row has no finite loss, in the second epoch. The checkpoint of the first one is there for a resume."""
    run, recipe = tmp_path / "run", brisk_recipe(tiny)
    whole = train_run(data, recipe, tmp_path / "whole")
    spoiled = list(data.stream("train", "text")).index("i loved it, late at night")
    logits = Execution.logits

    def not_finite(self: Execution, inputs: Any, rows: Any, *more: Any, **keys: Any) -> Any:
        found = logits(self, inputs, rows, *more, **keys)
        given = len(inputs) == data.rows["train"] and trained[0] and spoiled in list(rows)
        return found * torch.tensor([[float("nan") if given and row == spoiled else 1.0] for row in rows])

    trained = [False]
    monkeypatch.setattr(Execution, "logits", not_finite)
    with pytest.raises(HealthError, match=r"the loss is nan; .*without a finite loss: row \d+ of the train") as caught:
        train_run(data, recipe, run, on_event=lambda e: trained.append(trained.pop() or isinstance(e, Evaluation)))
    assert str(caught.value).endswith(f"{run / 'failed_batch.jsonl'} has the batch")
    assert "\n" not in str(caught.value)
    lines = [json.loads(line) for line in (run / "failed_batch.jsonl").read_text().splitlines()]
    assert len(lines) == recipe.batch_size
    (bad,) = (line for line in lines if line["loss"] == "nan")
    assert (bad["row"], bad["text"], bad["label"]) == (spoiled, "i loved it, late at night", "positive")
    assert all(0 < line["loss"] < 10 and line["tokens"] > 3 for line in lines if line is not bad)
    assert not (run / "run.json").exists()

    monkeypatch.setattr(Execution, "logits", logits)
    resumed = train_run(data, recipe, run, resume=True)
    assert without_timings(resumed["epochs"]) == without_timings(whole["epochs"])
    assert same_weights(run, tmp_path / "whole")
    assert not (run / "failed_batch.jsonl").exists()


def test_validation_logits_that_are_not_finite_stop_a_run(
    tiny: Tiny, data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = Execution.predict

    def not_finite(self: Execution, inputs: Any, *more: Any) -> Any:
        found = predict(self, inputs, *more)
        found[1] = np.inf
        return found

    monkeypatch.setattr(Execution, "predict", not_finite)
    with pytest.raises(HealthError, match=r"logits of 1 of \d+ validation texts are not finite"):
        train_run(data, brisk_recipe(tiny), tmp_path / "run")
    (line,) = (json.loads(line) for line in (tmp_path / "run" / "failed_batch.jsonl").read_text().splitlines())
    assert (line["split"], line["row"], line["loss"]) == ("validation", 1, "nan")


# Trackers


def test_tensorboard_gets_the_curves(tiny: Tiny, data: Prepared, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics = train_run(data, brisk_recipe(tiny, tracker="tensorboard", epochs=3), tmp_path / "run")
    folders = {path.parent for path in (tmp_path / "run").rglob("events.out.tfevents.*")}
    found: dict[str, list[tuple[int, float]]] = {}
    for folder in folders:
        events = EventAccumulator(str(folder)).Reload()
        for tag in events.Tags()["scalars"]:
            found[tag] = [(e.step, e.value) for e in events.Scalars(tag)]
    figures = ("train_loss", "validation_loss", "accuracy", "learning_rate")
    assert {*figures, "examples_per_s"} <= set(found) <= set(accelerator.CURVES)
    for curve in figures:
        assert [step for step, _ in found[curve]] == [line["step"] for line in metrics["epochs"]]
        assert [v for _, v in found[curve]] == pytest.approx([line[curve] for line in metrics["epochs"]], rel=1e-5)


def test_no_tracker_writes_no_curves(tiny: Tiny, data: Prepared, tmp_path: Path) -> None:
    train_run(data, brisk_recipe(tiny), tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*tfevents*"))
    assert size_of(tmp_path / "run") > 0


def test_a_tracker_that_is_not_installed_is_a_recipe_error(
    tiny: Tiny, data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"wandb is not installed; run pip install 'bertlora\[wandb\]'"):
        train_run(data, brisk_recipe(tiny, tracker="wandb"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Several processes


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_two_processes_end_as_one(tiny: Tiny, reviews: Path, tmp_path: Path, task: str) -> None:
    """A step has an odd number of rows, and the last step leaves little or nothing to the second process."""
    if task == "regression":
        header, *lines = reviews.read_text().splitlines()
        scored = [line.rpartition(",")[0] + f",{i % 9 / 2}" for i, line in enumerate(lines)]
        reviews.write_text("\n".join([header, *scored]) + "\n")
    data = prepare([str(reviews)], tmp_path / "data")
    assert data.task == task
    recipe = brisk_recipe(tiny, batch_size=9, lora_dropout=0.0, learning_rate=1e-3, samples=(), head_start="probe")
    train_run(data, recipe, tmp_path / "one")
    run_twice = under_torchrun if task == "classification" else as_torchrun_does
    file = tmp_path / "recipe.toml"
    file.write_text(recipe.to_toml())
    run_twice("train", data.folder, "--recipe", file, "--out", tmp_path / "two")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    assert max(float(np.abs(one[name] - two[name]).max()) for name in one) < 1e-5
    histories = [Run.load(tmp_path / name).metrics()["epochs"] for name in ("one", "two")]
    for first, second in zip(*map(without_timings, histories), strict=True):
        assert first == pytest.approx(second, abs=1e-5)
    assert not list((tmp_path / "two").rglob("*partial*"))


def under_torchrun(*words: object) -> None:
    """Runs a verb in two processes, from the command line that users type.

    `accelerate launch --cpu` starts one process only, whatever number it is given.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "bertlora"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command += map(str, words)
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def as_torchrun_does(*words: object) -> None:
    """Runs a verb in two processes with what torchrun tells them, without importing torch three times."""
    for process in two_started(*words):
        with process:
            said = process.communicate(timeout=240)[1]
        assert process.returncode == 0, said


def two_started(*words: object) -> list[Process]:
    """Starts a verb in two processes; see `as_torchrun_does`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    address |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return [start(*words, env=address | {"RANK": str(i), "LOCAL_RANK": str(i)}) for i in range(2)]


@pytest.mark.slow
def test_a_process_that_dies_ends_the_training_which_can_be_resumed(tiny: Tiny, data: Prepared, tmp_path: Path) -> None:
    recipe = brisk_recipe(tiny, epochs=10, lora_dropout=0.0, learning_rate=1e-3, samples=(), early_stopping_patience=0)
    file, run = tmp_path / "recipe.toml", tmp_path / "two"
    train_run(data, recipe, tmp_path / "one")
    file.write_text(recipe.to_toml())
    main, other = two_started("train", data.folder, "--recipe", file, "--out", run)
    with main, other:
        while not (run / "history.jsonl").is_file():
            time.sleep(0.01)
        other.send_signal(signal.SIGKILL)
        said = main.communicate(timeout=60)[1].decode()
    assert main.returncode == 2
    (line,) = (line for line in said.splitlines() if line.startswith("bertlora:"))
    assert "a process of this training has ended" in line
    assert "Traceback" not in said
    assert not (run / "run.json").exists()
    as_torchrun_does("train", "--resume", "--out", run)
    histories = [Run.load(tmp_path / name).metrics()["epochs"] for name in ("one", "two")]
    for first, second in zip(*map(without_timings, histories), strict=True):
        assert first == pytest.approx(second, abs=1e-4)


def test_the_history_is_there_while_training_goes_on(tiny: Tiny, data: Prepared, tmp_path: Path) -> None:
    lines: list[int] = []

    def listen(event: object) -> None:
        if isinstance(event, Evaluation):
            file = tmp_path / "run" / "history.jsonl"
            lines.append(len(file.read_text().splitlines()) if file.exists() else 0)

    metrics = train_run(data, brisk_recipe(tiny), tmp_path / "run", on_event=listen)
    assert lines == list(range(len(metrics["epochs"])))
