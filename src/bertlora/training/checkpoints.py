"""How far a training has come, what it has measured, and the checkpoints from which an interrupted one continues.

Checkpoints are safetensors and JSON, nothing that must be unpickled.

Letters: T optimiser steps, E evaluations, V validation texts, K classes.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from bertlora.errors import RunError
from bertlora.files import whole_folder

FOLDER = "checkpoint"


@dataclass
class Progress:
    """How far a run has come: everything that resuming needs, except tensors.

    Attributes:
        identity: fingerprint of the data.
        precision: `fp32` or `bf16`; the result of `auto`, since a second measurement may give another.
        step: optimiser steps done.
        micro_batch: texts per micro-batch; halved when memory runs out.
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
    """The state of a run at one step, without the optimiser's and the random state.

    Attributes:
        progress: its progress.
        trained: the trained tensors.
        average: their average over the last steps.
        best: the trained tensors of the best evaluation.
        scores: (V, K) the logits of the validation texts at the best evaluation.
        trace: the measurements so far.
    """

    progress: Progress
    trained: dict[str, Tensor]
    average: dict[str, Tensor]
    best: dict[str, Tensor]
    scores: Tensor
    trace: Trace

    def check(self, run: Path, identity: str, trained: dict[str, Tensor]) -> None:
        """Raises RunError if the checkpoint is of other data, or of another model or adapter than `trained`."""
        if self.progress.identity != identity:
            raise RunError(f"{run}: was begun on other data; name the same data, or give --overwrite to start again")
        if {n: t.shape for n, t in self.trained.items()} != {n: t.shape for n, t in trained.items()}:
            raise RunError(f"{run}: was begun with another model or adapter; give --overwrite to start again")


def save_checkpoint(run: Path, checkpoint: Checkpoint, optimiser: torch.optim.Optimizer) -> None:
    """Writes RUN/checkpoint as a whole: an interruption leaves the previous one.

    Raises:
        OutputError: it cannot be written.
    """
    state = optimiser.state_dict()["state"]
    moments = {f"{i}.{k}": torch.as_tensor(v).cpu() for i, entry in state.items() for k, v in entry.items()}
    random = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["random.cuda"] = torch.cuda.get_rng_state()
    c = checkpoint
    tables = {"trained": c.trained, "average": c.average, "best": c.best, "scores": {"best": c.scores}}
    tables["trace"] = c.trace.tensors()
    with whole_folder(run / FOLDER, overwrite=True) as partial:
        for name, tensors in (tables | {"optimiser": moments | random}).items():
            # save_file would report a full disk by an error type of its own.
            (partial / f"{name}.safetensors").write_bytes(save(tensors))
        (partial / "progress.json").write_text(json.dumps(asdict(c.progress)))


def load_checkpoint(run: Path, optimiser: torch.optim.Optimizer) -> Checkpoint | None:
    """Returns the checkpoint, and restores optimiser and random state; None if there is no checkpoint.

    Raises:
        RunError: the checkpoint cannot be read, or belongs to another model.
    """
    folder = run / FOLDER
    if not (folder / "progress.json").is_file():
        return None
    try:
        progress = Progress(**json.loads((folder / "progress.json").read_text()))
        trained, average, best = (load_file(folder / f"{name}.safetensors") for name in ("trained", "average", "best"))
        scores = load_file(folder / "scores.safetensors")["best"]
        trace = Trace.of(load_file(folder / "trace.safetensors"))
        moments = load_file(folder / "optimiser.safetensors")
        torch.set_rng_state(moments.pop("random.cpu"))
        on_gpu = moments.pop("random.cuda", None)
        if on_gpu is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(on_gpu)
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in moments.items():
            index, _, key = name.partition(".")
            entries.setdefault(int(index), {})[key] = value
        optimiser.load_state_dict(optimiser.state_dict() | {"state": entries})
    except Exception as error:  # a damaged file fails in many ways; all mean the same here
        raise RunError(f"{folder}: cannot be resumed from ({error}); give --overwrite to start again") from error
    return Checkpoint(progress, trained, average, best, scores, trace)


def drop_checkpoint(run: Path) -> None:
    """Removes the checkpoint of a finished run."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)
