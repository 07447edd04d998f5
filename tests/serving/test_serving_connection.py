"""Raw sockets against uvicorn with our connections: slow, endless and silent clients, and requests for other hosts."""

import asyncio
import errno
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from served import ask

pytest.importorskip("fastapi")

import uvicorn

from bertlora.serving import server as serving
from bertlora.serving.faults import Faults
from bertlora.serving.gate import Gate
from bertlora.serving.hosts import Hosts
from bertlora.serving.limits import Limits
from bertlora.serving.server import Accepting, _Server, listening, settings

LIMITS = Limits(
    body_bytes=100_000, body_s=0.4, head_bytes=20_000, head_s=0.4, answer_s=0.4, connections=20, questions=1
)
LARGE = b"x" * 30_000_000  # more than any buffer between the two
GOOD = b"POST /echo HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 3\r\n\r\nabc"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body that it got, or with a large one."""
    assert scope["type"] == "http"
    body = LARGE if scope["path"] == "/large" else (await receive())["body"] if scope["method"] == "POST" else b"got"
    if scope["path"] == "/slow":
        await asyncio.sleep(3 * LIMITS.head_s)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def gate(key: str = "", hosts: Hosts | None = None) -> Gate:
    faults = Faults({}, lambda why, message: (why.value, {"error": message}))
    return Gate(echo, key=key, limits=LIMITS, faults=faults, hosts=hosts)


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """A server in a thread; `address` is where it listens."""
    config = settings(gate(), LIMITS)
    config.lifespan = "off"
    with listening("127.0.0.1", 0) as listener:
        server = uvicorn.Server(config)
        server.address = listener.getsockname()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield server
        server.should_exit = True
        thread.join(30)


def told(server: Any, *parts: bytes, pause_s: float = 0.0, reads: bool = True) -> bytes:
    """Sends parts, and returns all that comes until the server closes; empty if it closes without a word."""
    with socket.create_connection(server.address, timeout=10) as client:
        found = b""
        try:
            for part in parts:
                client.sendall(part)
                time.sleep(pause_s)
            while reads and (more := client.recv(65536)):
                found += more
        except ConnectionError:  # what it said before may be lost
            pass
        return found


HEAD = b"POST /echo HTTP/1.1\r\nhost: a\r\n"
# What is sent, with pauses in seconds, and the status: an attacker with all the time there is gets no more than this.
ATTACKS = {
    "nothing": ([], 0.0, b" 408 "),
    "empty lines": ([b"\r\n"] * 60, 0.03, b" 408 "),
    "a slow head": ([b"GET / HTTP/1.1\r\n", *[b"a: b\r\n"] * 60], 0.03, b" 408 "),
    "a slow body": ([HEAD + b"content-length: 1000\r\n\r\n", *[b"x"] * 60], 0.03, b" 408 "),
    "a body that stops": ([HEAD + b"transfer-encoding: chunked\r\n\r\n", b"3\r\nabc\r\n"], 0.0, b" 408 "),
    "many headers": ([HEAD, *[b"a: b\r\n" * 500] * 100], 0.0, b" 431 "),
    "one endless header": ([HEAD, b"a: ", *[b"x" * 5000] * 100], 0.0, b" 431 "),
    "an endless path": ([b"GET /", *[b"x" * 5000] * 100], 0.0, b" 431 "),
    "endless headers behind the body": (
        [HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", *[b"a: b\r\n" * 500] * 100], 0.0, b" 431 "
    ),
    "chunks with long names": (
        [HEAD + b"transfer-encoding: chunked\r\n\r\n", *[b"1;" + b"x" * 9000] * 30], 0.0, b" 431 "
    ),
    "a body too large": ([HEAD + b"content-length: 100001\r\n\r\n"], 0.0, b" 413 "),
    "a body too large in chunks": (
        [HEAD + b"transfer-encoding: chunked\r\n\r\n", *[b"2710\r\n" + b"x" * 10_000 + b"\r\n"] * 20], 0.0, b" 413 "
    ),
    "two lengths": ([HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd"], 0.0, b" 400 "),
    "a length and chunks": (
        [HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"], 0.0, b" 400 "
    ),
    "no HTTP": ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9], 0.0, b" 400 "),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_a_client_holds_nothing_for_long(server: Any, name: str) -> None:
    parts, pause_s, status = ATTACKS[name]
    began = time.monotonic()
    found = told(server, *parts, pause_s=pause_s)
    assert time.monotonic() - began < 8
    assert status in found.partition(b"\r\n")[0] or (found == b"" and len(parts) > 1)
    assert found == b"" or b"expected" in found.partition(b"\r\n\r\n")[2] or b"did not come within" in found
    assert b" 200 " in told(server, GOOD.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))


def test_patience_with_what_is_slow_for_a_reason(server: Any) -> None:
    with socket.create_connection(server.address, timeout=10) as client:
        for request in (GOOD, GOOD.replace(b"/echo", b"/slow"), GOOD):
            client.sendall(request + b"\r\n")  # some clients end a body so
            answer = b""
            while not answer.endswith(b"abc"):
                answer += client.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ")
            time.sleep(LIMITS.head_s * 2)  # between two requests it may be silent for longer


def test_who_does_not_read_is_let_go(server: Any) -> None:
    with socket.create_connection(server.address, timeout=10) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
        until = time.monotonic() + 8
        while server.server_state.tasks or server.server_state.connections:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_connections_are_counted(server: Any) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(server.address, 10)) for _ in range(30)]
        answers = []
        for client in clients:
            try:
                answers.append(client.recv(65536).partition(b"\r\n")[0])
            except ConnectionError:
                answers.append(b"")
    assert sum(b" 503 " in answer for answer in answers) == 10
    assert sum(b" 408 " in answer for answer in answers) == 20


Close = Callable[[], None]
Make = Callable[[], asyncio.Protocol]


async def accept(listener: socket.socket, make: Make) -> Close:
    return Accepting(listener, make).close


async def accept_as_the_server(listener: socket.socket, make: Make) -> Close:
    config = settings(echo, LIMITS)
    config.lifespan = "off"
    config.load()
    config.http_protocol_class = lambda **_: make()  # type: ignore[assignment]
    server = _Server(config, SimpleNamespace())  # type: ignore[arg-type]
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])

    def close() -> None:
        for one in (*server._accepting, *server.servers):
            one.close()

    return close


def turns_until_connected(
    listener: socket.socket, count: int, begin: Callable[[socket.socket, Make], Awaitable[Close]] = accept
) -> int:
    """Returns after how many turns of a busy event loop, the server's, as many connections are made."""
    turns = 0
    made: list[int] = []

    class Noting(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            made.append(turns)
            transport.close()

    def turn() -> None:
        nonlocal turns
        turns += 1
        time.sleep(0.005)
        asyncio.get_running_loop().call_soon(turn)

    async def main() -> None:
        end = await begin(listener, Noting)
        turn()
        async with asyncio.timeout(30):
            while len(made) < count:
                await asyncio.sleep(0)
        end()

    with asyncio.Runner(loop_factory=settings(echo, LIMITS).get_loop_factory()) as runner:
        runner.run(main())
    return made[-1]


@pytest.mark.parametrize("begin", [accept, accept_as_the_server])
def test_a_busy_event_loop_takes_all_connections_that_wait(begin: Any) -> None:
    with listening("127.0.0.1", 0) as listener, ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(listener.getsockname(), 10))
        assert turns_until_connected(listener, 100, begin) < 10


