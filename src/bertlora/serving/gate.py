"""What every request passes first: its id, its host and origin, the key, the size of its body.

It also sees whether the client still waits.
"""

import asyncio
import hmac
import logging
import re
import traceback
import uuid
from collections.abc import Callable
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bertlora.serving.faults import Faults
from bertlora.serving.hosts import Hosts, check_origin
from bertlora.serving.limits import Limits
from bertlora.serving.refused import RequestError, Why

logger = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_WITH_BODY = ("POST", "PUT", "PATCH", "DELETE")
# What watches the server and the page itself need no key.
OPEN_PATHS = ("/", "/health", "/v2/health/live", "/v2/health/ready")
OPEN_BELOW = "/playground/"
LINGER_S = 2.0


class Gate:
    """ASGI middleware.

    `scope["state"]["request_id"]` has the id of the request, which the answer repeats. HEAD is answered as GET; the
    server leaves the body out. A body is read up to the limit before the application starts. If the client goes away,
    the application is cancelled.

    Args:
        app: the application.
        key: what clients must send as `Authorization: Bearer KEY`; empty lets all in.
        limits: the largest request.
        faults: answers errors.
        hosts: the names of this server; None answers under any.
    """

    def __init__(self, app: ASGIApp, *, key: str, limits: Limits, faults: Faults, hosts: Hosts | None = None) -> None:
        self.app, self.limits, self.faults, self.hosts = app, limits, faults, hosts
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through, or answers it with an error."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        number = request_id(headers.get(REQUEST_ID, ""))
        scope.setdefault("state", {})["request_id"] = number
        answered = _Answer(send, number)
        try:
            self._check(scope, headers)
            if scope["method"] in _WITH_BODY:
                await self._with_body(scope, headers, receive, answered)
            elif scope["method"] == "HEAD":
                await self._head(scope, receive, answered)
            else:
                await self.app(scope, receive, answered)
        except (RequestError, HTTPException) as error:
            await self._refuse(scope, receive, answered, error)
        except Exception as error:
            # The message of an exception can have a text in it, so it stays out of the log.
            place = traceback.extract_tb(error.__traceback__)[-1]
            logger.error("request %s: %s at %s:%s", number, type(error).__name__, place.filename, place.lineno)
            if answered.started:
                raise RuntimeError("an answer broke off") from None
            await self._refuse(scope, receive, answered, error)

    async def _refuse(self, scope: Scope, receive: Receive, answered: "_Answer", error: Exception) -> None:
        """Answers with an error, and closes the connection."""
        response = self.faults.answer(scope["path"], error)
        # The rest of the body would be taken for the next request.
        response.headers["connection"] = "close"
        await answered({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await answered({"type": "http.response.body", "body": response.body, "more_body": True})
        if isinstance(error, RequestError) and error.why is Why.TOO_LARGE:
            await _linger(receive)
        await answered({"type": "http.response.body", "body": b""})

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Raises RequestError or HTTPException if the sender of a request may not ask."""
        if self.hosts is not None:
            self.hosts.check(headers)
        if scope["method"] in _WITH_BODY:
            check_origin(headers)
        self._check_key(scope["path"], headers)

    def _check_key(self, path: str, headers: Headers) -> None:
        if not self._key or path in OPEN_PATHS or path.startswith(OPEN_BELOW):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(), self._key)
        if scheme.lower() != "bearer" or not right:
            raise RequestError(Why.NO_KEY, "authorization: expected 'Bearer KEY' with the key of this server")

    async def _head(self, scope: Scope, receive: Receive, answered: "_Answer") -> None:
        """Answers HEAD as GET. In its own scope the server still finds HEAD, and leaves the body out."""
        as_get = {**scope, "method": "GET"}
        await self.app(as_get, receive, answered)
        scope["route"] = as_get.get("route")  # the log reads it

    async def _with_body(self, scope: Scope, headers: Headers, receive: Receive, answered: "_Answer") -> None:
        try:
            async with asyncio.timeout(self.limits.body_s):
                body = await self._body(headers, receive)
        except TimeoutError:
            raise HTTPException(408, f"the body did not come within {self.limits.body_s:g} seconds") from None
        if body is None:
            return
        task, gone = asyncio.current_task(), asyncio.Event()
        assert task is not None
        watch = asyncio.create_task(_cancel_when_gone(receive, task, gone, lambda: answered.complete))
        try:
            await self.app(scope, _replay(body, gone), answered)
        except asyncio.CancelledError:
            if not gone.is_set():
                raise
            task.uncancel()
        finally:
            watch.cancel()

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """Returns the body; None if the client went away before it was whole."""
        limit = self.limits.body_bytes
        too_large = RequestError(Why.TOO_LARGE, f"the body is too large; expected at most {limit:,} bytes")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > limit:
            raise too_large
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size, more = size + len(parts[-1]), message.get("more_body", False)
            if size > limit:
                raise too_large
        return b"".join(parts)


class _Answer:
    """Sends an answer with the id of its request, and knows how far it is."""

    def __init__(self, send: Send, number: str) -> None:
        self._send, self._number = send, number
        self.started = self.complete = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            MutableHeaders(scope=message)[REQUEST_ID] = self._number
        elif message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)
        await self._send(message)


async def _linger(receive: Receive) -> None:
    """Drops what a client still sends, for a while: if the connection closed meanwhile, it would not see the answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while (await receive()).get("more_body"):
                pass


def request_id(given: str) -> str:
    """Returns the id that the client gave, if it is sane, or a new one."""
    return given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex


def _replay(body: bytes, gone: asyncio.Event) -> Receive:
    """Returns a `receive` that gives a whole body, and then waits for the client to go away."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    return receive


async def _cancel_when_gone(
    receive: Receive, task: "asyncio.Task[None]", gone: asyncio.Event, complete: Callable[[], bool]
) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()
    if not complete():
        task.cancel()
