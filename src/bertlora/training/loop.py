"""The training loop. It yields steps and evaluations; progress bars, logs and trackers are plain code around it."""

import contextlib
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bertlora.confidence.learned import Learned
from bertlora.confidence.probabilities import Array
from bertlora.data.reader import Examples
from bertlora.errors import HealthError
from bertlora.model.adapted import Adapted
from bertlora.model.draws import Draws
from bertlora.model.engine import Execution, row_tokens, served
from bertlora.model.machine import give_back_memory, out_of_memory, peak_rss_mib
from bertlora.model.state import load_trained_state, trained_state
from bertlora.recipe import Recipe
from bertlora.training.accelerator import agreed, new_accelerator, share_trained
from bertlora.training.ahead import Ahead
from bertlora.training.checkpoints import Progress, Trace
from bertlora.training.events import Evaluation, Step
from bertlora.training.failed_batch import FailedBatchError, check_logits, failed_batch
from bertlora.training.health import check_base, check_moved
from bertlora.training.objective import Measured, objective_of
from bertlora.training.optimiser import Average, build_optimiser, descend, micro_batch, rate_factor, step_rows
from bertlora.training.saving import Saving

OUT_OF_MEMORY = "memory ran out with a single text; lower max_length, or use a smaller model"


class Training:
    """One training. The main process may still change the model before `run`, which starts from the model's state then.

    Args:
        adapted: the model; it is trained in place, and has its best adapter at the end.
        recipe: the recipe.
        train: texts to learn from.
        validation: texts to evaluate on; if there are none, the last adapter is kept.
        checkpoints: the run folder. Checkpoints are written there: at each evaluation, every `checkpoint_minutes`, and
            when a signal ends the training. None writes none.
        resume: start from the newest whole checkpoint there, if there is one.
        identity: fingerprint of the data; a checkpoint of other data is refused.

    Attributes:
        best: the trained tensors of the best evaluation so far, averaged if the recipe says so.
        best_logits: (V, K) the logits of that evaluation for the V validation texts; see `learned`.
        objective: what is minimised and measured.
        trace: the loss of each step, and what each evaluation predicts.
        saving: its checkpoints.
    """

    def __init__(
        self,
        adapted: Adapted,
        recipe: Recipe,
        train: Examples,
        validation: Examples,
        checkpoints: Path | None = None,
        resume: bool = False,
        identity: str = "",
    ) -> None:
        self.train, self.validation, self.checkpoints = train, validation, checkpoints
        self.saving = Saving(self, checkpoints)
        self.accelerator = new_accelerator()
        self.objective = objective_of(adapted, recipe, train, self.accelerator.device)
        self.recipe = recipe = self.objective.recipe
        # Packed rows have no dropout inside attention.
        self.pack = not recipe.encoder_dropout
        # Each process may measure another speed; the main process's choice counts.
        self.precision = agreed(adapted.training_precision(recipe.precision, train.inputs, self.pack))
        self.lengths = train.inputs.lengths
        self.adapted, self.plain = adapted, adapted.model
        check_base(self.plain, recipe.model)
        self.optimiser = build_optimiser(self.plain, recipe)
        self.model = self.accelerator.prepare(self.plain)
        self.steps_per_epoch = recipe.steps_per_epoch(len(train))
        self.steps = recipe.steps(len(train))
        texts, self.row_tokens = micro_batch(
            recipe, train.inputs, self.pack and served(self.plain), self.accelerator.device
        )
        self.progress = Progress(texts, identity, self.precision)
        self.trace = Trace()
        self.average = Average(self.plain, recipe, self.steps)
        self.execution: Execution
        self.ahead: Ahead | None = None
        self.start: dict[str, Tensor] = {}
        self.best: dict[str, Tensor] = {}
        self.best_logits: Array = np.zeros((0, len(adapted.labels)))
        # Each process drops other numbers of its own texts.
        self.draws = Draws(recipe.seed, self.accelerator.device, self.accelerator.process_index)
        if resume:
            self.saving.resume()

    def run(self) -> Generator[Step | Evaluation, None, None]:
        """Trains, and yields each step and each evaluation. At the end the model holds its best adapter.

        Raises:
            HealthError: training cannot succeed; the message names the cause.
        """
        give_back_memory(at_once=True)
        share_trained(self.plain)
        self.start = self.start or trained_state(self.plain)
        with self.adapted.execution(self.precision, training=True, pack=self.pack) as self.execution:
            self._keep_prefixes()
            self.ahead = self._ahead()
            self.model.train()
            with self.saving.begun():
                yield from self._steps()
        give_back_memory(at_once=True)
        load_trained_state(self.plain, self.best)
        self.objective.finish(self.plain)
        self.plain.eval()

    def _ahead(self) -> Ahead | None:
        """Returns what takes the steps on a GPU; None on a CPU."""
        device, p = self.accelerator.device, self.progress
        if device.type != "cuda":
            return None
        return Ahead(self.optimiser, self.recipe, self.steps, device, p.scaling if self.precision == "fp16" else None)

    def _steps(self) -> Generator[Step | Evaluation, None, None]:
        """Yields the steps and evaluations that are left. Only where it yields may a signal end the training."""
        if self._evaluation_lacks():
            yield self._evaluate()
        for rows in step_rows(self.recipe, len(self.train), self.progress.step):
            self.saving.obey()
            if self._patience_spent():
                break
            # The main process continues its stream; the others begin one at each step, which needs no saved state.
            self.draws.restart(self.progress.step)
            with self.draws.used():
                step = self._step(rows.tolist())
            yield step
            self.saving.obey()
            if self._evaluation_due():
                yield self._evaluate()
            elif self.saving.due():
                self.saving.save()
        self.saving.obey()

    def _keep_prefixes(self) -> None:
        """Runs the frozen layers once, if texts are read more than once; the time counts as training."""
        began = time.perf_counter()
        tokens = row_tokens(self.accelerator.device)
        if self.steps > self.steps_per_epoch:
            for name, inputs in {"train": self.train.inputs, "validation": self.validation.inputs}.items():
                self.execution.keep_prefix(inputs, tokens, self.checkpoints, self.saving.kept(f"prefix-{name}"))
        self.progress.seconds += time.perf_counter() - began

    def learned(self) -> Learned:
        """Returns what follows from the kept adapter's outputs for the validation texts: temperature or spread."""
        return self.objective.learned(self.best_logits, self.validation.labels)

    def summary(self) -> dict[str, Any]:
        """Returns the figures of the training loop, without evaluation."""
        p = self.progress
        return {
            "examples": p.examples,
            "tokens": p.tokens,
            "seconds": round(p.seconds, 3),
            "examples_per_s": round(p.examples / max(p.seconds, 1e-9), 2),
            "tokens_per_s": round(p.tokens / max(p.seconds, 1e-9), 1),
            "peak_rss_mib": peak_rss_mib(),
            "loss": p.history[-1]["train_loss"] if p.history else None,
            "steps": p.step,
            "precision": self.precision,
        } | ({"skipped_steps": p.skipped_steps} if self.precision == "fp16" else {})

    def _step(self, rows: list[int]) -> Step:
        """Takes one optimiser step over `rows`, in micro-batches that fit into memory."""
        began, p = time.perf_counter(), self.progress
        while True:
            try:
                total = self._gradients(rows)
                break
            except (RuntimeError, MemoryError) as error:
                self.optimiser.zero_grad(set_to_none=True)
                if not out_of_memory(error):
                    raise
                if p.micro_batch == 1:
                    raise HealthError(OUT_OF_MEMORY) from error
                p.micro_batch //= 2
        if self.ahead is not None:
            self.ahead.descend(p.step, total, rows)
        else:
            with self._failures(rows):
                self.trace.step_losses.append(descend(self.optimiser, self.recipe, p.step, self.steps, total))
        self.average.add()
        p.step += 1
        p.examples += len(rows)
        p.tokens += int(self.lengths[rows].sum())
        self._read(1 if self.trace.step_losses else 0)
        give_back_memory()
        p.seconds += time.perf_counter() - began
        return Step(p.step, self.steps, self.trace.step_losses[-1], p.examples / p.seconds)

    def settle(self) -> None:
        """Waits for the steps that a GPU still runs, and reads their losses; the time counts as training."""
        began = time.perf_counter()
        self._read(0)
        self.progress.seconds += time.perf_counter() - began

    def _read(self, left: int) -> None:
        """Reads the losses of steps on a GPU, except the last `left`."""
        while self.ahead is not None and len(self.ahead.open) > left:
            taken = self.ahead.open.popleft()
            with self._failures(taken.rows):
                loss, moved = taken.read()
            self.trace.step_losses.append(loss)
            self.progress.skipped_steps += not moved
            self.progress.scaling = taken.scaling or self.progress.scaling

    @contextlib.contextmanager
    def _failures(self, rows: list[int]) -> Iterator[None]:
        """Inside, a HealthError gets the rows of the step."""
        try:
            yield
        except HealthError as error:
            batch = failed_batch(self.execution, self.objective, self.train, rows, self.progress.micro_batch)
            raise FailedBatchError(error.args[0], batch) from error

    def _gradients(self, rows: list[int]) -> Tensor:
        """Adds up the gradients of the weighted mean of the losses of `rows`, and returns that mean."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        whole = self.objective.weight(self.train.labels[rows], self.train.weights_of(rows))
        mine = rows[rank::world]
        # Texts of similar length form a batch: less padding, and the same mean over the step.
        groups = self.execution.batches(self.lengths[mine], self.progress.micro_batch, self.row_tokens)
        parts = [[mine[i] for i in group] for group in groups]
        # A process without rows still takes part in the exchange of gradients, with weight 0.
        total = torch.zeros((), device=self.accelerator.device)
        scale = None if self.ahead is None else self.ahead.scale
        for number, part in enumerate(parts or [rows[:1]]):
            last = number + 1 >= len(parts)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.model):
                loss = self._summed_loss(part) / whole * (1.0 if parts else 0.0)
                # Gradients are averaged over processes; the loss is a sum over them.
                (loss * world if scale is None else loss * world * scale).backward()
            total += loss.detach()
        summed: Tensor = self.accelerator.reduce(total, "sum")
        return summed

    def _summed_loss(self, rows: list[int]) -> Tensor:
        """Returns the summed loss of `rows`."""
        scores = self.execution.logits(self.train.inputs, rows, self.model)
        return self.objective.sum(scores, self.train.labels[rows], self.train.weights_of(rows))

    def _evaluation_due(self) -> bool:
        every, p = self.recipe.evaluate_every_steps, self.progress
        return p.step == self.steps or p.step % (every or self.steps_per_epoch) == 0

    def _evaluation_lacks(self) -> bool:
        """Returns whether a resumed training stopped between a step and its evaluation."""
        p = self.progress
        return p.step > 0 and self._evaluation_due() and (not p.history or p.history[-1]["step"] < p.step)

    def _evaluate(self) -> Evaluation:
        """Evaluates the adapter on the validation texts, keeps it if it is the best so far, and writes a checkpoint."""
        self.settle()
        p = self.progress
        state, averaged = trained_state(self.plain), self.average.state()
        rate = self.recipe.learning_rate * rate_factor(self.recipe, p.step - 1, self.steps)
        if rate:  # it is 0 in the first step of a warm-up
            check_moved(self.start, state, p.step)
        scores, warning, found = self.best_logits, "", None
        if len(self.validation):
            given = self.validation.labels
            give_back_memory(at_once=True)
            # Signals wait while the weights change places.
            whole, at_once = self.saving.if_ended(), self.saving.stops.at_once()
            with whole, self.draws.used(), self.average.shown(), at_once:
                scores = self.execution.predict(self.validation.inputs, self.recipe.evaluation_batch_size)
            check_logits(scores, self.validation, p.step)
            found = self.objective.measured(scores, given)
            self.trace.add(found.row_losses, found.predicted)
            warning = self.objective.warning(found, given, p.step)
        gained = self._gained(found)
        p.stale = 0 if gained else p.stale + 1
        if gained:
            self.best, self.best_logits = averaged, scores
        evaluated = p.history[-1]["step"] if p.history else 0
        done = Evaluation(
            epoch=round(p.step / self.steps_per_epoch, 4),
            step=p.step,
            train_loss=float(np.mean(self.trace.step_losses[evaluated:])),
            validation_loss=None if found is None else found.loss,
            figures=dict.fromkeys(self.objective.figures) if found is None else found.figures,
            learning_rate=rate,
            examples_per_s=round(p.examples / p.seconds, 2),
            seconds=round(p.seconds, 3),
            best=gained,
            warning=warning,
        )
        p.history.append(done.line())
        self.saving.save()
        self.model.train()
        return done

    def _gained(self, found: Measured | None) -> bool:
        """Returns whether this evaluation is the best so far by `best_metric`. At a tie the loss decides."""
        if found is None:
            return True
        gained = self.progress.best is None or found.score > self.progress.best
        if gained:
            self.progress.best = found.score
        return gained

    def _patience_spent(self) -> bool:
        patience = self.recipe.early_stopping_patience
        return bool(patience) and self.progress.stale >= patience
