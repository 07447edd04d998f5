"""A connection whose client may be slow, gone or hostile: it gets a bounded time, and a bounded head.

uvicorn bounds only how long a connection may be idle between two requests. Its parser takes headers without end.
"""

import asyncio
import logging
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bertlora.serving.limits import Limits

LOG = logging.getLogger("bertlora.serving")
HEAD = "its first line and headers"


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with limits. What is over a limit is answered with one line where that is possible.

    Args:
        limits: `head_s`, `body_s`, `answer_s`, `head_bytes` and `connections` are kept here.
        others: what uvicorn gives.
    """

    def __init__(self, limits: Limits, **others: Any) -> None:
        super().__init__(**others)
        self._limits = limits
        self._reading: asyncio.TimerHandle | None = None  # closes the connection if a request stays unfinished
        self._writing: asyncio.TimerHandle | None = None  # closes it if nobody reads an answer
        self._raw = 0  # bytes since the last that belonged to a body or ended a head

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Takes a connection, unless there are too many."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # whatever waits to be read by the client counts
        if len(self.connections) > self._limits.connections:
            self._turn_away(HTTPStatus.SERVICE_UNAVAILABLE, "the server has too many connections; try again later")
        else:
            self._expect(self._limits.head_s, HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the clocks."""
        self._expect(None)
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads. Chunks without content and headers behind a body are counted as a head is."""
        if self.transport.is_closing():
            return
        if self._reading is None and (self.cycle is None or self.cycle.response_complete):
            self._expect(self._limits.head_s, HEAD)
        self._raw += len(data)
        super().data_received(data)
        if self._raw > self._limits.head_bytes and not self.transport.is_closing():
            most = f"expected at most {self._limits.head_bytes:,} bytes"
            self._turn_away(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the headers are too large; {most}")

    def on_message_begin(self) -> None:
        """A request begins."""
        self._expect(self._limits.head_s, HEAD)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its head is whole. The gate has the time for a body too, and says so better: it comes first."""
        self._raw = 0
        self._expect(self._limits.body_s + self._limits.head_s, "all of its body")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of its body came."""
        self._raw = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """It is whole. How long its answer takes is no matter of the client."""
        self._raw = 0
        self._expect(None)
        super().on_message_complete()

    def pause_writing(self) -> None:
        """An answer waits for the client to read."""
        self._writing = self._writing or self.loop.call_later(self._limits.answer_s, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client read all there is."""
        if self._writing is not None:
            self._writing.cancel()
        self._writing = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP; uvicorn's own message does not say what was expected."""
        self._turn_away(HTTPStatus.BAD_REQUEST, "the request cannot be read; expected HTTP/1.1")

    def _expect(self, seconds: float | None, what: str = "") -> None:
        """Sets the clock for what must come next; None stops it."""
        if self._reading is not None:
            self._reading.cancel()
        self._reading = None if seconds is None else self.loop.call_later(seconds, self._late, seconds, what)

    def _late(self, seconds: float, what: str) -> None:
        line = f"the request did not come in time; expected {what} within {seconds:g} seconds"
        self._turn_away(HTTPStatus.REQUEST_TIMEOUT, line)

    def _turn_away(self, status: HTTPStatus, line: str) -> None:
        """Closes the connection; says why, unless an answer has begun."""
        LOG.warning("a connection was closed: %s", line)
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()
            return
        body = line.encode("ascii")
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode("ascii") + b"connection: close\r\n\r\n" + body)
        self.transport.close()
