"""text-embeddings-inference: its headers, its types of errors, and what `inputs` may be, without a socket."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import LABELS, peft_logits, plain_peft, randomise
from served import ask, save_runs
from transformers import AutoTokenizer

pytest.importorskip("fastapi")

from bertlora.confidence.probabilities import softmax
from bertlora.serving.app import make_app
from bertlora.serving.fleet import Fleet
from bertlora.serving.limits import Limits
from bertlora.serving.questions import Answer, Question
from bertlora.serving.service import Service

PLACES = 8  # of the queue
LONG = "long " * 200


@pytest.fixture(scope="module")
def folder(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with runs that read texts or pairs, and an adapter that PEFT saved, which reads both."""
    folder = tmp_path_factory.mktemp("tei")
    save_runs(folder, tiny)
    theirs = plain_peft("bert", tiny("bert"), lora_alpha=8)
    randomise(theirs)
    theirs.peft_config["default"].base_model_name_or_path = str(tiny("bert"))
    theirs.save_pretrained(folder / "peft")
    AutoTokenizer.from_pretrained(tiny("bert")).save_pretrained(folder / "peft")
    return folder


@pytest.fixture
def service(folder: Path) -> Iterator[Service]:
    fleet = Fleet()
    for name in ("reviews", "entailed", "peft"):
        fleet.load(name, folder / name)
    service = Service(fleet, queue=PLACES)
    yield service
    service.close()


TIMES = ("x-total-time", "x-compute-time", "x-tokenization-time", "x-queue-time", "x-inference-time")
# `inputs` and what the headers say: characters.
WORK = [
    ("reviews", "a joy", 5),
    ("reviews", ["dull ☺"], 6),
    ("entailed", ["a joy", "it was good"], 16),
    ("reviews", [["a joy"], ["dull"], [LONG]], 9 + len(LONG)),
    ("entailed", [["a", "b"], ["c", "de"]], 5),
]


@pytest.mark.parametrize(("name", "inputs", "characters"), WORK)
def test_headers_say_what_the_work_was(service: Service, name: str, inputs: Any, characters: int) -> None:
    reply = ask(make_app(service), "POST", f"/predict?adapter={name}", {"inputs": inputs})
    rows = [[inputs]] if isinstance(inputs, str) else inputs if isinstance(inputs[0], list) else [inputs]
    firsts, seconds = [row[0] for row in rows], [row[1] for row in rows if len(row) == 2]
    tokens = service.fleet.get(name).run.model.reader.read(firsts, seconds or None).lengths
    assert reply.status == 200
    assert reply.headers["x-compute-type"] == "cpu"
    assert reply.headers["x-compute-characters"] == str(characters)
    assert reply.headers["x-compute-tokens"] == str(tokens.sum())
    times = {time: int(reply.headers[time]) for time in TIMES}
    assert times["x-compute-time"] == times["x-total-time"]
    parts = times["x-tokenization-time"], times["x-queue-time"], times["x-inference-time"]
    assert min(parts) >= 0
    assert sum(parts) <= times["x-total-time"] + 2  # each is rounded


