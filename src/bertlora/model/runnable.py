"""Runnable: a classifier with the reader of its texts. It predicts, by one thread at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any

from bertlora.confidence.probabilities import Array
from bertlora.data.inputs import Inputs
from bertlora.data.reader import Reader
from bertlora.model.engine import BATCH_SIZE, Execution, executing, unwrapped
from bertlora.model.machine import choose_precision
from bertlora.task import task_of_problem


@dataclass
class Runnable:
    """A transformers classifier, with or without an adapter, and the reader of its texts.

    Threads may share it: while one runs the model, the others wait.

    Attributes:
        model: transformers' sequence classifier, or PEFT's model around it.
        reader: turns texts into inputs.
        labels: names in the order of the logits; the name of the number in a regression.
    """

    model: Any
    reader: Reader
    labels: list[str]
    _held: tuple[int, str, Execution] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def architecture(self) -> str:
        """transformers' model type: `bert`, `distilbert`, ..."""
        return str(unwrapped(self.model).config.model_type)

    @property
    def task(self) -> str:
        """What it predicts: `classification`, `multilabel` or `regression`."""
        return task_of_problem(unwrapped(self.model).config.problem_type).name

    def choose_precision(self, wanted: str) -> str:
        """Returns `fp32` or `bf16` for `fp32`, `bf16` or `auto`; see `machine.choose_precision`."""
        return choose_precision(wanted, self.architecture)

    @contextmanager
    def execution(self, precision: str = "fp32", **how: Any) -> Iterator[Execution]:
        """Inside, the model is ready to run, and other threads wait.

        Args:
            precision: `fp32`, `bf16` or `auto`.
            how: `tokens`, `training`, `pack`, `base` and `head`, as `executing` takes them.

        Raises:
            InUseError: this thread uses the model already.
        """
        with executing(self.model, self.reader.pad_id, self.choose_precision(precision), **how) as execution:
            yield execution

    @contextmanager
    def ready(self, precision: str = "fp32") -> Iterator[None]:
        """Inside, predictions of this thread start at once: the weights stay merged and cast between calls.

        Args:
            precision: `fp32`, `bf16` or `auto`. Inside, `logits` must be asked for the same.

        Raises:
            InUseError: this thread uses the model already.
        """
        precision = self.choose_precision(precision)
        with self.execution(precision) as execution:
            self._held = get_ident(), precision, execution
            try:
                yield
            finally:
                self._held = None

    def logits(self, inputs: Inputs, *, precision: str = "fp32", batch_size: int = BATCH_SIZE) -> Array:
        """Returns logits, (B, K) float64.

        Raises:
            InUseError: this thread holds the model ready in another precision, or trains it.
        """
        precision = self.choose_precision(precision)
        if self._held is not None and self._held[:2] == (get_ident(), precision):
            return self._held[2].predict(inputs, batch_size)
        with self.execution(precision, tokens=int(inputs.lengths.sum())) as execution:
            return execution.predict(inputs, batch_size)
