"""An interrupted run that is resumed ends as if nothing had happened, to the bit."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import (
    LABELS,
    TEXTS,
    losses,
    run_all,
    same,
    script,
    small_recipe,
    small_training,
    state,
    without_timings,
)

from bertlora.errors import OutputError, RunError
from bertlora.recipe import Recipe
from bertlora.training import loop
from bertlora.training.checkpoints import FOLDER, Checkpoint, drop_checkpoint, load_checkpoint, save_checkpoint
from bertlora.training.events import Evaluation
from bertlora.training.loop import Training

Tiny = Callable[[str], Path]


def dropping_recipe(tiny: Tiny, **changes: Any) -> Recipe:
    return small_recipe(tiny("bert"), lora_dropout=0.3, encoder_dropout=0.1, average_weights=0.3, epochs=3, **changes)


def interrupt(training: Training, after: int, further_steps: int = 0) -> None:
    """Breaks off after this number of evaluations, and `further_steps` steps beyond the last."""
    evaluations = 0
    for event in training.run():
        evaluations += isinstance(event, Evaluation)
        if evaluations >= after:
            if further_steps == 0:
                return
            further_steps -= 1


@pytest.mark.parametrize("every", [0, 3], ids=["epochs", "steps"])
@pytest.mark.parametrize("further_steps", [0, 2])
@pytest.mark.parametrize("after", [1, 2])
def test_resumed_equals_uninterrupted(tiny: Tiny, tmp_path: Path, every: int, further_steps: int, after: int) -> None:
    recipe = dropping_recipe(tiny, evaluate_every_steps=every, schedule="cosine", warmup_fraction=0.2)
    whole = small_training(recipe, texts=TEXTS[:14], ids=[1, 0] * 7)
    run_all(whole)
    interrupt(small_training(recipe, texts=TEXTS[:14], ids=[1, 0] * 7, checkpoints=tmp_path), after, further_steps)
    torch.rand(5)  # whatever else the process has drawn
    resumed = small_training(recipe, texts=TEXTS[:14], ids=[1, 0] * 7, checkpoints=tmp_path, resume=True)
    steps, _ = run_all(resumed)
    assert steps[0].step == after * (every or 4) + 1
    assert same(state(resumed), state(whole))
    assert not same(state(resumed), resumed.start)
    assert without_timings(resumed.progress.history) == without_timings(whole.progress.history)
    assert resumed.trace.step_losses == whole.trace.step_losses
    assert np.array_equal(resumed.trace.row_losses, whole.trace.row_losses)
    assert resumed.summary()["examples"] == whole.summary()["examples"] == 42


def test_resumed_twice_equals_uninterrupted(tiny: Tiny, tmp_path: Path) -> None:
    recipe = dropping_recipe(tiny)
    whole = small_training(recipe)
    run_all(whole)
    interrupt(small_training(recipe, checkpoints=tmp_path), 1, 1)
    interrupt(small_training(recipe, checkpoints=tmp_path, resume=True), 1, 3)
    resumed = small_training(recipe, checkpoints=tmp_path, resume=True)
    assert len(run_all(resumed)[0]) == 4
    assert same(state(resumed), state(whole))


def test_resuming_brings_the_best_adapter_and_the_patience_back(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = dropping_recipe(tiny, early_stopping_patience=2)
    script(monkeypatch, [(16, 1.0), (8, 1.0), (9, 1.0)])
    first = small_training(recipe, checkpoints=tmp_path)
    interrupt(first, 2)
    best = first.best
    resumed = small_training(recipe, checkpoints=tmp_path, resume=True)
    _, evaluations = run_all(resumed)
    assert len(evaluations) == 1
    assert same(state(resumed), best)


def test_resuming_a_run_whose_last_step_is_done_only_puts_the_best_back(tiny: Tiny, tmp_path: Path) -> None:
    recipe = dropping_recipe(tiny)
    whole = small_training(recipe, checkpoints=tmp_path)
    run_all(whole)
    resumed = small_training(recipe, checkpoints=tmp_path, resume=True)
    assert run_all(resumed) == ([], [])
    assert same(state(resumed), state(whole))


def test_resuming_keeps_a_halved_micro_batch(tiny: Tiny, tmp_path: Path) -> None:
    training = small_training(dropping_recipe(tiny), checkpoints=tmp_path)
    training.progress.micro_batch = 2
    interrupt(training, 1)
    assert small_training(dropping_recipe(tiny), checkpoints=tmp_path, resume=True).progress.micro_batch == 2


def test_resuming_keeps_the_precision_that_was_measured(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = dropping_recipe(tiny, precision="auto")
    monkeypatch.setattr(loop, "choose_precision", lambda *_: "bf16")
    interrupt(small_training(recipe, checkpoints=tmp_path), 1)
    monkeypatch.setattr(loop, "choose_precision", lambda *_: "fp32")
    assert small_training(recipe, checkpoints=tmp_path, resume=True).precision == "bf16"
    assert small_training(recipe, checkpoints=tmp_path).precision == "fp32"


def test_resuming_with_no_checkpoint_starts_from_the_beginning(tiny: Tiny, tmp_path: Path) -> None:
    recipe = dropping_recipe(tiny)
    anew = losses(small_training(recipe, checkpoints=tmp_path, resume=True))
    assert anew == losses(small_training(recipe))


def test_a_checkpoint_is_ignored_unless_asked_for(tiny: Tiny, tmp_path: Path) -> None:
    interrupt(small_training(dropping_recipe(tiny), checkpoints=tmp_path), 1)
    assert small_training(dropping_recipe(tiny), checkpoints=tmp_path).progress.step == 0


# Refused


def test_other_data_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    interrupt(small_training(dropping_recipe(tiny), checkpoints=tmp_path, identity="one"), 1)
    assert small_training(dropping_recipe(tiny), checkpoints=tmp_path, identity="one", resume=True).progress.step == 4
    with pytest.raises(RunError, match="was begun on other data"):
        small_training(dropping_recipe(tiny), checkpoints=tmp_path, identity="two", resume=True)


@pytest.mark.parametrize("change", [{"rank": 2}, {"targets": ("key",)}, {"targets": ("all-linear",)}])
def test_another_adapter_is_refused(tiny: Tiny, tmp_path: Path, change: dict[str, Any]) -> None:
    interrupt(small_training(dropping_recipe(tiny), checkpoints=tmp_path), 1)
    with pytest.raises(RunError, match="another model or adapter"):
        small_training(dropping_recipe(tiny, **change), checkpoints=tmp_path, resume=True)


def test_other_classes_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    interrupt(small_training(dropping_recipe(tiny), checkpoints=tmp_path), 1)
    with pytest.raises(RunError, match="another model or adapter"):
        small_training(dropping_recipe(tiny), checkpoints=tmp_path, resume=True, labels=[*LABELS, "mixed"])


TENSORS = ["trained.safetensors", "average.safetensors", "best.safetensors", "optimiser.safetensors"]


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *((file, damage) for file in [*TENSORS, "progress.json"] for damage in ("cut", "noise")),
        *((file, "gone") for file in TENSORS),
    ],
)
def test_a_damaged_checkpoint_is_refused(tiny: Tiny, tmp_path: Path, file: str, damage: str) -> None:
    interrupt(small_training(dropping_recipe(tiny), checkpoints=tmp_path), 1)
    path = tmp_path / FOLDER / file
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:20] if damage == "cut" else b"{]" * 50)
    with pytest.raises(RunError, match=f"{FOLDER}: cannot be resumed from .* overwrite=True"):
        small_training(dropping_recipe(tiny), checkpoints=tmp_path, resume=True)


# Written whole


def test_a_checkpoint_holds_only_tensors_and_json(tiny: Tiny, tmp_path: Path) -> None:
    interrupt(small_training(dropping_recipe(tiny), checkpoints=tmp_path, identity="abc"), 1)
    names = {"progress.json", "scores.safetensors", "trace.safetensors", *TENSORS}
    assert {path.name for path in (tmp_path / FOLDER).iterdir()} == names
    progress = json.loads((tmp_path / FOLDER / "progress.json").read_text())
    assert (progress["step"], progress["identity"]) == (4, "abc")


def test_a_full_disk_leaves_the_checkpoint_before(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    training = small_training(dropping_recipe(tiny), checkpoints=tmp_path)
    interrupt(training, 1)
    before = {path.name: path.read_bytes() for path in (tmp_path / FOLDER).iterdir()}
    write_bytes = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if self.name == "optimiser.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left on device"):
        interrupt(training, 1)
    assert {path.name: path.read_bytes() for path in (tmp_path / FOLDER).iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]
    monkeypatch.undo()
    interrupt(small_training(dropping_recipe(tiny), checkpoints=tmp_path, resume=True), 1)
    assert json.loads((tmp_path / FOLDER / "progress.json").read_text())["step"] == 8


def test_saved_is_what_is_loaded(tiny: Tiny, tmp_path: Path) -> None:
    training = small_training(dropping_recipe(tiny))
    interrupt(training, 1)
    scores = torch.rand(16, 2).double()
    average = training.average.state()
    kept = Checkpoint(training.progress, state(training), average, training.start, scores, training.trace)
    save_checkpoint(tmp_path, kept, training.optimiser)
    expected = torch.rand(3)
    other = small_training(dropping_recipe(tiny))
    found = load_checkpoint(tmp_path, other.optimiser)
    assert found is not None
    assert found.progress == training.progress
    assert same(found.trained, state(training))
    assert same(found.average, average)
    assert not same(found.average, found.trained)
    assert same(found.best, training.start)
    assert found.scores.equal(scores)
    assert found.trace.step_losses == training.trace.step_losses
    assert np.array_equal(found.trace.row_losses, training.trace.row_losses)
    assert np.array_equal(found.trace.predicted, training.trace.predicted)
    assert torch.rand(3).equal(expected)
    moments, loaded = training.optimiser.state_dict()["state"], other.optimiser.state_dict()["state"]
    assert all(torch.equal(moments[i][key], loaded[i][key]) for i in moments for key in moments[i])


def test_dropping_a_checkpoint_removes_it(tiny: Tiny, tmp_path: Path) -> None:
    interrupt(small_training(dropping_recipe(tiny), checkpoints=tmp_path), 1)
    drop_checkpoint(tmp_path)
    assert list(tmp_path.iterdir()) == []
    drop_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path, small_training(dropping_recipe(tiny)).optimiser) is None
