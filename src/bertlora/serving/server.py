"""Sockets, signals, and an end that answers what was accepted."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.server import HANDLED_SIGNALS

from bertlora.errors import InputError
from bertlora.serving.connection import Connection
from bertlora.serving.limits import Limits
from bertlora.serving.service import Service

LOG = logging.getLogger("bertlora.serving")
MOST = 65535  # of a port
# Connections that may wait to be taken, and the pause after the system had no file left for one.
BACKLOG, TAKE_AGAIN_S = 2048, 1.0
END_S = 30  # for answers to what was accepted, after the signal to end; Kubernetes kills after as long
LAST_ASKED_S = 0.5  # after the signal: a request on its way gets an answer, and is not cut off
IDLE_S = 75  # a connection stays open for the next request: longer than a load balancer keeps it


def listening(host: str, port: int) -> socket.socket:
    """Returns a socket that takes connections; with port 0 on a free port.

    Raises:
        InputError: the host or the port cannot be used.
    """
    if port > MOST:
        raise InputError(f"--port {port}: expected a number up to {MOST}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise InputError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror}); give another"
        ) from error


def address(listener: socket.socket) -> str:
    """Returns the URL of a socket that takes connections."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def settings(app: Any, limits: Limits) -> uvicorn.Config:
    """Returns the settings of uvicorn for an application, with limits for connections."""
    return uvicorn.Config(
        app,
        http=partial(Connection, limits),  # type: ignore[arg-type]  # it makes one for each connection
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=END_S,
    )


def run_server(app: Any, service: Service, listener: socket.socket) -> None:
    """Serves until SIGINT or SIGTERM comes. Then it takes nothing new, answers what it accepted, and returns.

    A second SIGINT ends it at once.

    Args:
        app: the ASGI application.
        service: what the application asks.
        listener: where connections come in; it is closed at the end.
    """
    server = _Server(settings(app, Limits()), service)
    try:
        server.run(sockets=[listener])
    finally:
        listener.close()
        if not server.force_exit:
            service.close()


class Accepting:
    """Takes the connections of a socket that listens, on the event loop that runs: in each turn all that wait.

    uvloop's own server takes one in a turn. A turn that refuses hundreds of requests takes a second, so new clients,
    such as an operator's, would wait behind each other for minutes.

    Args:
        listener: the socket.
        connection: makes the protocol of a connection.
    """

    def __init__(self, listener: socket.socket, connection: Callable[[], asyncio.Protocol]) -> None:
        self._listener, self._connection = listener, connection
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[Any]] = set()  # the loop does not keep them alive
        listener.setblocking(False)
        self._start()

    def close(self) -> None:
        """Takes no more connections."""
        self._loop.remove_reader(self._listener)
        if self._again is not None:
            self._again.cancel()

    def _start(self) -> None:
        self._loop.add_reader(self._listener, self._take)

    def _take(self) -> None:
        try:
            for _ in range(BACKLOG):
                client, _ = self._listener.accept()
                task = self._loop.create_task(self._open(client))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)
        except (BlockingIOError, ConnectionAbortedError):  # no other waits, or it has gone
            pass
        except OSError as error:
            LOG.error("connections wait, since none can be taken: %s", error.strerror)
            self.close()
            self._again = self._loop.call_later(TAKE_AGAIN_S, self._start)

    async def _open(self, client: socket.socket) -> None:
        await self._loop.connect_accepted_socket(self._connection, client)


class _Server(uvicorn.Server):
    """uvicorn's server, which tells the service when the end begins, and whose end is no fault."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._accepting: list[Accepting] = []

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins the end."""
        self._service.refuse()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to take connections."""
        await super().startup(sockets=[])
        self._accepting = [Accepting(listener, self._connection) for listener in sockets or ()]

    def _connection(self) -> asyncio.Protocol:
        """Returns the protocol of a new connection, as uvicorn makes it."""
        state = {"server_state": self.server_state, "app_state": self.lifespan.state}
        return self.config.http_protocol_class(config=self.config, **state)  # type: ignore[call-arg]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends. uvicorn closes idle connections at once, and a client that was just asking would lose its request."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LAST_ASKED_S
        while self.server_state.connections and loop.time() < until and not self.force_exit:
            await asyncio.sleep(0.02)
        for accepting in self._accepting:
            accepting.close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Inside, signals begin the end. uvicorn would raise them again afterwards, as if the process had failed."""
        before = {sig: signal.signal(sig, self.handle_exit) for sig in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)
