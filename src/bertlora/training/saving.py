"""When a training saves checkpoints, what it keeps for a resume, and how a signal ends it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bertlora.model.state import load_trained_state, trained_state
from bertlora.recipe import MAY_CHANGE
from bertlora.run.unfinished import CHECKPOINTS
from bertlora.sealed import Kept
from bertlora.training.checkpoints import Checkpoint, load_checkpoint, moments_of, random_states, save_checkpoint
from bertlora.training.stops import Stops

if TYPE_CHECKING:
    from bertlora.training.loop import Training


class Saving:
    """The checkpoints of a training. Only the main process writes, and only at points from which training can go on.

    Args:
        training: the training.
        run: the run folder; None writes nothing.

    Attributes:
        stops: the signals that wait for such a point.
        notes: which checkpoints were damaged, when the training was resumed.
    """

    def __init__(self, training: "Training", run: Path | None) -> None:
        self._training, self._run = training, run
        self.stops = Stops()
        self.notes: list[str] = []
        self._at = time.monotonic()
        self._state = (0, 0)

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Inside, the training takes its steps: signals wait for `obey`."""
        self._at = time.monotonic()
        with self.stops:
            yield

    def due(self) -> bool:
        """Returns whether `checkpoint_minutes` have passed since the last checkpoint."""
        minutes = self._training.recipe.checkpoint_minutes
        return minutes > 0 and time.monotonic() - self._at >= 60 * minutes

    def obey(self) -> None:
        """Ends the training if a signal asked for it, with a checkpoint."""
        if self.stops.asked:
            self.save()
            self.stops.obey()

    @contextmanager
    def if_ended(self) -> Iterator[None]:
        """Writes a checkpoint if a signal ends the training inside. The block must leave the state as it was."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            self.save()
            raise

    def save(self) -> None:
        """Writes a checkpoint, unless the last one has the same state."""
        t = self._training
        state = t.progress.step, len(t.progress.history)
        if self._run is None or not t.accelerator.is_main_process or state == self._state:
            return
        t.settle()
        with t.draws.used():
            random = random_states()
        tensors = trained_state(t.plain), t.average.state(), t.best, torch.from_numpy(t.best_logits)
        save_checkpoint(self._run, Checkpoint(t.progress, *tensors, t.trace, moments_of(t.optimiser), random))
        self._at, self._state = time.monotonic(), state

    def resume(self) -> None:
        """Brings the training to the newest whole checkpoint, if there is one.

        Raises:
            RunError: it is of other data, or of another model or adapter.
        """
        if self._run is None:
            return
        t = self._training
        found, self.notes = load_checkpoint(self._run)
        if found is None:
            return
        t.start = trained_state(t.plain)
        found.check(self._run, t.progress.identity, t.start)
        with t.draws.used():
            found.restore(t.optimiser)
        t.progress, t.best, t.trace = found.progress, found.best, found.trace
        t.best_logits, t.precision = found.scores.numpy(), found.progress.precision
        self._state = t.progress.step, len(t.progress.history)
        load_trained_state(t.plain, found.trained)
        t.average.resume(found.average, t.progress.step)
        t.objective.resume([evaluation["warning"] for evaluation in t.progress.history])

    def kept(self, name: str) -> Kept | None:
        """Returns where a result is kept for a training that resumes, and what it must belong to.

        None without a run folder, and in all processes but the main one.
        """
        t = self._training
        if self._run is None or not t.accelerator.is_main_process:
            return None
        options = {key: value for key, value in vars(t.recipe).items() if key not in MAY_CHANGE}
        facts = [t.progress.identity, t.adapted.base.sha256(), t.precision, options]
        return Kept(self._run / CHECKPOINTS / name, {"belongs": facts})
