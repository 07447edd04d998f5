"""What runs on the thread that computes: parts of a batch, together where models share a base, otherwise one by one."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

from bertlora.confidence.probabilities import Array
from bertlora.data.inputs import Inputs
from bertlora.model.adapted import Adapted

LOG = logging.getLogger("bertlora.serving")
# Models without a shared base that stay ready between batches: their weights are merged and laid out.
READY = 4
Part = tuple[Any, Inputs]


@dataclass(frozen=True, eq=False)
class Alone:
    """A model that shares no batch with others: an export, or an adapter that cannot be mixed.

    Attributes:
        model: has `ready` and `logits`.
        precision: in which it runs.
    """

    model: Any
    precision: str

    def logits(self, inputs: Inputs) -> Array:
        """Returns logits, (B, K)."""
        found: Array = self.model.logits(inputs, precision=self.precision)
        return found


@dataclass(frozen=True, eq=False)
class BaseOf:
    """The base of an adapter, with its untrained head."""

    model: Adapted

    def logits(self, inputs: Inputs) -> Array:
        """Returns logits, (B, K)."""
        return self.model.logits(inputs, base=True)


class Computing:
    """Computes parts. It is entered, used and left on one thread, since a model that is ready belongs to its thread."""

    def __init__(self) -> None:
        self._ready: OrderedDict[int, ExitStack] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._rest()

    def logits(self, parts: Sequence[Part]) -> list[Array | Exception]:
        """Returns for each part, a model and its texts, the logits (B, K), or why there are none."""
        found: list[Array | Exception] = [ValueError()] * len(parts)
        groups: dict[int, list[int]] = {}
        for i, (model, _) in enumerate(parts):
            shared = getattr(model, "shared", None)
            groups.setdefault(id(shared or model), []).append(i)
        for places in groups.values():
            for i, result in zip(places, self._together([parts[i] for i in places]), strict=True):
                found[i] = result
        return found

    def job(self, job: Callable[[], Any]) -> Any:
        """Returns what a job returns. It may use any model: none is held ready meanwhile."""
        self._rest()
        return job()

    def _together(self, parts: Sequence[Part]) -> Sequence[Array | Exception]:
        """Returns the logits of parts whose models share a base; if that fails, of one part after the other."""
        try:
            shared = getattr(parts[0][0], "shared", None)
            if shared is not None:
                found: list[Array] = shared.logits(parts)
                return found
            return [self._alone(*part) for part in parts]
        except Exception as error:
            if len(parts) == 1:
                LOG.error("a part of a batch failed: %s", where(error))
                return [error]
            return [result for part in parts for result in self._together([part])]

    def _alone(self, model: Any, inputs: Inputs) -> Array:
        if isinstance(model, Alone):
            self._make_ready(model)
        elif isinstance(model, BaseOf):
            self._rest()
        found: Array = model.logits(inputs)
        return found

    def _make_ready(self, alone: Alone) -> None:
        key = id(alone.model)
        if key in self._ready:
            self._ready.move_to_end(key)
            return
        with ExitStack() as stack:
            stack.enter_context(alone.model.ready(alone.precision))
            self._ready[key] = stack.pop_all()
        if len(self._ready) > READY:
            self._ready.popitem(last=False)[1].close()

    def _rest(self) -> None:
        while self._ready:
            self._ready.popitem()[1].close()


def where(error: BaseException) -> str:
    """Returns the type of an error and the lines of code that it passed. Its message stays out: it may quote a text."""
    import traceback

    steps = [f"{step.filename}:{step.lineno}" for step in traceback.extract_tb(error.__traceback__)]
    return " ".join([type(error).__name__, "at", *steps[-4:]])
