"""How far a training has come, what it has measured, and the checkpoints from which an interrupted one continues.

    RUN/checkpoints/
      7/  8/          the two newest checkpoints: safetensors, progress.json, and checkpoint.json with the hash of each
      rivals/  ...    what was computed before the first step, so that it is not computed twice

Nothing in them must be unpickled. The folder goes when the run is finished: as long as it is there, the run is not.

Letters: T optimiser steps, E evaluations, V validation texts, K classes.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from bertlora.errors import RunError, first_line
from bertlora.run.unfinished import CHECKPOINTS
from bertlora.sealed import facts_of, sealing

KEPT = 2
# Of runs that an earlier version began: one checkpoint, with no seal.
OLD = "checkpoint"


@dataclass
class Progress:
    """How far a run has come: everything that resuming needs, except tensors.

    Attributes:
        identity: fingerprint of the data.
        precision: `fp32`, `bf16`, `fp16` or `int8`; the result of `auto`, since a second measurement may give another.
        scaling: in fp16, the scale of the loss, and how many steps had no overflow since it changed.
        skipped_steps: steps in fp16 that changed nothing, because a gradient overflowed.
        step: optimiser steps done.
        micro_batch: most texts in a micro-batch; halved when memory runs out.
        best: score of the best evaluation, higher is better; None before the first.
        stale: evaluations since the best.
        examples, tokens, seconds: of training so far, without evaluation.
        history: the evaluations.
    """

    micro_batch: int
    identity: str = ""
    precision: str = "fp32"
    step: int = 0
    best: list[float] | None = None
    stale: int = 0
    examples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    scaling: list[float] = field(default_factory=lambda: [65536.0, 0.0])
    skipped_steps: int = 0


@dataclass
class Trace:
    """What a training has measured so far, step by step and text by text.

    The tests behind the advice need more than means.

    Attributes:
        step_losses: T training losses, one per optimiser step, in nats.
        row_losses: E arrays (V,): the loss of each validation text at each evaluation, in nats for classes.
        predicted: E arrays: what each evaluation predicts for each validation text, (V,) the class or the number, or
            (V, K) which labels.
    """

    step_losses: list[float] = field(default_factory=list)
    row_losses: list[npt.NDArray[np.float64]] = field(default_factory=list)
    predicted: list[npt.NDArray[Any]] = field(default_factory=list)

    def add(self, row_losses: npt.NDArray[np.float64], predicted: npt.NDArray[Any]) -> None:
        """Adds an evaluation: loss (V,) and prediction (V,) of each validation text."""
        self.row_losses.append(row_losses)
        self.predicted.append(predicted)

    def tensors(self) -> dict[str, Tensor]:
        """Returns the measurements as tensors, to save them."""
        return {
            "step_losses": torch.tensor(self.step_losses, dtype=torch.float64),
            "row_losses": torch.from_numpy(np.array(self.row_losses, dtype=np.float64)),
            "predicted": torch.from_numpy(np.array(self.predicted)),
        }

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Trace":
        """Returns the measurements that `tensors` gave."""
        losses, predicted = (list(tensors[name].numpy()) for name in ("row_losses", "predicted"))
        return cls(tensors["step_losses"].tolist(), losses, predicted)


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run at one step.

    Attributes:
        progress: its progress.
        trained: the trained tensors.
        average: their average over the last steps.
        best: the trained tensors of the best evaluation; empty before the first.
        scores: (V, K) the logits of the validation texts at the best evaluation.
        trace: the measurements so far.
        moments: of the optimiser, by the number of the parameter and the name: `3.exp_avg`.
        random: states of torch's random generators: `cpu`, and `cuda` if there is a GPU.
    """

    progress: Progress
    trained: dict[str, Tensor]
    average: dict[str, Tensor]
    best: dict[str, Tensor]
    scores: Tensor
    trace: Trace
    moments: dict[str, Tensor]
    random: dict[str, Tensor]

    def check(self, run: Path, identity: str, trained: dict[str, Tensor]) -> None:
        """Raises RunError if the checkpoint is of other data, or of another model or adapter than `trained`."""
        if self.progress.identity != identity:
            raise RunError(f"{run}: was begun on other data; name the same data, or give --overwrite to start again")
        if {n: t.shape for n, t in self.trained.items()} != {n: t.shape for n, t in trained.items()}:
            raise RunError(f"{run}: was begun with another model or adapter; give --overwrite to start again")

    def restore(self, optimiser: torch.optim.Optimizer) -> None:
        """Brings the optimiser's moments and torch's random states back."""
        torch.set_rng_state(self.random["cpu"])
        if "cuda" in self.random and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.random["cuda"])
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in self.moments.items():
            index, _, key = name.partition(".")
            entries.setdefault(int(index), {})[key] = value
        optimiser.load_state_dict(optimiser.state_dict() | {"state": entries})


