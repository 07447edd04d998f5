"""The application without a socket: its own description, its errors, and what never gets in."""

import asyncio
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import change_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from served import Reply, ask, save_runs

pytest.importorskip("fastapi")

from bertlora.serving.app import make_app
from bertlora.serving.faults import Faults
from bertlora.serving.fleet import Fleet
from bertlora.serving.gate import Gate
from bertlora.serving.limits import Limits
from bertlora.serving.refused import RequestError, Why
from bertlora.serving.service import Service

KEY = {"authorization": "Bearer right"}
SECRET = "xyzzy"
POSTS = ("/predict", "/classify", "/v1/predict", "/v1/adapters/reviews/predict", "/v2/models/reviews/infer")


@pytest.fixture(scope="module")
def folder(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gate")
    save_runs(folder, tiny)
    shutil.copytree(folder / "reviews", folder / "reviews-2")
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    fleet = Fleet()
    for name in ("reviews", "topics"):
        fleet.load(name, folder / name)
    service = Service(fleet)
    yield service
    service.close()


@pytest.fixture(scope="module")
def app(service: Service, folder: Path) -> Any:
    return make_app(service, key="right", runs=folder, limits=Limits(body_bytes=10_000, questions=20, explained=2))


def fits(app: Any, schema: dict[str, Any], value: Any) -> bool:
    """Returns whether a value fits a schema of the description."""
    whole = schema | {"components": app.openapi()["components"]}
    return not list(Draft202012Validator(whole).iter_errors(value))


def fault_fits(app: Any, path: str, method: str, reply: Reply) -> bool:
    operation = app.openapi()["paths"][path.replace("/reviews", "/{name}")][method.lower()]
    return fits(app, operation["responses"]["4XX"]["content"]["application/json"]["schema"], reply.json)


def test_every_path_has_an_example_that_works(app: Any) -> None:
    described = app.openapi()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            body = None
            if "requestBody" in operation:
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                (body,) = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["examples"]
                assert fits(app, schema, body)
            name = "new" if method in ("put", "delete") else "reviews"
            reply = ask(app, method.upper(), path.replace("{name}", name), body, KEY)
            assert reply.status == (201 if method == "put" else 204 if method == "delete" else 200), reply
            if reply.headers.get("content-type") == "application/json":
                answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
                assert fits(app, answer, reply.json), (path, reply.json)
    for schema in described["components"]["schemas"].values():
        for example in schema.get("examples", ()):
            assert fits(app, schema, example), example
    assert ask(app, "GET", "/docs", headers=KEY).status == 404


def test_adapters_change_only_with_a_key_and_below_the_folder(app: Any, service: Service, folder: Path) -> None:
    (folder / "out").symlink_to(folder.parent)
    (folder / "empty").mkdir()
    outside = ["..", "../gate", ".", str(folder.parent), "/etc", "out", "out/x", "a\0b", "x" * 1000]
    for path in [*outside, "empty", "missing"]:
        assert ask(app, "PUT", "/v1/adapters/new", {"path": path}, KEY).status == 422
    assert ask(app, "PUT", "/v1/adapters/..%2Fnew", {"path": "topics"}, KEY).status in (404, 422)
    assert ask(app, "PUT", "/v1/adapters/new", {"path": "topics"}).status == 401
    open_app = make_app(service, runs=folder)
    for method, body in (("PUT", {"path": "topics"}), ("DELETE", None)):
        reply = ask(open_app, method, "/v1/adapters/reviews", body)
        assert (reply.status, reply.json["reason"]) == (403, "forbidden")
    assert ask(app, "DELETE", "/v1/adapters/new", headers=KEY).status == 404
    assert service.fleet.names == ["reviews", "topics"]


def test_a_run_whose_certificate_does_not_hold_replaces_nothing(app: Any, service: Service, folder: Path) -> None:
    before, asked = service.fleet.get("reviews"), {"texts": ["a joy"]}
    answer = ask(app, "POST", "/v1/adapters/reviews/predict", asked, KEY).json
    shutil.copytree(folder / "reviews", folder / "changed")
    change_weights(folder / "changed")
    reply = ask(app, "PUT", "/v1/adapters/reviews", {"path": "changed"}, KEY)
    assert reply.status == 422
    assert "does not give the run's answers here" in reply.json["error"]
    assert service.fleet.get("reviews") is before
    assert ask(app, "POST", "/v1/adapters/reviews/predict", asked, KEY).json == answer


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(SECRET),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "texts pairs sets abstain explain inputs truncate raw_scores parameters input name shape datatype data "
                f"binary_data_size outputs top_k {SECRET}".split()
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)
KNOWN = {"adapters": ["reviews", "topics"], "model": "reviews"}


