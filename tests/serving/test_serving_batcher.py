"""The batcher with a model that only counts: shares, batches of a length, cancelling, failures, and the end."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertlora.serving import batcher as module
from bertlora.serving import pace
from bertlora.serving.batcher import Batch, Batcher
from bertlora.serving.computing import Computing
from bertlora.serving.fair import PORTION_TOKENS, FairQueue, Places, Portion
from bertlora.serving.refused import RequestError, Why
from bertlora.serving.texts import Source, Text

TEMPLATE: Any = None  # the models here do not cut texts
SPEED, OVERHEAD_S = 20_000.0, 0.004


class Stub:
    """Answers each text with its only token id. It waits for `go`, and moves its clock as a model would take time."""

    def __init__(self) -> None:
        self.go, self.at_work, self.clock = threading.Event(), threading.Event(), 0.0
        self.batches: list[list[tuple[str, int]]] = []
        self.go.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def logits(self, parts: Sequence[tuple[Any, Any]]) -> list[Any]:
        self.at_work.set()
        assert self.go.wait(20)
        batch = [(model, int(inputs.first[i][0])) for model, inputs in parts for i in range(len(inputs))]
        self.batches.append(batch)
        if ("fatal", 0) in batch:
            raise SystemExit
        self.clock += OVERHEAD_S + sum(len(inputs.first.ids) for _, inputs in parts) / SPEED
        return [np.array([[float(inputs.first[i][0])] for i in range(len(inputs))]) for _, inputs in parts]

    def job(self, job: Callable[[], Any]) -> Any:
        return job()


SOURCES = {name: Source(name, TEMPLATE) for name in ("a", "b", "c", "fatal")}


def texts(lane: str, count: int, tokens: int = 32, first: int = 0) -> list[Text]:
    return [Text(lane, SOURCES[lane], np.full(tokens, first + i, np.int32), None, tokens) for i in range(count)]


def busy(stub: Stub, batcher: Batcher) -> None:
    """Lets the thread wait inside a batch, so that what comes next waits for it."""
    stub.at_work.clear()
    stub.go.clear()
    batcher.submit(texts("c", 1))
    assert stub.at_work.wait(20)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    made = Stub()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: made.clock))
    return made


def test_a_huge_request_delays_small_ones_by_a_batch(stub: Stub) -> None:
    batcher = Batcher(lambda: stub, batch_s=1e-9)  # so a batch is a portion
    busy(stub, batcher)
    huge = batcher.submit(texts("a", 400))
    small = [batcher.submit(texts("a", 3, first=1000)), batcher.submit(texts("b", 3, first=2000))]
    stub.go.set()
    for request in small:
        request.result(20)
    assert [text.logits[0] for text in huge.result(20)] == list(range(400))
    place = {text: i for i, batch in enumerate(stub.batches) for text in batch}
    assert max(place[name, first + i] for name, first in (("a", 1000), ("b", 2000)) for i in range(3)) <= 3
    assert max(place.values()) >= 400 * 32 / PORTION_TOKENS
    batcher.end()


waits = st.lists(
    st.tuples(st.sampled_from("abcd"), st.lists(st.integers(1, PORTION_TOKENS), min_size=1, max_size=30)),
    min_size=1,
    max_size=12,
)


@given(waits, st.integers(1, 3000), st.integers(0, 11))
def test_each_adapter_gets_its_share_and_each_text_is_taken_once(
    requests: list[tuple[str, list[int]]], budget: int, gone: int
) -> None:
    queue, left = FairQueue(), Counter[str]()
    for number, (lane, tokens) in enumerate(requests):
        queue.add([Portion(lane, number, count, [f"{number}.{i}"]) for i, count in enumerate(tokens)])
        left[lane] += len(tokens)
    if gone < len(requests):
        queue.remove(gone)
        left[requests[gone][0]] -= len(requests[gone][1])
    expected = [f"{n}.{i}" for n, (_, tokens) in enumerate(requests) if n != gone for i in range(len(tokens))]
    assert queue.texts == len(expected)
    taken, served = list[str](), Counter[str]()
    while batch := queue.take(budget):
        assert sum(portion.tokens for portion in batch[:-1]) < budget
        for portion in batch:
            before = {lane for lane in left if left[lane]}
            taken += portion.texts
            left[portion.lane] -= 1
            served[portion.lane] += portion.tokens
            # Of those that wait since the start, none is ahead of another by more than a portion of each.
            shares = [served[lane] for lane in before]
            assert max(shares) - min(shares) <= 2 * PORTION_TOKENS
    assert sorted(taken) == sorted(expected)
    assert (queue.texts, queue.tokens) == (0, 0)
    for number, (_, tokens) in enumerate(requests):
        own = [text for text in taken if text.startswith(f"{number}.")]
        assert number == gone or own == [f"{number}.{i}" for i in range(len(tokens))]


def test_batches_take_about_as_long_as_they_should(stub: Stub) -> None:
    batches: list[Batch] = []
    batcher = Batcher(lambda: stub, batch_s=0.05, seen=batches.append)
    busy(stub, batcher)
    waiting = [batcher.submit(texts(lane, 600)) for lane in ("a", "b")]
    stub.go.set()
    for request in waiting:
        request.result(20)
    full = [batch.seconds for batch in batches[len(batches) // 2 : -1]]
    assert len(full) > 5
    assert all(0.8 * 0.05 <= seconds <= 0.05 + OVERHEAD_S + PORTION_TOKENS / SPEED for seconds in full)
    assert batcher.speed == pytest.approx(SPEED, rel=0.2)
    batcher.end()


def test_clients_that_wait_for_their_answers_share_batches(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "PATIENCE", 1000.0)  # of a batch of a few milliseconds
    batcher = Batcher(lambda: stub)

    def client(number: int) -> None:
        for i in range(5):
            batcher.submit(texts("a", 1, first=10 * number + i)).result(20)

    busy(stub, batcher)
    clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in clients:
        thread.start()
    while batcher.waiting[0] < 4:
        pass
    stub.go.set()
    for thread in clients:
        thread.join(20)
    assert [len(batch) for batch in stub.batches] == [1, 4, 4, 4, 4, 4]
    batcher.end()


def test_what_nobody_waits_for_is_not_computed(stub: Stub) -> None:
    async def ask() -> None:
        batcher = Batcher(lambda: stub)
        busy(stub, batcher)
        gone = asyncio.ensure_future(asyncio.wrap_future(batcher.submit(texts("a", 50))))
        kept = asyncio.wrap_future(batcher.submit(texts("b", 2)))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        await asyncio.sleep(0)  # it takes a turn of the loop
        assert batcher.waiting == (2, 64)
        stub.go.set()
        await kept
        await asyncio.to_thread(batcher.end)

    asyncio.run(ask())
    assert {lane for batch in stub.batches for lane, _ in batch} == {"b", "c"}


def test_a_thread_that_dies_is_replaced_and_its_batch_gets_an_error(stub: Stub) -> None:
    batcher = Batcher(lambda: stub, batch_s=1e-9)
    busy(stub, batcher)
    dies, lives = batcher.submit(texts("fatal", 8)), batcher.submit(texts("a", 30, first=1))
    stub.go.set()
    with pytest.raises(RequestError) as refused:
        dies.result(20)
    assert refused.value.why is Why.BACKEND
    assert len(lives.result(20)) == 30
    assert len(batcher.submit(texts("b", 1)).result(20)) == 1
    assert batcher.deaths == 1
    batcher.end()


@pytest.mark.parametrize("broken", ["_next", "_measure", "_backend"])
def test_whatever_dies_on_the_thread_nobody_waits_forever(
    broken: str, stub: Stub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = Batcher(lambda: stub)

    def dies(*_: Any) -> Any:
        raise MemoryError("a secret text")

    with monkeypatch.context() as patch:
        patch.setattr(batcher, broken, dies)
        for _ in range(2):
            if broken == "_measure":  # it is answered by then
                assert len(batcher.submit(texts("a", 3)).result(20)) == 3
                continue
            with pytest.raises(RequestError) as refused:
                batcher.submit(texts("a", 3)).result(20)
            assert refused.value.why is Why.BACKEND
    assert len(batcher.submit(texts("a", 3)).result(20)) == 3
    batcher.end()
    assert batcher.deaths == 2
    assert "another one goes on" in caplog.text
    assert "secret" not in caplog.text


def test_the_end_answers_what_was_accepted_and_refuses_the_rest(stub: Stub) -> None:
    batcher = Batcher(lambda: stub, batch_s=1e-9)
    busy(stub, batcher)
    accepted = [batcher.submit(texts("a", 40)), batcher.run("b", 10, steps_of(3, 10))]
    ending = threading.Thread(target=batcher.end)
    ending.start()
    while not batcher._ended:
        pass
    with pytest.raises(RequestError) as refused:
        batcher.submit(texts("a", 1))
    assert refused.value.why is Why.NOT_READY
    stub.go.set()
    ending.join(20)
    assert not ending.is_alive()
    assert [len(accepted[0].result(0)), accepted[1].result(0)] == [40, "said"]


def steps_of(count: int, tokens: int, done: list[int] | None = None) -> Generator[int, None, str]:
    """A job of some steps."""
    for number in range(count):
        yield tokens
        if done is not None:
            done.append(number)
    return "said"


def test_the_steps_of_a_job_and_texts_of_others_take_turns_by_their_tokens(stub: Stub) -> None:
    batcher, done, seen = Batcher(lambda: stub, batch_s=1e-9), list[int](), list[tuple[int, int]]()
    busy(stub, batcher)
    job = steps_of(40, 2 * PORTION_TOKENS, done)
    said = batcher.run("a", next(job), job)
    others = batcher.submit(texts("b", 40 * PORTION_TOKENS // 32))
    logits = stub.logits
    stub.logits = lambda parts: [seen.append((len(seen), len(done))), logits(parts)][1]  # type: ignore[method-assign]
    stub.go.set()
    assert (len(others.result(20)), said.result(20)) == (40 * PORTION_TOKENS // 32, "said")
    assert done == list(range(40))
    # A step costs two portions, so two portions of the other adapter come for each.
    assert len(seen) == 40
    assert all(abs(portions - 2 * steps) <= 3 for portions, steps in seen)
    batcher.end()


def test_a_job_nobody_waits_for_ends_after_its_step_and_one_that_fails_says_why(stub: Stub) -> None:
    batcher, done = Batcher(lambda: stub), list[int]()

    def endless() -> Generator[int, None, None]:
        while True:
            yield 1
            done.append(1)
            if len(done) == 3:
                gone.cancel()

    def failing() -> Generator[int, None, None]:
        yield 1
        raise ValueError("its own error")

    busy(stub, batcher)
    jobs = endless(), failing()
    for job in jobs:
        next(job)
    gone, failed = (batcher.run("a", 1, job) for job in jobs)
    stub.go.set()
    with pytest.raises(ValueError, match="its own error"):
        failed.result(20)
    batcher.end()
    assert len(done) == 3
    assert jobs[0].gi_frame is None


class Shared:
    """A base that fails as a whole if one of its models does."""

    def logits(self, parts: Sequence[tuple[Any, Any]]) -> list[Any]:
        if any(model.bad for model, _ in parts):
            raise RuntimeError("a secret text")
        return [np.full((len(inputs), 1), model.number) for model, inputs in parts]


def test_a_part_that_fails_does_not_fail_the_others(caplog: pytest.LogCaptureFixture) -> None:
    shared = Shared()
    models = [SimpleNamespace(shared=shared, number=i, bad=i == 2) for i in range(4)]
    sources = [Source(model, TEMPLATE) for model in models]
    batcher = Batcher(Computing)
    every = [
        [Text(str(i), source, np.zeros(4, np.int32), None, 4) for _ in range(2)] for i, source in enumerate(sources)
    ]
    found = [batcher.submit(some) for some in every]
    for i, future in enumerate(found):
        if i != 2:
            assert [text.logits.tolist() for text in future.result(20)] == [[i], [i]]
            continue
        with pytest.raises(RequestError) as refused:
            future.result(20)
        assert refused.value.why is Why.BACKEND
        assert "secret" not in str(refused.value)
    assert "RuntimeError at" in caplog.text
    assert "secret" not in caplog.text
    batcher.end()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 60)), max_size=40))
def test_one_that_floods_leaves_places_for_others(wanted: list[tuple[str, int]]) -> None:
    places = Places(100)
    held = []
    for lane, count in wanted:
        holding = places.holding({lane: count})
        fits = holding.__enter__()
        held += [holding]
        assert places.taken <= 100
        assert all(own <= 100 - places.taken for name, own in places.held.items() if name == lane and fits)
        with places.holding({"new": (100 - places.taken) // 2}) as free:
            assert free
    for holding in held:
        holding.__exit__(None, None, None)
    assert places.held == {}
