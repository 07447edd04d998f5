"""What the contracts call: questions in, answers out."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from bertlora.errors import InputError
from bertlora.model.adapted import Adapted
from bertlora.model.explain import Explanation, explaining
from bertlora.serving.batcher import Batch, Batcher
from bertlora.serving.computing import Computing, where
from bertlora.serving.fair import Places
from bertlora.serving.fleet import Fleet, Served
from bertlora.serving.questions import Answer, Question
from bertlora.serving.reading import Mean, read
from bertlora.serving.record import note
from bertlora.serving.refused import RequestError, Why
from bertlora.serving.texts import Source, Text
from bertlora.task import REGRESSION

if TYPE_CHECKING:
    from bertlora.serving.shadow import Riders, Shadows

LOG = logging.getLogger("bertlora.serving")
T = TypeVar("T")
# Texts that are tokenised in one go: a huge request lets others pass.
TOKENIZED = 128
TOKENIZING_THREADS = 2
# An explanation reads a text about this often; see `model.integrated`.
EXPLAINED = 64
# Places for tokens, for each place for a text.
TOKENS_A_TEXT = 64


class Service:
    """Answers questions. There is one in a server, and its event loop calls it.

    Args:
        fleet: the adapters.
        queue: texts that may be accepted and not yet answered. One adapter may have as many of them as stay free, so
            at most half.
        batch_s: how long a batch should take, in seconds.
        seen: is called after each batch, on another thread.

    Attributes:
        fleet: the adapters.
        batcher: what waits, and how fast it is computed.
        shadows: candidates that read questions too; None if there are none.
    """

    def __init__(
        self,
        fleet: Fleet,
        queue: int = 4096,
        batch_s: float = 0.4,
        seen: Callable[[Batch], None] = lambda batch: None,
    ) -> None:
        self.fleet = fleet
        self.batcher = Batcher(Computing, batch_s, lambda batch: self.seen(batch))
        self.seen = seen
        self.shadows: Shadows | None = None
        self._texts, self._tokens = Places(queue), Places(queue * TOKENS_A_TEXT)
        self._refuses = False
        self._tokenizing = ThreadPoolExecutor(TOKENIZING_THREADS, "bertlora-tokenize")
        self._loading = ThreadPoolExecutor(1, "bertlora-load")
        self._loading_whole = ThreadPoolExecutor(1, "bertlora-load-whole")

    @property
    def ready(self) -> bool:
        """Whether it takes questions: adapters are loaded, and it does not end."""
        return bool(self.fleet.names) and not self._refuses

    @property
    def accepted(self) -> int:
        """Texts that are accepted and not yet answered."""
        return self._texts.taken

    async def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers all questions of a request, in order. If it is cancelled, what still waits is not computed.

        Raises:
            RequestError: an adapter is unknown, a text is too long and must not be cut, pairs are missing, the queue is
                full, the server ends, or the model failed.
        """
        note([question for question in questions if question.adapter in self.fleet])
        with self._accepted(Counter(question.adapter for question in questions)):
            began = time.perf_counter()
            served = {name: await self.adapter(name) for name in {question.adapter for question in questions}}
            loaded = time.perf_counter()
            texts = await self._read(questions, served)
            tokenized = time.perf_counter()
            riders = await self._riders(questions, texts)
            with self._room(_tokens(texts), self._tokens, "tokens"):
                done, shadowed = self.batcher.submit_with(texts, riders.texts if riders else ())
                await asyncio.wrap_future(done)
        waited = loaded - began - tokenized
        answers = [
            _answer(served[question.adapter], text, waited, tokenized - loaded)
            for question, text in zip(questions, texts, strict=True)
        ]
        note((), answers)
        if self.shadows is not None and riders:
            self.shadows.compare(questions, answers, riders, shadowed)
        return answers

    async def explain(self, question: Question, served: Served | None = None) -> Explanation:
        """Returns how much each word counts; see `model.explain`. Its steps take turns with the batches.

        Args:
            question: the question.
            served: the version of the adapter that answered it; None takes the newest.

        Raises:
            RequestError: as for `answer`, and for an adapter that cannot be explained, such as an export.
        """
        with self._accepted({question.adapter: min(EXPLAINED, self._texts.places // 2)}):
            served = served or await self.adapter(question.adapter)
            (text,) = await self._read([question], {question.adapter: served})
            adapted = await self._on(self._loading_whole, self.fleet.whole, served)
            pairs = None if question.pair is None else [question.pair]
            steps = explaining(adapted, [question.text], pairs, question.base)
            tokens = min(EXPLAINED * text.tokens, self._tokens.places // 2)
            with self._room({question.adapter: tokens}, self._tokens, "tokens"):
                try:
                    first = await self._on(self._tokenizing, next, steps)
                    done = self.batcher.run(question.adapter, first, steps)
                    found: list[Explanation] = await asyncio.wrap_future(done)
                except InputError as error:
                    raise RequestError(Why.INVALID, f"adapter {question.adapter!r}: {error}") from None
        return found[0]

    async def adapter(self, name: str) -> Served:
        """Returns an adapter; one that was unloaded is loaded again, on another thread.

        Raises:
            RequestError: there is none of this name, or its files cannot be read any more.
        """
        loaded = self.fleet.get_loaded(name)
        return await self._on(self._loading, self.fleet.get, name) if loaded is None else loaded

    async def load(self, name: str, path: Any, model: str = "") -> Served:
        """Loads or replaces an adapter on another thread; see `Fleet.load`."""
        return await self._on(self._loading, self.fleet.load, name, path, model)

    def refuse(self) -> None:
        """Takes no more questions; those that were accepted are answered."""
        self._refuses = True

    def close(self) -> None:
        """Takes no more questions, answers what was accepted, and ends the threads."""
        self.refuse()
        self.fleet.close()
        self.batcher.end()
        for pool in (self._tokenizing, self._loading, self._loading_whole):
            pool.shutdown(cancel_futures=True)
        if self.shadows is not None:
            self.shadows.close()

    @contextmanager
    def _accepted(self, wanted: Mapping[str, int]) -> Iterator[None]:
        """Inside, these texts have their places.

        Raises:
            RequestError: the server ends, an adapter is unknown, or the queue is full.
        """
        if self._refuses:
            raise RequestError(Why.NOT_READY, "the server ends; ask another one")
        for name in wanted:
            self.fleet.check(name)
        with self._room(wanted, self._texts, "texts"):
            yield

    @contextmanager
    def _room(self, wanted: Mapping[str, int], places: Places, unit: str) -> Iterator[None]:
        count, most = sum(wanted.values()), places.places // 2
        if count > most:
            raise RequestError(Why.TOO_LARGE, f"the request has {count:,} {unit}; expected at most {most:,}")
        with places.holding(wanted) as held:
            if not held:
                seconds = max(0.1, self.batcher.waiting[1] / self.batcher.speed)
                reason = f"the queue is full: {places.taken:,} {unit} wait; try again in {seconds:.1f} s"
                raise RequestError(Why.OVERLOADED, reason, retry_after_s=seconds)
            yield

    async def _read(self, questions: Sequence[Question], served: Mapping[str, Served]) -> list[Text]:
        """Returns the texts with their token ids, in the order of the questions."""
        groups: dict[tuple[str, str | None, bool, bool], list[int]] = {}
        for i, q in enumerate(questions):
            groups.setdefault((q.adapter, q.truncation, q.base, q.pair is None), []).append(i)
        texts: dict[int, Text] = {}
        for (name, truncation, base, _), places in groups.items():
            adapter = served[name]
            source = adapter.source(truncation)
            if base:
                source = await self._base(adapter, truncation)
            for start in range(0, len(places), TOKENIZED):
                some = places[start : start + TOKENIZED]
                asked = [questions[i] for i in some]
                texts.update(zip(some, await self._on(self._tokenizing, read, adapter, source, asked), strict=True))
        return [texts[i] for i in range(len(questions))]

    async def _base(self, served: Served, truncation: str | None) -> Source:
        """Returns what answers for the base without the adapter; a regression's base says the mean of its targets."""
        if served.task == REGRESSION:
            return Source(Mean(served.run.manifest.target_mean), served.source(truncation).template)
        adapted: Adapted = await self._on(self._loading_whole, self.fleet.whole, served)
        return served.base_source(adapted, truncation)

    async def _riders(self, questions: Sequence[Question], texts: Sequence[Text]) -> "Riders | None":
        """Returns the questions that candidates read too: as many as the next batch has room for.

        If nothing waits, they may read the longest text in any case: it can be longer than a batch by itself.
        """
        if self.shadows is None:
            return None
        tokens = [text.tokens for text in texts]
        room = self.batcher.room - sum(tokens)
        if not self.batcher.waiting[1]:
            room = max([room, *tokens])
        return await self.shadows.riders(questions, tokens, room)

    async def _on(self, pool: ThreadPoolExecutor, call: Callable[..., T], *args: Any) -> T:
        """Returns what a call on another thread returns, or raises its error.

        A library may raise something that would end the event loop with all that it serves, as `SystemExit` does.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, call, *args)
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException as error:
            LOG.critical("a call on another thread died of %s", where(error))
            raise RequestError(Why.BACKEND, f"the server failed ({type(error).__name__}); its log says where") from None


def _tokens(texts: Sequence[Text]) -> dict[str, int]:
    """Returns how many tokens each adapter is to read."""
    found: dict[str, int] = {}
    for text in texts:
        found[text.lane] = found.get(text.lane, 0) + text.tokens
    return found


def _answer(served: Served, text: Text, waited: float, tokenization_s: float) -> Answer:
    """Returns an answer. `waited` is the queue's time, less the clock when its batch began."""
    compute_s = text.ended - text.began
    return Answer(served, text.logits, text.tokens, waited + text.began, tokenization_s, compute_s)