def test_times_are_milliseconds_and_means_over_the_texts(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = service.answer

    async def slow(questions: list[Question]) -> list[Answer]:
        found = await answer(questions)
        return [
            replace(one, queue_s=0.01 + 0.02 * i, tokenization_s=0.004, compute_s=1.5 + i)
            for i, one in enumerate(found)
        ]

    monkeypatch.setattr(service, "answer", slow)
    headers = ask(make_app(service), "POST", "/predict", {"inputs": [["a"], ["b"]]}).headers
    assert [headers[time] for time in TIMES[2:]] == ["4", "20", "2000"]


BLANK, STRINGS = {"inputs": " "}, {"inputs": ["a", "b", "c"]}
# What is asked, of whom, status, type, and what the message has.
FAULTS = {
    "no text": ({"inputs": []}, "reviews", 400, "Empty", "at least one text"),
    "a blank text": (BLANK, "reviews", 400, "Empty", "expected a text"),
    "three strings": (STRINGS, "reviews", 422, "Validation", 'expected "text", ["first", "second"] for a pair'),
    "three strings in a batch": ({"inputs": [["a", "b", "c"]]}, "peft", 422, "Validation", "list of 3 strings"),
    "no inputs": ({}, "reviews", 422, "Validation", "inputs: is missing"),
    "a number": ({"inputs": 3}, "reviews", 422, "Validation", "expected"),
    "a long text": ({"inputs": LONG, "truncate": False}, "reviews", 422, "Validation", "reads at most 62"),
    "an unknown direction": (
        {"inputs": "a", "truncation_direction": "up"}, "reviews", 422, "Validation", "'left' or 'right'"
    ),
    "texts and pairs, of a run that reads texts": (
        {"inputs": [["a"], ["b", "c"]]}, "reviews", 422, "Validation", "reads single texts"
    ),
    "texts and pairs, of a run that reads pairs": (
        {"inputs": [["a"], ["b", "c"]]}, "entailed", 422, "Validation", "reads pairs of texts"
    ),
    "no such adapter": ({"inputs": "a"}, "nobody", 404, "Validation", "/v1/adapters lists them"),
    "too many texts": ({"inputs": [["a"]] * 4}, "reviews", 413, "Validation", "expected at most 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_does_not_fit_gets_its_type_of_error(service: Service, name: str) -> None:
    body, adapter, status, kind, reason = FAULTS[name]
    reply = ask(make_app(service, limits=Limits(questions=3)), "POST", f"/predict?adapter={adapter}", body)
    assert (reply.status, reply.json["error_type"]) == (status, kind)
    assert reply.json.keys() == {"error", "error_type"}
    assert reason in reply.json["error"]


def test_a_full_queue_is_overloaded(service: Service) -> None:
    with service._texts.holding({"peft": PLACES // 2}), service._texts.holding({"entailed": PLACES // 4}):
        reply = ask(make_app(service), "POST", "/predict", {"inputs": [["a"], ["b"]]})
    assert (reply.status, reply.json["error_type"]) == (429, "Overloaded")
    assert int(reply.headers["retry-after"]) >= 1
    assert ask(make_app(service), "POST", "/predict", {"inputs": [["a"], ["b"]]}).status == 200


def test_an_adapter_that_cannot_be_loaded_again_is_a_fault_of_the_backend(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "reviews", tmp_path / "reviews")
    fleet = Fleet(most_loaded=1)
    fleet.load("reviews", tmp_path / "reviews")
    fleet.load("entailed", folder / "entailed")
    shutil.rmtree(tmp_path / "reviews")
    service = Service(fleet)
    reply = ask(make_app(service), "POST", "/predict", {"inputs": "a"})
    service.close()
    assert (reply.status, reply.json["error_type"]) == (424, "Backend")


@pytest.mark.parametrize(("method", "path"), [("POST", "/predict"), ("GET", "/health"), ("GET", "/info")])
def test_without_adapters_it_is_unhealthy(method: str, path: str) -> None:
    service = Service(Fleet())
    reply = ask(make_app(service), method, path, {"inputs": "a"} if method == "POST" else None)
    service.close()
    assert (reply.status, reply.json["error_type"]) == (503, "Unhealthy")


def test_a_server_that_ends_is_unhealthy(service: Service) -> None:
    app = make_app(service)
    assert ask(app, "GET", "/health").json == {"status": "ok"}
    service.refuse()
    for method, path, body in (("POST", "/predict", {"inputs": "a"}), ("GET", "/health", None)):
        reply = ask(app, method, path, body)
        assert (reply.status, reply.json["error_type"]) == (503, "Unhealthy")


def test_an_adapter_that_peft_saved_takes_texts_and_pairs_in_one_batch(
    service: Service, folder: Path, tiny: Callable[[str], Path]
) -> None:
    reply = ask(make_app(service), "POST", "/predict?adapter=peft", {"inputs": [["a joy"], ["dull", "it was good"]]})
    assert reply.status == 200
    single = peft_logits(tiny("bert"), folder / "peft", ["a joy"])
    pair = peft_logits(tiny("bert"), folder / "peft", ["dull"], ["it was good"])
    found = [{one["label"]: one["score"] for one in row} for row in reply.json]
    scores = [[row[f"LABEL_{k}"] for k in range(len(LABELS))] for row in found]
    np.testing.assert_allclose(scores, softmax(np.concatenate([single, pair])), rtol=0, atol=1e-5)
