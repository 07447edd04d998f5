"""The fleet and the service on tiny runs: each question gets its adapter's own answer, whatever comes and goes."""

import asyncio
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from helpers import adapted_of, change_weights, randomise, save_tiny_run, shift_answers

from bertlora.data.inputs import Inputs
from bertlora.errors import InputError, RunError
from bertlora.export.certificate import TEXTS as CERTIFIED
from bertlora.export.certificate import Certificate
from bertlora.model.explain import Explanation, explain
from bertlora.run.loaded import Run
from bertlora.serving.fleet import Fleet
from bertlora.serving.questions import Answer, Question
from bertlora.serving.refused import RequestError, Why
from bertlora.serving.service import Service
from bertlora.serving.watching import Watch

TEXTS = ["a joy from the start", "dull", "i hated every minute of this long and lifeless film " * 4, "fine " * 90]
NAMES = ("first", "second", "third", "fourth")
Close = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def runs(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns runs by name, with 2 to 5 labels; the last reads pairs."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for i, name in enumerate(NAMES):
        adapted = adapted_of(tiny("bert"), [str(k) for k in range(2 + i)], pairs=i == 3)
        randomise(adapted.model, seed=i)
        save_tiny_run(folder / name, adapted)
        found[name] = folder / name
    return found


def logits_of(run: Run, question: Question) -> np.ndarray:
    """Returns what the run itself says."""
    reader = run.model.reader
    if question.truncation in ("left", "right"):
        reader = replace(reader, template=replace(reader.template, truncation=question.truncation))
    inputs = reader.read([question.text], None if question.pair is None else [question.pair])
    return run.adapted.logits(inputs, base=question.base)[0]


def answers(service: Service, questions: list[Question]) -> list[Answer]:
    return asyncio.run(service.answer(questions))


@pytest.fixture
def service(runs: dict[str, Path]) -> Iterator[Service]:
    """Returns a service with all runs; two of them are in memory."""
    made = Service(Fleet(most_loaded=2), queue=200, batch_s=0.01)
    for name, path in runs.items():
        made.fleet.load(name, path)
    yield made
    made.close()


def test_each_question_gets_its_adapters_own_answer(service: Service, runs: dict[str, Path]) -> None:
    alone = {name: Run.load(path) for name, path in runs.items()}
    draw = random.Random(0)

    def drawn() -> Question:
        name, text = draw.choice(NAMES), draw.choice(TEXTS)
        cut, base = draw.choice([None, "left", "right"]), draw.random() < 0.2
        return Question(name, text, draw.choice(TEXTS) if name == "fourth" else None, cut, base)

    requests = [[drawn() for _ in range(draw.randint(1, 8))] for _ in range(12)]

    async def all_at_once() -> list[list[Answer]]:
        return await asyncio.gather(*(service.answer(questions) for questions in requests))

    for questions, found in zip(requests, asyncio.run(all_at_once()), strict=True):
        for question, one in zip(questions, found, strict=True):
            assert one.served.name == question.adapter
            np.testing.assert_allclose(one.logits, logits_of(alone[question.adapter], question), **Close)
            assert min(one.queue_s, one.tokenization_s, one.compute_s) >= 0
    assert len(service.fleet.loaded) == 2
    assert service.accepted == 0


def test_an_explanation_takes_its_turn(service: Service, runs: dict[str, Path]) -> None:
    async def both() -> tuple[object, list[Answer]]:
        asked = Question("first", TEXTS[0])
        return await asyncio.gather(service.explain(asked), service.answer([asked] * 20))

    found, others = asyncio.run(both())
    (expected,) = explain(Run.load(runs["first"]).adapted, [TEXTS[0]])
    assert len(others) == 20
    assert (found.label, found.rival) == (expected.label, expected.rival)
    assert [word.attribution for word in found.words] == pytest.approx([word.attribution for word in expected.words])


def test_an_explanation_is_of_the_version_that_answered_and_others_are_answered_between_its_steps(
    runs: dict[str, Path],
) -> None:
    fleet = Fleet()
    service, question = Service(fleet, batch_s=0.01), Question("x", TEXTS[2])
    fleet.load("x", runs["first"])
    fleet.load("y", runs["second"])

    async def replaced() -> tuple[Explanation, int]:
        (answer,) = await service.answer([question])
        fleet.load("x", runs["third"])
        explanation = asyncio.ensure_future(service.explain(question, answer.served))
        between = 0
        while not explanation.done():
            await service.answer([Question("y", TEXTS[1])])
            between += not explanation.done()
        return await explanation, between

    found, between = asyncio.run(replaced())
    (expected,) = explain(Run.load(runs["first"]).adapted, [TEXTS[2]])
    assert found.logit_difference == pytest.approx(expected.logit_difference, abs=1e-5)
    assert between >= 3
    assert service.accepted == 0
    service.close()


class Panic(BaseException):
    """What the tokenizers library raises if its code in Rust fails is no Exception."""


@pytest.mark.parametrize("error", [SystemExit, Panic, KeyError])
@pytest.mark.parametrize("place", ["bertlora.serving.service.read", "bertlora.serving.fleet.Fleet._read"])
def test_what_dies_on_a_thread_fails_its_request_only(
    place: str, error: type[BaseException], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise error

    questions = [[Question(name, TEXTS[0])] for name in ("first", "second")]  # those that were unloaded
    with monkeypatch.context() as patch:
        patch.setattr(place, dies)

        async def both() -> list[object]:
            return await asyncio.gather(*map(service.answer, questions), return_exceptions=True)

        found = asyncio.run(both())
    assert all(isinstance(one, RequestError | KeyError) for one in found)
    assert service.accepted == 0
    assert len(answers(service, [question for one in questions for question in one])) == 2


@pytest.mark.parametrize("error", [SystemExit, Panic, KeyError])
def test_a_watch_that_fails_once_looks_again(
    error: type[BaseException], runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet, failed = Fleet(), Event()
    watch = Watch(fleet, tmp_path, every_s=0.01)

    def dies(_: Path) -> None:
        failed.set()
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("bertlora.serving.watching.stamps", dies)
        assert failed.wait(20)
    shutil.copytree(runs["first"], tmp_path / "a")
    began = time.monotonic()
    while fleet.names != ["a"] and time.monotonic() - began < 20:
        time.sleep(0.01)
    assert fleet.names == ["a"]
    watch.end()


def test_what_is_refused_says_why(service: Service) -> None:
    def why(*questions: Question) -> Why:
        with pytest.raises(RequestError) as refused:
            answers(service, list(questions))
        assert TEXTS[0] not in str(refused.value)
        return refused.value.why

    assert why(Question("frist", TEXTS[0])) is Why.UNKNOWN
    assert why(Question("first", TEXTS[0], TEXTS[0])) is Why.INVALID
    assert why(Question("fourth", TEXTS[0])) is Why.INVALID
    assert why(Question("first", TEXTS[3], truncation="none")) is Why.INVALID
    assert why(*[Question("first", TEXTS[0])] * 101) is Why.TOO_LARGE

    async def flood() -> list[object]:
        many = [service.answer([Question("first", TEXTS[0])] * 60) for _ in range(4)]
        return await asyncio.gather(*many, service.answer([Question("second", TEXTS[1])]), return_exceptions=True)

    *many, other = asyncio.run(flood())
    refused = [one for one in many if isinstance(one, RequestError)]
    assert len(refused) == 3
    assert all(one.why is Why.OVERLOADED and (one.retry_after_s or 0) > 0 for one in refused)
    assert isinstance(other, list)
    service.refuse()
    assert not service.ready
    assert why(Question("first", TEXTS[0])) is Why.NOT_READY


def damage(folder: Path) -> None:
    """Changes the weights of a run, and no hash."""
    weights = folder / "adapter" / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-40:] = bytes(40)
    weights.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "reason"), [(damage, "is damaged"), (change_weights, "does not give the run's answers here")]
)
def test_a_new_version_answers_once_it_holds(
    spoil: Callable[[Path], None], reason: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    fleet = Fleet()
    service, question = Service(fleet), Question("x", TEXTS[0])
    fleet.load("x", runs["first"])
    before = answers(service, [question])[0]
    broken = tmp_path / "broken"
    shutil.copytree(runs["second"], broken)
    spoil(broken)
    with pytest.raises(RunError, match=reason):
        fleet.load("x", broken)
    assert answers(service, [question])[0].served is before.served
    fleet.load("x", runs["second"])
    after = answers(service, [question])[0]
    np.testing.assert_allclose(after.logits, logits_of(Run.load(runs["second"]), question), **Close)
    fleet.drop("x")
    with pytest.raises(RequestError):
        answers(service, [question])
    service.close()


def test_a_changed_run_in_a_watched_folder_answers_once_its_certificate_holds(
    runs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = Fleet()
    shutil.copytree(runs["first"], tmp_path / "a")
    watch = Watch(fleet, tmp_path, every_s=3600)
    before = fleet.get("a")
    change_weights(tmp_path / "a")
    watch.look()
    assert fleet.get("a") is before
    assert "does not give the run's answers here" in caplog.text
    assert "the older version stays" in caplog.text
    watch.end()


def test_the_first_adapter_of_a_base_replays_its_whole_certificate(
    runs: dict[str, Path], tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    difference = Certificate.difference

    class Counted:
        def __init__(self, model: Any) -> None:
            self.reader, self.ready, self._logits = model.reader, model.ready, model.logits

        def logits(self, inputs: Inputs, **options: Any) -> np.ndarray:
            asked.append(len(inputs))
            return np.asarray(self._logits(inputs, **options))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # no marks of other tests
    monkeypatch.setattr(Certificate, "difference", lambda self, model, *rest: difference(self, Counted(model), *rest))
    save_tiny_run(tmp_path / "dora", adapted_of(tiny("bert"), variant="dora"))
    paths = [runs["first"], runs["second"], tmp_path / "dora", runs["fourth"]]

    def load(fleet: Fleet, *some: Path) -> list[int]:
        asked.clear()
        for path in some:
            fleet.load(path.name, path)
        return list(asked)

    some = CERTIFIED // 4
    assert load(Fleet(), *paths) == [CERTIFIED, some, CERTIFIED, some]  # DoRA has a base of its own
    assert load(Fleet(), *paths) == []
    assert load(Fleet(), runs["second"], runs["third"]) == [CERTIFIED, some]  # before, only some of the second's
    assert load(Fleet(), runs["third"], runs["second"]) == [CERTIFIED]


def test_the_adapter_that_was_asked_least_recently_is_unloaded(runs: dict[str, Path]) -> None:
    fleet = Fleet(most_loaded=2)
    fleet.load("first", runs["first"])
    fleet.load("second", runs["second"])
    kept = fleet.get("first")
    fleet.load("third", runs["third"])
    assert fleet.loaded == ["first", "third"]
    assert fleet.get_loaded("second") is None
    assert fleet.get_loaded("first") is kept
    assert len(fleet.get("second").labels) == 3  # it is loaded again, and the third was asked before the first
    assert fleet.loaded == ["first", "second"]
    assert fleet.names == ["first", "second", "third"]


def test_an_export_is_served_after_its_certificate_held(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, export = Run.load(runs["first"]), tmp_path / "export"
    run.export(export, "merged")
    other = shutil.copytree(export, tmp_path / "other")
    shift_answers(other, by=0.5)
    replays, difference = list[float](), Certificate.difference

    def noted(self: Certificate, *given: Any) -> float:
        replays.append(difference(self, *given))
        return replays[-1]

    monkeypatch.setattr(Certificate, "difference", noted)
    fleet = Fleet(precision="fp32")
    service, question = Service(fleet), Question("x", TEXTS[0])
    for _ in range(2):
        fleet.load("x", export)
        assert len(replays) == 1  # this machine has seen it then
    with pytest.raises(RunError, match=r"other: does not give the run's answers here: logits differ by up to 0\.5"):
        fleet.load("x", other)
    assert len(replays) == 2
    (answer,) = answers(service, [question])
    np.testing.assert_allclose(answer.logits, logits_of(run, question), **Close)
    service.close()


def test_a_watched_folder_is_followed(runs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fleet = Fleet(most_loaded=1)
    (tmp_path / "no-run").mkdir()
    shutil.copytree(runs["first"], tmp_path / "a")
    shutil.copytree(runs["second"], tmp_path / "b")
    watch = Watch(fleet, tmp_path, every_s=3600)
    assert fleet.names == ["a", "b"]
    assert fleet.loaded == ["a"]  # the other one waits until it is asked
    assert len(fleet.get("b").labels) == 3

    shutil.rmtree(tmp_path / "b")
    shutil.copytree(runs["third"], tmp_path / "b")
    (tmp_path / "a" / "adapter" / "adapter_config.json").write_text("{")
    shutil.copytree(runs["first"], tmp_path / "-bad name")
    watch.look()
    assert fleet.names == ["a", "b"]
    assert len(fleet.get("b").labels) == 4
    assert "the older version stays" in caplog.text
    assert "is not a name for an adapter" in caplog.text

    (tmp_path / "b").rename(tmp_path / "no-run" / "b")
    watch.look()
    (tmp_path / "no-run" / "b").rename(tmp_path / "b")
    watch.look()
    assert len(fleet.get("b").labels) == 4
    shutil.rmtree(tmp_path / "b")
    watch.look()
    watch.look()
    assert fleet.names == ["a"]
    watch.end()


@pytest.mark.parametrize("name", ["", "..", ".x", "-x", "a/b", "a\\b", "a b", "ä", "a\n", "x" * 129])
def test_names_that_mean_something_elsewhere_are_refused(name: str, runs: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="not a name for an adapter"):
        Fleet().load(name, runs["first"])
