"""The server, in this process: bodies for each contract, and paths with headers.

A stand-in answers in place of the model.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from served import save_runs, scope_of

from bertlora.serving.app import make_app
from bertlora.serving.fleet import Fleet, Served
from bertlora.serving.limits import Limits
from bertlora.serving.questions import Answer, Question
from bertlora.serving.service import Service
from fuzzing.engine import Target

# 424 and 503 are for a model that fails and a server that ends: neither happens here.
EXPECTED = {200, 201, 204, 400, 401, 403, 404, 405, 413, 415, 422}
NAMES = ("reviews", "topics", "stars", "entailed")
TEXTS: dict[str, Any] = {"texts": ["a joy", "dull"]}
OWN = [TEXTS, {"pairs": [["a", "b"]], "sets": 0.9, "per_class": True}, TEXTS | {"abstain": "coverage=0.9", "raw": True}]
OWN += [TEXTS | {"explain": True, "truncation": "none", "base": False}]
TEI = [{"inputs": "a joy", "raw_scores": True}, {"inputs": [["a", "b"]], "truncate": True}]
TEI += [{"inputs": ["a"], "parameters": {"top_k": 1, "function_to_apply": "softmax"}}, {"inputs": [["a"], ["b"]]}]
VLLM = [{"model": "reviews", "input": ["a joy"]}, {"input": "a", "activation": False, "truncate_prompt_tokens": 8}]
TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}
BINARY = {"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}
OPEN: list[Any] = [{"id": "1", "inputs": [TENSOR], "outputs": [{"name": "label", "parameters": {"binary_data": True}}]}]
OPEN += [{"inputs": [TENSOR, TENSOR | {"name": "text_pair"}], "parameters": {"binary_data_output": True}}]
SPLIT = b"\n\n"  # between the JSON and the bytes behind it
# The first byte of an input says which path.
CONTRACTS: dict[str, tuple[Sequence[str], Sequence[Any]]] = {
    "own": (
        [f"/v1/adapters/{name}/predict" for name in NAMES] + ["/v1/predict"],
        [*OWN, TEXTS | {"adapters": ["reviews"]}],
    ),
    "text-embeddings-inference": (["/predict", *(f"/predict?adapter={name}" for name in NAMES)], TEI),
    "vLLM": (["/classify", "/v1/classify"], VLLM),
    "Open Inference": ([f"/v2/models/{name}/infer" for name in NAMES], OPEN),
}


class Instant(Service):
    """Answers at once, with logits that mean nothing."""

    async def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Returns answers."""
        for question in questions:
            self.fleet.check(question.adapter)
        served = {name: self.fleet.get(name) for name in {question.adapter for question in questions}}
        return [Answer(served[q.adapter], np.linspace(-1, 1, len(served[q.adapter].labels)), 3) for q in questions]

    async def explain(self, question: Question, served: Served | None = None) -> Any:
        """Returns an explanation."""
        return SimpleNamespace(to_json=dict)


def instant_app(folder: Path, key: str = "") -> Any:
    """Returns the application, with an untrained adapter of each task."""
    from conftest import tiny_model

    save_runs(folder / "runs", lambda kind: _made(tiny_model, kind, folder / kind))
    fleet = Fleet()
    for name in NAMES:
        fleet.load(name, folder / "runs" / name)
    return make_app(Instant(fleet), key=key, runs=folder / "runs", limits=Limits(questions=20, explained=2))


def _made(make: Callable[[str, Path], Path], kind: str, folder: Path) -> Path:
    return folder if folder.exists() else make(kind, folder)


def exchange(
    loop: asyncio.AbstractEventLoop, app: Any, method: str, url: str, body: bytes, headers: dict[bytes, bytes]
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Sends a request to the application; returns status, headers and body of the answer."""
    given = {b"host": b"127.0.0.1", b"content-type": b"application/json", b"content-length": b"%d" % len(body)}
    scope = scope_of(method, url, (given | headers).items())
    sent: list[Any] = []
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.sleep(3600)

    async def send(message: Any) -> None:
        sent.append(message)

    loop.run_until_complete(app(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(message.get("body", b"") for message in sent[1:])


def check_answer(status: int, headers: dict[bytes, bytes], content: bytes) -> None:
    """Checks an answer: the status is one of the expected, and an error is one line."""
    assert status in EXPECTED, (status, content)
    assert headers[b"x-request-id"]
    if headers.get(b"content-type") == b"application/json":
        found = json.loads(content, parse_constant=lambda name: 1 / 0)
        if status >= 400:
            error = found["error"]
            message = error if isinstance(error, str) else error["message"]
            assert message
            assert len(message.splitlines()) == 1, message


def contract(name: str) -> Callable[[Path], Target]:
    """Returns what makes the target of a contract: the first byte of an input says which path, the rest is the body."""
    urls, bodies = CONTRACTS[name]

    def make(folder: Path) -> Target:
        app, loop = instant_app(folder), asyncio.new_event_loop()

        def call(data: bytes) -> None:
            head, mark, tail = data[1:].partition(SPLIT)
            headers = {b"inference-header-content-length": b"%d" % len(head)} if mark else {}
            check_answer(*exchange(loop, app, "POST", urls[sum(data[:1]) % len(urls)], head + tail, headers))

        seeds = [bytes([i]) + json.dumps(body).encode() for i in range(len(urls)) for body in bodies]
        binary = b"\0" + json.dumps({"inputs": [BINARY]}).encode() + SPLIT + b"\1\0\0\0a"
        return Target(call, [*seeds, binary] if name == "Open Inference" else seeds)

    return make


def requests(folder: Path) -> Target:
    """Requests of any method, path and headers: a line for the method and path, then one for each header."""
    app, loop = instant_app(folder, "right"), asyncio.new_event_loop()
    paths = [
        b"/",
        b"/health",
        b"/v1/adapters",
        b"/v1/adapters/reviews",
        b"/info?adapter=reviews",
        b"/v1/models",
        b"/metrics",
    ]
    paths += [b"/v2", b"/v2/models/reviews", b"/v2/models/x%2F/ready", b"/playground/app.js", b"/openapi.json"]
    start = b"\nauthorization: Bearer right\ncontent-type: application/json\nx-request-id: a"
    seeds = [b"GET " + path + start for path in paths] + [b"DELETE /v1/adapters/a" + start, b"HEAD /health"]
    seeds += [b"PUT /v1/adapters/a" + start + b'\n\n{"path": "x"}', b"POST /predict" + start + b'\n\n{"inputs": "a"}']

    def call(data: bytes) -> None:
        head, _, body = data.partition(SPLIT)
        first, *lines = head.split(b"\n")
        method, _, url = first.decode("latin-1").partition(" ")
        headers = dict(line.lower().replace(b"\r", b"").split(b": ", 1) for line in lines if b": " in line)
        check_answer(*exchange(loop, app, method, "/" + url.lstrip("/"), body, headers))

    return Target(call, seeds)


TARGETS: dict[str, Callable[[Path], Target]] = {
    **{name: contract(name) for name in CONTRACTS},
    "requests": requests,
}
