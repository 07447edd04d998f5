"""What the contracts call: questions in, answers out."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from bertlora.confidence.probabilities import Array
from bertlora.errors import BertloraError, InputError
from bertlora.model.adapted import Adapted
from bertlora.model.explain import Explanation, explain
from bertlora.serving.batcher import Batch, Batcher, Source, Text
from bertlora.serving.computing import Computing
from bertlora.serving.fair import Places
from bertlora.serving.fleet import Fleet, Served
from bertlora.serving.record import note
from bertlora.serving.refused import RequestError, Why
from bertlora.task import REGRESSION

if TYPE_CHECKING:
    from bertlora.serving.shadow import Riders, Shadows

T = TypeVar("T")
# Texts that are tokenised in one go: a huge request lets others pass.
TOKENIZED = 128
TOKENIZING_THREADS = 2
# An explanation reads a text about this often; see `model.integrated`.
EXPLAINED = 64
# Places for tokens, for each place for a text.
TOKENS_A_TEXT = 64


@dataclass(frozen=True)
class Question:
    """A text, or a pair of texts, for one adapter.

    Attributes:
        adapter: its name.
        text: the text.
        pair: the second text, if the adapter reads pairs.
        truncation: where a long text is cut, `left` or `right`; `none` refuses it; None does what the run does.
        base: the base with its untrained head answers, without the adapter.
    """

    adapter: str
    text: str
    pair: str | None = None
    truncation: str | None = None
    base: bool = False


@dataclass(frozen=True)
class Answer:
    """What the model says of a question.

    Attributes:
        served: the adapter that answered, in the version that did; `served.lines(logits[None])` is its prediction.
        logits: (K,) float64.
        tokens: tokens that the model read.
        queue_s: seconds from acceptance to the start of its batch, without tokenisation.
        tokenization_s: seconds of tokenisation.
        compute_s: seconds of its batch.
    """

    served: Served
    logits: Array
    tokens: int
    queue_s: float = 0.0
    tokenization_s: float = 0.0
    compute_s: float = 0.0


class Service:
    """Answers questions. There is one in a server, and its event loop calls it.

    Args:
        fleet: the adapters.
        queue: texts that may be accepted and not yet answered. One adapter may have as many of them as stay free, so
            alone at most half.
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
        batch_s: float = 0.2,
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
        known = set(self.fleet.names)
        note([question for question in questions if question.adapter in known])
        with self._accepted(Counter(question.adapter for question in questions)):
            began = time.perf_counter()
            served = {name: await self.adapter(name) for name in {question.adapter for question in questions}}
            loaded = time.perf_counter()
            texts = await self._read(questions, served)
            read = time.perf_counter()
            riders = await self._riders(questions, texts)
            with self._room(_tokens(texts), self._tokens, "tokens"):
                done, shadowed = self.batcher.submit_with(texts, riders.texts if riders else ())
                await asyncio.wrap_future(done)
        answers = [
            Answer(
                served[question.adapter],
                text.logits,
                text.tokens,
                queue_s=text.began - read + loaded - began,
                tokenization_s=read - loaded,
                compute_s=text.ended - text.began,
            )
            for question, text in zip(questions, texts, strict=True)
        ]
        note((), answers)
        if self.shadows is not None and riders:
            self.shadows.compare(questions, answers, riders, shadowed)
        return answers

    async def explain(self, question: Question) -> Explanation:
        """Returns how much each word counts; see `model.explain`. It takes its turn with the batches.

        Raises:
            RequestError: as for `answer`, and for an adapter that cannot be explained, such as an export.
        """
        with self._accepted({question.adapter: min(EXPLAINED, self._texts.places // 2)}):
            served = await self.adapter(question.adapter)
            (text,) = await self._read([question], {question.adapter: served})
            adapted = await self._on(self._loading, self.fleet.whole, served)
            pairs = None if question.pair is None else [question.pair]
            job = partial(explain, adapted, [question.text], pairs, question.base)
            try:
                done = self.batcher.run(question.adapter, EXPLAINED * text.tokens, job)
                found: list[Explanation] = await asyncio.wrap_future(done)
            except InputError as error:
                raise RequestError(Why.INVALID, f"adapter {question.adapter!r}: {error}") from None
        return found[0]

    async def adapter(self, name: str) -> Served:
        """Returns an adapter; one that was unloaded is loaded again, beside the event loop.

        Raises:
            RequestError: there is none of this name, or its files cannot be read any more.
        """
        loaded = self.fleet.get_loaded(name)
        return await self._on(self._loading, self.fleet.get, name) if loaded is None else loaded

    async def load(self, name: str, path: Any, model: str = "") -> Served:
        """Loads or replaces an adapter, beside the event loop; see `Fleet.load`."""
        return await self._on(self._loading, self.fleet.load, name, path, model)

    def refuse(self) -> None:
        """Takes no more questions; those that were accepted are answered."""
        self._refuses = True

    def close(self) -> None:
        """Takes no more questions, answers what was accepted, and ends the threads."""
        self.refuse()
        self.fleet.close()
        self.batcher.end()
        for pool in (self._tokenizing, self._loading):
            pool.shutdown(cancel_futures=True)
        if self.shadows is not None:
            self.shadows.close()

    @contextmanager
    def _accepted(self, wanted: Mapping[str, int]) -> Iterator[None]:
        """Inside, so many texts have their places.

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

    async def _riders(self, questions: Sequence[Question], texts: Sequence[Text]) -> "Riders | None":
        """Returns the questions that candidates read too. While the server is busy, they read none."""
        if self.shadows is None:
            return None
        return await self.shadows.riders(questions, self.batcher.has_room(2 * sum(text.tokens for text in texts)))

    async def _base(self, served: Served, truncation: str | None) -> Source:
        """Returns what answers for the base without the adapter; a regression's base says the mean of its targets."""
        if served.task == REGRESSION:
            return Source(_Mean(served.run.manifest.target_mean), served.source(truncation).template)
        adapted: Adapted = await self._on(self._loading, self.fleet.whole, served)
        return served.base_source(adapted, truncation)

    async def _on(self, pool: ThreadPoolExecutor, call: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, call, *args)


@dataclass(frozen=True)
class _Mean:
    """A model that gives the same number for every text."""

    value: float

    def logits(self, inputs: Any) -> Array:
        """Returns the number, (B, 1)."""
        return np.full((len(inputs), 1), self.value)


def read(served: Served, source: Source, questions: Sequence[Question]) -> list[Text]:
    """Returns the texts of some questions with their token ids. Either all questions have pairs, or none has.

    Raises:
        RequestError: pairs are missing or not expected, or a text is too long and must not be cut.
    """
    reader, first = served.run.model.reader, questions[0]
    if reader.pairs is not None and reader.pairs != (first.pair is not None):
        wanted = "pairs of texts" if reader.pairs else "single texts"
        raise RequestError(Why.INVALID, f"adapter {served.name!r} reads {wanted}; send them")
    pairs = None if first.pair is None else [str(question.pair) for question in questions]
    try:
        inputs = replace(reader, template=source.template).read([question.text for question in questions], pairs)
    except BertloraError as error:
        raise RequestError(Why.INVALID, f"adapter {served.name!r}: {error}") from None
    if first.truncation == "none":
        _check_length(served.name, int(inputs.whole.max()), source.template.room(pairs is not None))
    seconds = inputs.second
    return [
        Text(served.name, source, inputs.first[i], None if seconds is None else seconds[i], tokens)
        for i, tokens in enumerate(inputs.lengths.tolist())
    ]


def _check_length(name: str, longest: int, room: int) -> None:
    if longest > room:
        reason = f"a text has {longest:,} tokens; adapter {name!r} reads at most {room:,}"
        raise RequestError(Why.INVALID, f"{reason}, and truncation is off; shorten it, or allow truncation")


def _tokens(texts: Sequence[Text]) -> dict[str, int]:
    """Returns how many tokens each adapter is to read."""
    found: dict[str, int] = {}
    for text in texts:
        found[text.lane] = found.get(text.lane, 0) + text.tokens
    return found
