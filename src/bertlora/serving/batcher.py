"""From questions to batches: continuous batching on one thread that computes.

A batch is formed when the thread is free, of what waits by then. It has as many tokens as the model reads in `batch_s`
seconds, so a text that comes meanwhile waits about that long for the next one.
"""

import logging
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from threading import Condition, Thread
from typing import Any, Protocol

from bertlora.confidence.probabilities import Array
from bertlora.data.inputs import Inputs
from bertlora.model.machine import limit_threads
from bertlora.serving.computing import where
from bertlora.serving.fair import FairQueue, Portion
from bertlora.serving.pace import Pace
from bertlora.serving.refused import RequestError, Why
from bertlora.serving.texts import Text, parts_of, portions

LOG = logging.getLogger("bertlora.serving")


@dataclass(frozen=True)
class Batch:
    """A batch that was computed, for metrics.

    Attributes:
        texts: how many.
        tokens: that the model read.
        lanes: how many adapters.
        seconds: of computing.
    """

    texts: int
    tokens: int
    lanes: int
    seconds: float


class Backend(AbstractContextManager["Backend"], Protocol):
    """What computes. It is entered, used and left on the thread that computes."""

    def logits(self, parts: Sequence[tuple[Any, Inputs]]) -> list[Array | Exception]:
        """Returns for each part, a model and its texts, the logits (B, K), or why there are none."""
        ...

    def job(self, job: Callable[[], Any]) -> Any:
        """Returns what a job returns. Jobs may use models that `logits` keeps ready."""
        ...


@dataclass(eq=False)
class _Request:
    """Texts that are answered together."""

    texts: Sequence[Text]
    left: int
    future: "Future[Any]" = field(default_factory=Future)


