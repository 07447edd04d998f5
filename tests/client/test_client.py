"""The client against a server that is busy, ends, drops connections, is slow, or takes less than is asked."""

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import numpy as np
import pytest
from command_line import answer, good

from bertlora import Client
from bertlora.errors import InputError, ServerError

ADAPTER = {"name": "a", "task": "classification", "labels": ["no", "yes"], "pairs": False, "max_length": 64}
EXPLANATION = {"label": "yes", "rival": "no", "logit_difference": 1.5, "baseline_difference": 0.5, "gap": 0.0}
EXPLANATION |= {"words": [{"word": "joy", "attribution": 1.0}, {"word": "joy!", "attribution": None}]}
# What happens to a request before it is answered: a status with headers, or a way to fail.
Trouble = tuple[int, dict[str, str]] | str


class StandIn:
    """A server whose answers are made from the texts.

    Attributes:
        trouble: what happens to the next requests, the first one first.
        asked: the number of texts of each request for predictions that was answered.
        connections: how many were opened.
        most: texts that a request may have.
    """

    def __init__(self) -> None:
        self.trouble: list[Trouble] = []
        self.asked: list[int] = []
        self.connections = 0
        self.most = 10**6
        self.key = ""
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                stand_in.connections += 1

            def do_GET(self) -> None:
                self._send(200, ADAPTER if self.path.endswith("/a") else {"default": "a", "adapters": ["a", "b"]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                trouble = stand_in.trouble.pop(0) if stand_in.trouble else ""
                if trouble == "drop":
                    self.close_connection = True
                elif trouble == "sleep":
                    time.sleep(1)
                    self.close_connection = True
                elif isinstance(trouble, tuple):
                    self._send(trouble[0], {"error": "as the test wants it"}, trouble[1])
                elif stand_in.key and self.headers["Authorization"] != f"Bearer {stand_in.key}":
                    self._send(401, {"error": "the wrong key"})
                else:
                    self._predict(body)

            def _predict(self, body: dict[str, Any]) -> None:
                texts = body.get("texts") or body["pairs"]
                if len(texts) > stand_in.most:
                    self._send(413, {"error": "too many texts"})
                    return
                stand_in.asked.append(len(texts))
                lines = [
                    prediction(str(text)) | ({"explanation": EXPLANATION} if body.get("explain") else {})
                    for text in texts
                ]
                self._send(200, {"adapter": "a", "predictions": lines, "tokens": 3, "notes": ["chosen"]})

            def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                for name, one in (headers or {}).items():
                    self.send_header(name, one)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def prediction(text: str) -> dict[str, Any]:
    """Returns an answer that is different for every text."""
    p = sum(text.encode()) % 997 / 997
    return {"label": "yes", "confidence": p, "probabilities": {"no": 1 - p, "yes": p}}


@pytest.fixture
def server() -> Iterator[StandIn]:
    made = StandIn()
    yield made
    made.close()


def test_every_text_gets_its_answer_whatever_happens_on_the_way(server: StandIn) -> None:
    texts = [f"text {i}" for i in range(300)]
    server.trouble = ["drop", (429, {"Retry-After": "1"}), (503, {}), "", "drop"]
    began = time.monotonic()
    with Client(server.url) as client:
        assert client.adapters() == ["a", "b"]
        lines = client.predict(texts)
        assert time.monotonic() - began > 1, "Retry-After is honoured"
        assert lines == [{"text": text} | prediction(text) for text in texts]
        assert max(server.asked) < len(texts), "a long list is several requests"
        assert server.connections == 1 + 2, "the connection is kept, and opened again where it was dropped"
        server.most = 40
        assert client.predict(texts) == lines, "a request that is too large is halved"
        probabilities = client.predict_proba(texts)
        assert np.array_equal(probabilities, [[one["probabilities"][k] for k in ("no", "yes")] for one in lines])
        assert client.predict([]) == []
        assert client.predict_proba([]).shape == (0, 2)
        pairs = client.predict(["a", "b"], ["c", "d"], adapter="a")
        assert [(line["text"], line["text_pair"]) for line in pairs] == [("a", "c"), ("b", "d")]


@pytest.mark.parametrize(
    ("trouble", "kind", "said"),
    [
        ([(422, {})], InputError, "as the test wants it"),
        ([(500, {})], ServerError, "status 500: as the test wants it"),
        ([(429, {})] * 3, ServerError, "gave up after attempt 3"),
        ([(503, {"Retry-After": "3600"})], ServerError, "gave up after attempt 1"),
        (["sleep"], ServerError, "gave no answer within 0.5 s"),
    ],
)
def test_what_cannot_succeed_ends_soon_and_says_why(
    trouble: list[Trouble], kind: type[Exception], said: str, server: StandIn
) -> None:
    server.trouble, server.key = trouble, "secret"
    with Client(server.url, "secret", timeout_s=0.5 if trouble == ["sleep"] else 20, retries=2) as client:
        with pytest.raises(kind, match=said):
            client.predict(["a"], adapter="a")
        assert server.asked == []
        assert len(client.predict(["a"], adapter="a")) == 1, "the next request does not read the rest of this answer"


def test_bad_input_is_found_before_anything_is_sent(server: StandIn) -> None:
    with Client(server.url) as client:
        calls: dict[str, Callable[[], Any]] = {
            r"texts\[1\]: is blank": lambda: client.predict(["a", " "]),
            r"texts\[0\]: is of type int": lambda: client.predict([1]),  # type: ignore[list-item]
            r"pairs\[0\]: has half of a surrogate": lambda: client.predict(["a"], ["\ud800"]),
            "got 1 second texts for 2 texts": lambda: client.predict(["a", "b"], ["c"]),
            "got one string": lambda: client.predict("abc"),
            "expected http://HOST:PORT": lambda: Client("localhost:8080"),
            "no header can hold": lambda: Client(server.url, "k\n"),
        }
        for said, call in calls.items():
            with pytest.raises(InputError, match=said):
                call()
    assert server.asked == []


def test_predict_takes_a_server_in_place_of_a_run(
    server: StandIn, tmp_path: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "secret"
    assert "status 401: the wrong key" in answer(capsys, "predict", f"{server.url}/a", "a joy").err
    monkeypatch.setenv("BERTLORA_API_KEY", "secret")
    found = good(capsys, "predict", server.url, "a joy", "a mess", "--sets", "0.9")
    assert found.lines == [{"text": text} | prediction(text) for text in ("a joy", "a mess")]
    assert found.err == "note: chosen\n"
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(f"{json.dumps({'text': text, 'id': i})}\n" for i, text in enumerate(["a joy", "", "a mess"]))
    )
    out = tmp_path / "out.jsonl"
    good(capsys, "predict", f"{server.url}/a", "--file", rows, "--out", out)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["id"], line["predicted_label"]) for line in lines] == [(0, "yes"), (1, None), (2, "yes")]
    assert "text,label,confidence" in good(capsys, "predict", f"{server.url}/a", "a", "--format", "csv").out
    (line,) = good(capsys, "predict", f"{server.url}/a", "  joy joy!", "--explain").lines
    assert line["explanation"] == EXPLANATION
    for flags, said in (
        (("--model", "x"), "--model: is for a run"),
        (("--precision", "bf16"), "--precision: the server chooses it"),
    ):
        assert said in answer(capsys, "predict", f"{server.url}/a", "a", *flags).err
