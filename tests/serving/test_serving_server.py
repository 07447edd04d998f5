"""The real server in a process of its own: right answers while adapters are swapped, and an end that answers."""

import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import answer
from fork_server import ForkServer, Process
from helpers import adapted_of, randomise, save_tiny_run

from bertlora.run.loaded import Run

TEXTS = ["a joy from the start", "dull", "i hated every minute of this long and lifeless film", "fine", "so so " * 12]
KEY = "a-key-of-tests"
NAMES = ("x", "y", "z")
REQUESTS = 150


@pytest.fixture(scope="module")
def runs(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with two versions of each adapter; the names of their labels say which one answered."""
    folder = tmp_path_factory.mktemp("runs")
    for i, name in enumerate(NAMES):
        for version in (0, 1):
            adapted = adapted_of(tiny("bert"), [f"{name}{version}-{k}" for k in range(2 + i)])
            randomise(adapted.model, seed=2 * i + version)
            save_tiny_run(folder / f"{name}{version}", adapted)
    return folder


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    """Returns a process that forks servers."""
    with ForkServer(["bertlora.serving.app", "bertlora.serving.server"]) as server:
        yield server


class Serving:
    """A server that runs, and a client of it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        line = json.loads(self._line())
        self.port, self.adapters = int(line["url"].rpartition(":")[2]), line["adapters"]

    def _line(self) -> bytes:
        assert self.process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            line += self.process.stdout.read(1) or b"\n"
        return line

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, connection: HTTPConnection, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body)
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        connection.request(method, path, data, headers)
        response = connection.getresponse()
        raw = response.read()
        return response.status, json.loads(raw) if raw else None


@contextmanager
def serving(forks: ForkServer, folder: Path, *words: str) -> Iterator[Serving]:
    """Starts a server, whose log goes to a file; at the end it is killed if it still runs."""
    command = ["serve", *words, "--port", "0", "--precision", "fp32", "--json"]
    with (
        (folder / "log").open("wb") as log,
        forks.start(command, env={"BERTLORA_API_KEY": KEY}, cwd=folder, stderr=log.fileno()) as process,
    ):
        try:
            yield Serving(process)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)


def test_swapped_adapters_answer_rightly_and_the_end_answers_what_was_accepted(
    forks: ForkServer, runs: Path, tmp_path: Path
) -> None:
    expected = {}
    for path in runs.iterdir():
        for text, line in zip(TEXTS, Run.load(path).predict(TEXTS), strict=True):
            expected[path.name, text] = line["probabilities"]
    shutil.copytree(runs, tmp_path / "runs")
    load = Load(expected)
    words = [f"{name}=runs/{name}0" for name in NAMES]
    with serving(forks, tmp_path, *words, "--load-from", "runs", "--most-loaded", "2", "--batch-ms", "20") as server:
        assert server.adapters == list(NAMES)
        threads = [threading.Thread(target=load.client, args=(server, seed)) for seed in range(6)]
        for thread in threads:
            thread.start()
        with closing(server.connect()) as connection:
            for i in range(6):
                run = {"path": f"{NAMES[i % 3]}{(i // 3 + 1) % 2}"}
                assert server.ask(connection, "PUT", f"/v1/adapters/{NAMES[i % 3]}", run)[0] == 200
        while load.answered < REQUESTS and not load.faults:
            time.sleep(0.01)
        load.ended.set()
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        assert server.process.wait(60) == 0
    assert load.wrong == []
    assert load.faults == []
    assert load.versions == {f"{name}{version}" for name in NAMES for version in (0, 1)}
    log = (tmp_path / "log").read_text()
    assert not any(text in log for text in TEXTS if " " in text)
    assert "Traceback" not in log


class Load:
    """Clients that ask and check.

    Attributes:
        expected: probabilities by version of an adapter and text.
    """

    def __init__(self, expected: dict[tuple[str, str], dict[str, float]]) -> None:
        self.expected, self.ended = expected, threading.Event()
        self.wrong: list[Any] = []
        self.faults: list[BaseException] = []
        self.versions: set[str] = set()
        self.answered = 0

    def client(self, server: Serving, seed: int) -> None:
        """Asks until the end began."""
        draw = random.Random(seed)
        with closing(server.connect()) as connection:
            while not self.ended.is_set():
                name, texts = draw.choice(NAMES), draw.choices(TEXTS, k=draw.randint(1, 4))
                sent_before = not self.ended.is_set()
                try:
                    path = f"/v1/adapters/{name}/predict"
                    status, found = server.ask(connection, "POST", path, {"texts": texts})
                    assert status == 200 or (status == 503 and self.ended.is_set()), found
                except Exception as error:
                    # What comes after the end began finds a closed socket.
                    if sent_before or not isinstance(error, OSError | HTTPException):
                        self.faults.append(error)
                    return
                if status == 503:
                    return
                self.answered += 1
                self._check(name, texts, found["predictions"])

    def _check(self, name: str, texts: list[str], lines: list[dict[str, Any]]) -> None:
        for text, line in zip(texts, lines, strict=True):
            found = line["probabilities"]
            version = next(iter(found)).partition("-")[0]
            self.versions.add(version)
            right = self.expected[version, text]
            if version[0] != name or not np.allclose([found[k] for k in right], list(right.values()), atol=1e-5):
                self.wrong.append((name, text, line))


def test_an_idle_connection_that_asks_after_the_signal_gets_an_answer(
    forks: ForkServer, runs: Path, tmp_path: Path
) -> None:
    with serving(forks, tmp_path, f"x={runs / 'x0'}") as server, ExitStack() as opened:
        connections = [opened.enter_context(closing(server.connect())) for _ in range(8)]
        ask = {"texts": TEXTS[:1]}
        assert {server.ask(c, "POST", "/v1/adapters/x/predict", ask)[0] for c in connections} == {200}
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.25)  # the server has seen the signal by now
        found = [server.ask(c, "POST", "/v1/adapters/x/predict", ask) for c in connections]
        assert {status for status, _ in found} == {503}
        assert "ends" in str(found[0][1])
        assert all(c.sock is None for c in connections)  # the answer closes the connection
        assert server.process.wait(60) == 0


def test_what_cannot_be_served_is_said_in_one_line(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str) -> str:
        found = answer(capsys, "serve", *words)
        assert (found.status, found.out) == (2, "")
        assert found.err.count("\n") == 1
        return found.err

    run = str(runs / "x0")
    assert "name the runs to serve" in said()
    assert "no such run folder" in said("--port", "0", str(tmp_path / "none"))
    assert "the name 'x0' is taken" in said(run, run)
    assert "is not a name for an adapter" in said("--port", "0", f"a b={run}")
    assert "cannot listen there" in said("--host", "203.0.113.1", run)
    assert "up to 65535" in said("--port", "70000", run)
    assert "needs a key" in said(run, "--load-from", os.fspath(runs))
    assert "expected only a name" in said(run, "--allow-host", "http://reviews.example.org")
    (tmp_path / "key").write_text("\n")
    assert "is empty" in said(run, "--key-file", str(tmp_path / "key"))
    assert "is not a folder" in said("--port", "0", "--watch", str(tmp_path / "none"))