def test_connections_wait_while_the_system_has_no_room_for_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    faults = [errno.EMFILE, errno.ECONNABORTED]

    class Full(socket.socket):
        def accept(self) -> Any:
            if faults:
                raise OSError(faults.pop(0), "no room")
            return super().accept()

    monkeypatch.setattr(serving, "TAKE_AGAIN_S", 0.1)
    with (
        listening("127.0.0.1", 0) as listener,
        Full(fileno=listener.detach()) as full,
        socket.create_connection(full.getsockname(), 10),
    ):
        assert turns_until_connected(full, 1) > 5
    assert caplog.messages == ["connections wait, since none can be taken: no room"]


HOSTS = Hosts(["reviews.example.org"])
OURS = ["127.0.0.1:8080", "10.1.2.3", "[::1]:8080", "localhost:1", "LOCALHOST.", "a.localhost", "Reviews.example.org:8"]
FOREIGN = ["evil.example", "127.0.0.1.evil.example:8080", "localhost.evil.example", "xlocalhost", "", "[::1", "a@b@c"]


@pytest.mark.parametrize(("names", "status"), [(OURS, 200), (FOREIGN, 421)])
def test_only_names_of_the_server_are_answered(names: list[str], status: int) -> None:
    for name in names:
        reply = ask(gate(hosts=HOSTS), "GET", "/", headers={"host": name})
        assert reply.status == status, name
        assert name == "" or name.encode() not in reply.content


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec-fetch-site": "same-origin", "origin": "https://proxy.example"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"origin": "http://127.0.0.1:8080"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:8080"}, 403),
        ({"origin": "http://127.0.0.1:9090"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_pages_of_other_sites_may_not_ask(headers: dict[str, str], status: int) -> None:
    given = {"host": "127.0.0.1:8080"} | headers
    assert ask(gate(), "POST", "/echo", b"abc", given).status == status
    assert ask(gate(), "GET", "/", headers=given).status == 200