def moments_of(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Returns the optimiser's moments as `Checkpoint` has them."""
    state = optimiser.state_dict()["state"]
    return {f"{i}.{k}": torch.as_tensor(v).cpu() for i, entry in state.items() for k, v in entry.items()}


def random_states() -> dict[str, Tensor]:
    """Returns the states of torch's random generators as `Checkpoint` has them."""
    on_gpu = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    return {"cpu": torch.get_rng_state()} | on_gpu


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Writes a new checkpoint, whole or not at all, and removes all but the two newest.

    Raises:
        OutputError: it cannot be written; the checkpoints before stay.
    """
    c = checkpoint
    random = {f"random.{name}": state for name, state in c.random.items()}
    tables = {"trained": c.trained, "average": c.average, "best": c.best, "scores": {"best": c.scores}}
    tables |= {"trace": c.trace.tensors(), "optimiser": c.moments | random}
    there = _numbers(run)
    with sealing(run / CHECKPOINTS / str(max(there, default=0) + 1)) as partial:
        for name, tensors in tables.items():
            # save_file would report a full disk by an error type of its own.
            (partial / f"{name}.safetensors").write_bytes(save(tensors))
        (partial / "progress.json").write_text(json.dumps(asdict(c.progress)))
    for number in there[KEPT - 1 :]:
        shutil.rmtree(run / CHECKPOINTS / str(number), ignore_errors=True)


def load_checkpoint(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """Returns the newest whole checkpoint, and a note on each newer one that is damaged; None if there is none."""
    notes: list[str] = []
    for folder in _newest_first(run):
        try:
            return _read(folder), notes
        except Exception as error:  # a damaged file fails in many ways; all mean the same here
            notes.append(f"{folder}: this checkpoint is damaged and passed over ({first_line(error)})")
    return None, notes


def drop_checkpoints(run: Path) -> None:
    """Removes the checkpoints of a finished run, and what was kept with them."""
    shutil.rmtree(run / OLD, ignore_errors=True)
    shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)


def _read(folder: Path) -> Checkpoint:
    if folder.name != OLD:
        facts_of(folder)
    progress = Progress(**json.loads((folder / "progress.json").read_text()))
    names = ("trained", "average", "best", "scores", "trace", "optimiser")
    trained, average, best, scores, trace, state = (load_file(folder / f"{name}.safetensors") for name in names)
    random = {name: state.pop(f"random.{name}") for name in ("cpu", "cuda") if f"random.{name}" in state}
    return Checkpoint(progress, trained, average, best, scores["best"], Trace.of(trace), state, random)


def _newest_first(run: Path) -> Iterator[Path]:
    """Yields the folders of checkpoints, damaged or not."""
    for number in _numbers(run):
        yield run / CHECKPOINTS / str(number)
    if (run / OLD / "progress.json").is_file():
        yield run / OLD


def _numbers(run: Path) -> list[int]:
    """Returns the numbers of the checkpoints, the newest first."""
    return sorted((int(path.name) for path in (run / CHECKPOINTS).glob("*") if path.name.isdecimal()), reverse=True)
