"""Requests to a server, sent again while it is busy or gone. The connection is kept."""

import json
import random
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from threading import local
from typing import Any
from urllib.parse import urlsplit

from bertlora.errors import InputError, ServerError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
TOO_LARGE, BUSY = 413, (429, 503)
STRANGE = "did not answer as a server of bertlora does; check the URL"
# The request itself is at fault: it fails again, however often it is sent.
BAD_INPUT = (400, 404, 413, 415, 422)


class TooLargeError(InputError):
    """A request that has too many texts, or a text that is too long."""


class Connection:
    """Asks a server, over a kept connection for each thread. The arguments are those of `Client`.

    Attributes:
        url: of the server.
    """

    def __init__(self, url: str, key: str, timeout_s: float, retries: int) -> None:
        self.url = url.rstrip("/")
        self._parts = urlsplit(self.url)
        try:
            known = self._parts.scheme in ("http", "https") and self._parts.hostname and self._parts.port != 0
        except ValueError:
            known = False
        if not known or self._parts.query or self._parts.username:
            raise InputError(f"url: got '{url}', expected http://HOST:PORT or https://HOST:PORT")
        if timeout_s <= 0 or retries < 0:
            raise InputError(
                f"timeout_s: expected above 0, got {timeout_s}; retries: expected 0 or more, got {retries}"
            )
        if not (key.isascii() and key.isprintable()):
            raise InputError("key: has a character that no header can hold; expected visible ASCII")
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        self._headers |= {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout_s, self._retries = timeout_s, retries
        self._kept = local()
        self._reached = False

    def close(self) -> None:
        """Closes the connection of this thread."""
        if (connection := getattr(self._kept, "connection", None)) is not None:
            connection.close()

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Returns the server's answer; asks again if it is busy or gone.

        Args:
            method: of HTTP.
            path: below the URL.
            body: is sent as JSON; None sends nothing.

        Raises:
            InputError: the server refuses the request; `TooLargeError` if it is too large.
            ServerError: the server cannot be reached, does not answer in time, or failed.
        """
        data = None if body is None else json.dumps(body).encode()
        deadline = time.monotonic() + self._timeout_s
        for attempt in range(self._retries + 1):
            last, pause = "", FIRST_PAUSE_S * 2**attempt * random.uniform(0.5, 1)
            try:
                status, headers, answer = self._once(method, path, data, deadline)
                if status not in BUSY:
                    return self._understood(status, answer)
                last = f"status {status}: {_message(answer)}"
                pause = _retry_after(headers.get("Retry-After")) or min(pause, LONGEST_PAUSE_S)
            except TimeoutError:
                raise ServerError(f"{self.url}: gave no answer within {self._timeout_s:g} s") from None
            except (ConnectionError, HTTPException) as error:
                if not self._reached:  # there may be no server at all, and the user waits
                    raise ServerError(f"{self.url}: cannot be reached ({error}); is it started?") from error
                last, pause = str(error) or type(error).__name__, pause if attempt else 0.0
            except OSError as error:
                raise ServerError(f"{self.url}: cannot be reached ({error.strerror or error})") from error
            if attempt == self._retries or time.monotonic() + pause > deadline:
                break
            time.sleep(pause)
        raise ServerError(f"{self.url}: {last}; gave up after attempt {attempt + 1}")

    def _once(self, method: str, path: str, data: bytes | None, deadline: float) -> tuple[int, Any, bytes]:
        """Sends a request, and returns status, headers and body of the answer."""
        connection: HTTPConnection = getattr(self._kept, "connection", None) or self._connect()
        self._kept.connection = connection
        try:
            _limit(connection, deadline)
            connection.request(method, self._parts.path + path, data, self._headers)
            response = connection.getresponse()
            body = b"".join(_parts(connection, response, deadline))
            self._reached = True
        except BaseException:
            connection.close()  # the next request must not read the rest of this answer
            raise
        return response.status, response.headers, body

    def _connect(self) -> HTTPConnection:
        kind = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        return kind(str(self._parts.hostname), self._parts.port)

    def _understood(self, status: int, answer: bytes) -> dict[str, Any]:
        """Returns the object of a good answer, and raises the error of another one."""
        if status == TOO_LARGE:
            raise TooLargeError(f"{self.url}: {_message(answer)}")
        if status in BAD_INPUT:
            raise InputError(f"{self.url}: {_message(answer)}")
        if status >= 300:
            raise ServerError(f"{self.url}: status {status}: {_message(answer)}")
        try:
            found = json.loads(answer)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ServerError(f"{self.url}: {STRANGE}")
        return found


def _limit(connection: HTTPConnection, deadline: float) -> None:
    """Lets the next step on a connection take until the deadline."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.timeout = left
    if connection.sock is not None:
        connection.sock.settimeout(left)


def _parts(connection: HTTPConnection, response: HTTPResponse, deadline: float) -> Iterator[bytes]:
    """Yields the body of an answer in parts."""
    while part := response.read1(2**16):
        yield part
        _limit(connection, deadline)
    if response.length:  # what `read` checks, and `read1` does not
        raise IncompleteRead(b"", response.length)
    response.close()


def _message(answer: bytes) -> str:
    """Returns what the server says is wrong."""
    try:
        return str(json.loads(answer)["error"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return " ".join(answer[:200].decode(errors="replace").split()) or "no reason given"


def _retry_after(given: str | None) -> float:
    """Returns how many seconds the server asks to wait; 0 if it does not say."""
    if not given:
        return 0.0
    try:
        return max(0.0, float(given) if given.isdecimal() else parsedate_to_datetime(given).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0
