"""An interrupted run that is resumed ends as if nothing had happened, to the bit."""

import errno
import signal
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

from bertlora.errors import OutputError, RunError, Terminated
from bertlora.model.adapted import Adapted
from bertlora.model.engine import Execution
from bertlora.recipe import Recipe
from bertlora.run.unfinished import CHECKPOINTS
from bertlora.training.checkpoints import OLD, drop_checkpoints, load_checkpoint
from bertlora.training.events import Evaluation
from bertlora.training.loop import Training
from bertlora.training.stops import termination_raised

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
    monkeypatch.setattr(Adapted, "training_precision", lambda *_: "bf16")
    interrupt(small_training(recipe, checkpoints=tmp_path), 1)
    monkeypatch.setattr(Adapted, "training_precision", lambda *_: "fp32")
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


FILES = ["average", "best", "checkpoint", "optimiser", "progress", "scores", "trace", "trained"]


def test_a_damaged_checkpoint_is_passed_over(tiny: Tiny, tmp_path: Path) -> None:
    """Whatever happened to whichever file: training goes on from the checkpoint before, to the same end."""
    recipe = dropping_recipe(tiny, evaluate_every_steps=3)
    run, other = tmp_path / "run", tmp_path / "other"
    whole = small_training(recipe)
    run_all(whole)
    interrupt(small_training(recipe.replace(seed=7), checkpoints=other), 2)
    interrupt(small_training(recipe, checkpoints=run), 2)
    assert checkpoints(run) == ["1", "2"]
    files = sorted((run / CHECKPOINTS / "2").iterdir())
    assert [path.stem for path in files] == FILES
    for path in files:
        content, half = path.read_bytes(), path.stat().st_size // 2
        foreign = (other / CHECKPOINTS / "2" / path.name).read_bytes()
        flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        for damaged in (content[:half], flipped, foreign, None):
            path.write_bytes(damaged) if damaged is not None else path.unlink()
            found, notes = load_checkpoint(run)
            assert found is not None
            assert (found.progress.step, len(notes)) == (3, 1), path.name
        path.write_bytes(content)
    assert load_checkpoint(run)[1] == []
    files[0].write_bytes(b"torn")
    resumed = small_training(recipe, checkpoints=run, resume=True)
    assert "2: this checkpoint is damaged and passed over" in resumed.saving.notes[0]
    assert "average.safetensors: is damaged" in resumed.saving.notes[0]
    run_all(resumed)
    assert same(state(resumed), state(whole))


def test_without_a_whole_checkpoint_training_starts_again(tiny: Tiny, tmp_path: Path) -> None:
    recipe = dropping_recipe(tiny)
    expected = losses(small_training(recipe))
    interrupt(small_training(recipe, checkpoints=tmp_path), 1)
    (tmp_path / CHECKPOINTS / "1" / "progress.json").write_text("{}")
    resumed = small_training(recipe, checkpoints=tmp_path, resume=True)
    assert len(resumed.saving.notes) == 1
    assert losses(resumed) == expected


def test_a_checkpoint_of_an_earlier_version_is_resumed(tiny: Tiny, tmp_path: Path) -> None:
    """RUN/checkpoint, without a seal."""
    recipe = dropping_recipe(tiny)
    interrupt(small_training(recipe, checkpoints=tmp_path), 1)
    (tmp_path / CHECKPOINTS / "1").rename(tmp_path / OLD)
    (tmp_path / OLD / "checkpoint.json").unlink()
    assert small_training(recipe, checkpoints=tmp_path, resume=True).progress.step == 4


# Written whole


def test_a_full_disk_leaves_the_checkpoint_before(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    training = small_training(dropping_recipe(tiny), checkpoints=tmp_path)
    interrupt(training, 1)
    write_bytes = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if self.name == "optimiser.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left on device"):
        interrupt(training, 1)
    assert checkpoints(tmp_path) == ["1"]
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINTS]
    monkeypatch.undo()
    interrupt(small_training(dropping_recipe(tiny), checkpoints=tmp_path, resume=True), 2)
    assert checkpoints(tmp_path) == ["2", "3"]  # the first one is gone
    found, notes = load_checkpoint(tmp_path)
    assert found is not None
    assert (found.progress.step, notes) == (12, [])


def test_dropping_removes_all_checkpoints(tiny: Tiny, tmp_path: Path) -> None:
    interrupt(small_training(dropping_recipe(tiny), checkpoints=tmp_path), 1)
    drop_checkpoints(tmp_path)
    assert list(tmp_path.iterdir()) == []
    drop_checkpoints(tmp_path)
    assert load_checkpoint(tmp_path) == (None, [])


# Within an epoch


@pytest.mark.parametrize(("sign", "after"), [(signal.SIGINT, 2), (signal.SIGTERM, 4)])
def test_a_signal_ends_training_with_a_checkpoint_of_the_last_step(
    tiny: Tiny, tmp_path: Path, sign: signal.Signals, after: int
) -> None:
    """Also between the last step of an epoch and its evaluation; and the program has its own handlers afterwards."""
    recipe = dropping_recipe(tiny)
    whole = small_training(recipe)
    run_all(whole)
    before, drawn = signal.getsignal(sign), torch.get_rng_state()
    stopped = small_training(recipe, checkpoints=tmp_path)
    with pytest.raises((KeyboardInterrupt, Terminated)), termination_raised():  # noqa: PT012
        for event in stopped.run():
            if event.step == after:
                signal.raise_signal(sign)
    assert stopped.progress.step == after
    assert signal.getsignal(sign) == before
    assert torch.get_rng_state().equal(drawn)
    resumed = small_training(recipe, checkpoints=tmp_path, resume=True)
    assert resumed.progress.step == after
    steps, evaluations = run_all(resumed)
    assert [step.step for step in steps] == list(range(after + 1, 13))
    assert len(evaluations) == 3
    assert same(state(resumed), state(whole))
    assert without_timings(resumed.progress.history) == without_timings(whole.progress.history)


def test_a_signal_in_an_evaluation_does_not_wait(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = dropping_recipe(tiny)
    whole = small_training(recipe)
    run_all(whole)
    with monkeypatch.context() as patch:
        patch.setattr(Execution, "predict", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            run_all(small_training(recipe, checkpoints=tmp_path))
    resumed = small_training(recipe, checkpoints=tmp_path, resume=True)
    assert (resumed.progress.step, resumed.progress.history) == (4, [])
    run_all(resumed)
    assert same(state(resumed), state(whole))
    assert without_timings(resumed.progress.history) == without_timings(whole.progress.history)


def test_checkpoints_come_by_the_clock(tiny: Tiny, tmp_path: Path) -> None:
    """And they change nothing: those of `checkpoint_minutes` are read, compared with a run that has none."""
    recipe = dropping_recipe(tiny)
    whole = small_training(recipe.replace(checkpoint_minutes=0))
    run_all(whole)
    often = recipe.replace(checkpoint_minutes=1e-9)
    for event in small_training(often, checkpoints=tmp_path).run():
        if event.step == 7:
            break  # the checkpoint of step 6 is the newest
    resumed = small_training(often, checkpoints=tmp_path, resume=True)
    assert resumed.progress.step == 6
    run_all(resumed)
    assert same(state(resumed), state(whole))
    assert resumed.trace.step_losses == whole.trace.step_losses


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / CHECKPOINTS).iterdir() if path.name.isdecimal())