class Batcher:
    """Computes texts in batches. Its methods are safe for threads.

    Args:
        backend: makes what computes; once for each thread that computes.
        batch_s: how long a batch should take, in seconds.
        seen: is called after each batch, on the thread that computes.

    Attributes:
        deaths: how often the thread that computes died, and another one took its place.
    """

    def __init__(
        self, backend: Callable[[], Backend], batch_s: float = 0.4, seen: Callable[[Batch], None] = lambda batch: None
    ) -> None:
        self._backend, self._pace, self._seen = backend, Pace(batch_s), seen
        self._queue, self._changed = FairQueue(), Condition()
        self._ended, self.deaths = False, 0
        self._thread: Thread | None = None

    @property
    def speed(self) -> float:
        """Tokens/s of the last batches."""
        return self._pace.speed

    @property
    def waiting(self) -> tuple[int, int]:
        """Texts and tokens that wait for a batch."""
        return self._queue.texts, self._queue.tokens

    def submit(self, texts: Sequence[Text]) -> "Future[Sequence[Text]]":
        """Takes texts. The future gives the same ones, answered; cancelling it removes those that still wait.

        Its errors are RequestErrors with `Why.BACKEND`; `Why.NOT_READY` if the batcher has ended.
        """
        return self.submit_with(texts, ())[0]

    def submit_with(
        self, texts: Sequence[Text], riders: Sequence[Text]
    ) -> "tuple[Future[Sequence[Text]], Future[Sequence[Text]]]":
        """Takes texts, and others that come into the same batch if it has room. Returns a future for each."""
        cuts = portions(texts), portions(riders)
        requests = _Request(texts, len(cuts[0])), _Request(riders, len(cuts[1]))
        self._submit(*zip(requests, cuts, strict=True))
        return requests[0].future, requests[1].future

    @property
    def room(self) -> float:
        """Tokens that the next batch has room for, next to all that waits; below 0 if more waits than it takes."""
        return self._pace.budget - self.waiting[1]

    def run(self, lane: str, tokens: int, job: Generator[int, None, Any]) -> "Future[Any]":
        """Runs a job on the thread that computes. Between its steps others take their turns.

        The future gives what the job returns, or its own error; cancelling it ends the job after the step that runs.

        Args:
            lane: the adapter's name.
            tokens: about how many the model reads in the first step.
            job: yields about how many tokens the model reads in the next step.
        """
        request = _Request((), 1)
        self._submit((request, [Portion(lane, None, tokens, job=job)]))
        return request.future

    def end(self) -> None:
        """Answers what was taken, then ends the thread."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        while (thread := self._thread) is not None:
            thread.join()

    def _submit(self, *requests: tuple[_Request, Sequence[Portion]]) -> None:
        for request, cut in requests:
            if not cut:
                request.future.set_result(request.texts)
            for portion in cut:
                portion.owner = request
        with self._changed:
            if self._ended:
                raise RequestError(Why.NOT_READY, "the server ends; ask another one")
            for _, cut in requests:
                self._queue.add(cut)
            if self._thread is None:
                self._start()
            self._changed.notify_all()
        for request, _ in requests:
            request.future.add_done_callback(partial(self._forget_cancelled, request))

    def _forget_cancelled(self, request: _Request, future: "Future[Any]") -> None:
        if future.cancelled():
            self._forget(request)

    def _forget(self, request: _Request) -> None:
        with self._changed:
            self._queue.remove(request)

    # On the thread that computes

    def _start(self) -> None:
        self._thread = Thread(target=self._work, name="bertlora-compute", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        """Computes batches until the end. If the thread dies, another one goes on."""
        batch: list[Portion] = []
        limit_threads()
        try:
            with self._backend() as backend:
                while batch := self._next():
                    self._compute(backend, batch)
                    batch = []
        except BaseException as error:  # whatever it was, what waits must be answered
            LOG.critical("the thread that computes died of %s; another one goes on", where(error))
            self.deaths += 1
            # With no batch in hand the fault is not a batch's: the next thread would meet it again.
            self._fail(batch or self._taken(), error)
        with self._changed:
            self._thread = None
            if self._queue.texts:
                self._start()

    def _next(self) -> list[Portion]:
        """Returns the next batch, as soon as something waits; nothing at the end."""
        with self._changed:
            tokens, seconds = self._pace.to_wait_for()
            self._changed.wait_for(lambda: self._ended or self._queue.tokens >= tokens, seconds)
            while not (batch := self._queue.take(self._pace.budget)) and not self._ended:
                self._changed.wait()
            return batch

    def _taken(self) -> list[Portion]:
        """Removes and returns all that waits."""
        taken: list[Portion] = []
        with self._changed:
            while batch := self._queue.take(float("inf")):
                taken += batch
        return taken

    def _compute(self, backend: Backend, batch: Sequence[Portion]) -> None:
        if batch[0].job is not None:
            self._step(backend, batch[0], batch[0].job)
            return
        texts = [text for portion in batch for text in portion.texts]
        faults = self._answer(backend, texts)
        for portion in batch:
            fault = next((faults[id(text)] for text in portion.texts if id(text) in faults), None)
            self._settle(portion, fault)
        self._measure(texts, batch)

    def _answer(self, backend: Backend, texts: Sequence[Text]) -> dict[int, Exception]:
        """Answers texts, and returns the errors of those that failed, by identity."""
        parts = parts_of(texts)
        began = time.perf_counter()
        found = backend.logits([part for part, _ in parts])
        ended = time.perf_counter()
        faults: dict[int, Exception] = {}
        for (_, members), logits in zip(parts, found, strict=True):
            for row, text in enumerate(members):
                text.began, text.ended = began, ended
                if isinstance(logits, Exception):
                    faults[id(text)] = logits
                else:
                    text.logits = logits[row]
        return faults

    def _step(self, backend: Backend, portion: Portion, job: Generator[int, None, Any]) -> None:
        """Runs a step of a job. The next one waits for its turn."""
        future = portion.owner.future
        if future.cancelled():
            job.close()
            return
        try:
            portion.tokens = backend.job(job.__next__)
        except StopIteration as end:
            _settle_job(future, end.value, None)
        except Exception as error:
            _settle_job(future, None, error)
        else:
            with self._changed:
                self._queue.add([portion])

    def _measure(self, texts: Sequence[Text], batch: Sequence[Portion]) -> None:
        tokens, seconds = sum(text.tokens for text in texts), texts[0].ended - texts[0].began
        self._pace.note(tokens, seconds, len({id(portion.owner) for portion in batch}))
        self._seen(Batch(len(texts), tokens, len({portion.lane for portion in batch}), seconds))

    def _settle(self, portion: Portion, fault: BaseException | None) -> None:
        """Notes that a portion is computed, and answers its request if that was the last one, or if it failed."""
        request: _Request = portion.owner
        request.left -= 1
        if request.future.done() or (request.left and fault is None):
            return
        if not request.future.set_running_or_notify_cancel():
            return
        if fault is None:
            request.future.set_result(request.texts)
            return
        self._forget(request)
        request.future.set_exception(_backend_error(fault))

    def _fail(self, batch: Sequence[Portion], error: BaseException) -> None:
        for portion in batch:
            self._settle(portion, error)


def _settle_job(future: "Future[Any]", result: Any, error: Exception | None) -> None:
    if not future.set_running_or_notify_cancel():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _backend_error(fault: BaseException) -> RequestError:
    """Returns the error that a client gets. It has no text: the message of a library may quote one."""
    return RequestError(Why.BACKEND, f"the model failed ({_kind(fault)}); the server's log says where")


def _kind(error: BaseException) -> str:
    return type(error).__name__