@settings(max_examples=150)
@given(
    path=st.sampled_from(POSTS),
    body=JSON | st.binary(max_size=40),
    named=st.booleans(),
    length=st.none() | st.integers(0, 99),
)
def test_any_body_gets_an_answer_that_does_not_repeat_it(
    app: Any, path: str, body: Any, named: bool, length: int | None
) -> None:
    if isinstance(body, dict) and named:
        body = body | {"adapters": KNOWN["adapters"]} if path == "/v1/predict" else body
    headers = KEY | ({} if length is None else {"inference-header-content-length": str(length)})
    reply = ask(app, "POST", path, body, headers)
    assert reply.status in (200, 400, 413, 422), reply
    assert reply.headers["x-request-id"]
    if reply.status != 200:
        assert fault_fits(app, path, "POST", reply)
        assert SECRET.encode() not in reply.content


@pytest.mark.parametrize("path", POSTS)
def test_a_busy_or_broken_service_is_said_in_the_shape_of_the_contract(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    app = make_app(service)
    schema = app.openapi()["paths"][path.replace("/reviews", "/{name}")]["post"]["requestBody"]["content"]
    name = schema["application/json"]["schema"]["$ref"].rpartition("/")[2]
    (body,) = app.openapi()["components"]["schemas"][name]["examples"]
    for error, status in (
        (RequestError(Why.OVERLOADED, "the queue is full", 1.2), 429),
        (ValueError(SECRET), 500 if path in ("/classify", "/v2/models/reviews/infer") else 424),
    ):

        async def fails(questions: Any, error: Exception = error) -> Any:
            raise error

        monkeypatch.setattr(service, "answer", fails)
        with caplog.at_level(logging.DEBUG):
            reply = ask(app, "POST", path, body)
        assert reply.status == status
        assert reply.headers.get("retry-after") == ("2" if status == 429 else None)
        assert fault_fits(app, path, "POST", reply)
        assert SECRET not in caplog.text
        assert SECRET.encode() not in reply.content


def test_limits_are_kept(app: Any) -> None:
    too_many = {"texts": ["a"] * 11, "adapters": ["reviews", "topics"]}
    assert ask(app, "POST", "/v1/predict", too_many, KEY).status == 413
    assert ask(app, "POST", "/v1/predict", too_many | {"texts": ["a"] * 10}, KEY).status == 200
    explained = {"texts": ["a"] * 3, "explain": True}
    assert ask(app, "POST", "/v1/adapters/reviews/predict", explained, KEY).status == 413
    for headers in ({}, {"content-length": "0"}, {"content-length": "-1"}, {"content-length": "x"}):
        reply = ask(app, "POST", "/predict", b"[" * 10_001, KEY | headers)
        assert reply.status == 413
        assert reply.headers["connection"] == "close"
    assert ask(app, "POST", "/predict", b"[" * 10_000, KEY).status == 422


def test_ids_methods_paths_and_types(app: Any) -> None:
    for sent, kept in (("a-1.b_c:2", True), ("x" * 129, False), ("a b", False), ("", False)):
        reply = ask(app, "GET", "/health", headers={"x-request-id": sent})
        assert (reply.headers["x-request-id"] == sent) == kept
    assert ask(app, "HEAD", "/v1/adapters", headers=KEY).status == 200
    assert ask(app, "GET", "/predict", headers=KEY).status == 405
    assert ask(app, "GET", "/predict", headers=KEY).headers["allow"] == "POST"
    assert ask(app, "GET", f"/{SECRET}", headers=KEY).json == {
        "error": "no such path; /openapi.json lists all paths",
        "reason": "unknown",
    }
    for header in ({"content-type": "text/plain"}, {"content-encoding": "gzip"}):
        assert ask(app, "POST", "/predict", {"inputs": "a"}, KEY | header).status == 415
    for wrong in ("Bearer wrong", "Basic right", "right", "Bearer", "Bearer rightx", "Bearer \x80"):
        reply = ask(app, "POST", "/predict", {"inputs": "a"}, {"authorization": wrong})
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")


def test_a_body_that_does_not_come_is_not_waited_for(service: Service) -> None:
    reply = ask(
        make_app(service, limits=Limits(body_s=0.05)), "POST", "/predict", b"", {"content-length": "9"}, ends=False
    )
    assert (reply.status, reply.headers["connection"]) == (408, "close")


@pytest.mark.parametrize("answers_first", [False, True])
def test_work_for_a_client_that_went_away_is_cancelled(answers_first: bool) -> None:
    events: list[str] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["body"] == b"{}"
        try:
            if answers_first:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b""})
            await asyncio.sleep(0.2)
            events.append("done")
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    async def run() -> None:
        messages = [{"type": "http.request", "body": b"{}"}, {"type": "http.disconnect"}]

        async def receive() -> Any:
            return messages.pop(0) if messages else await asyncio.sleep(60)

        async def send(message: Any) -> None:
            events.append(message["type"])

        gate = Gate(slow, key="", limits=Limits(), faults=Faults({}, lambda why, message: (why.value, {})))
        await gate({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send)
        assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]

    asyncio.run(run())
    whole = ["http.response.start", "http.response.body", "done"]
    assert events == (whole if answers_first else ["cancelled"])
