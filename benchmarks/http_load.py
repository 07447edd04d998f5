"""A light generator of load over HTTP: it shares the cores with the server, so it does as little as it can.

Bodies are bytes that were made before, answers are read by their Content-Length, and nothing is parsed while it runs.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from contest import resident_mib


@dataclass
class Asked:
    """What came of some requests.

    Attributes:
        seconds: (N,) from the time at which a request was due to its answer.
        statuses: (N,) of HTTP; 0 if the connection broke.
        bodies: (N,) the answers.
        waits: (N,) seconds after which the server wants to be asked again; None if it did not say.
        took: seconds of the whole.
        cpu_s: of the server.
    """

    seconds: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    waits: list[int | None] = field(default_factory=list)
    took: float = 0.0
    cpu_s: float = 0.0

    @property
    def faults(self) -> int:
        """Requests that were not answered by status 200 or 201."""
        return sum(status not in (200, 201) for status in self.statuses)


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        url: where.
        pid: its process.
        key: its API key.
    """

    url: str
    pid: int
    key: str = ""

    def request(self, path: str, body: Any, method: str = "POST") -> bytes:
        """Returns the bytes of a request."""
        data, host = json.dumps(body).encode(), urlsplit(self.url).netloc
        lines = [f"{method} {path} HTTP/1.1", f"host: {host}", "content-type: application/json"]
        lines += [f"authorization: Bearer {self.key}", f"content-length: {len(data)}", "", ""]
        return "\r\n".join(lines).encode() + data

    def cpu_s(self) -> float:
        """Returns the processor time that it used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def mib(self) -> float:
        """Returns the memory that it holds."""
        return resident_mib(self.pid)

    def closed(self, requests: Sequence[bytes], clients: int) -> Asked:
        """Sends requests from N clients. Each waits for its answer before it sends the next."""
        return asyncio.run(self._all(requests, [0.0] * len(requests), clients))

    def open(self, requests: Sequence[bytes], due: Sequence[float], clients: int = 256) -> Asked:
        """Sends each request when it is due, in seconds from now, whether or not others are answered."""
        return asyncio.run(self._all(requests, due, clients))

    async def _all(self, requests: Sequence[bytes], due: Sequence[float], clients: int) -> Asked:
        asked, place = Asked(), urlsplit(self.url)
        waiting = iter(range(len(requests)))
        results: list[tuple[float, int, bytes, int | None] | None] = [None] * len(requests)

        async def client() -> None:
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            for i in waiting:
                # A request without a time is due when its client is free.
                await asyncio.sleep(max(0.0, began + due[i] - time.perf_counter()))
                start = began + due[i] if due[i] else time.perf_counter()
                try:
                    writer.write(requests[i])
                    status, head, body = await _answer(reader)
                except (OSError, EOFError):
                    status, head, body = 0, b"connection: close", b""
                results[i] = time.perf_counter() - start, status, body, _number(head, b"retry-after:")
                if b"connection: close" in head:
                    writer.close()
                    reader, writer = await asyncio.open_connection(place.hostname, place.port)
            writer.close()

        began, cpu = time.perf_counter(), self.cpu_s()
        await asyncio.gather(*(client() for _ in range(min(clients, len(requests)))))
        asked.took, asked.cpu_s = time.perf_counter() - began, self.cpu_s() - cpu
        found = [result for result in results if result is not None]
        asked.seconds, asked.statuses, asked.bodies, asked.waits = (list(column) for column in zip(*found, strict=True))
        return asked


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """Returns the status, the head in small letters, and the body of an answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    body = await reader.readexactly(_number(head, b"content-length:") or 0)
    return int(head.split(maxsplit=2)[1]), head, body


def _number(head: bytes, name: bytes) -> int | None:
    """Returns a whole number in a head; None if it is not there."""
    found = head.partition(name)[2].split(maxsplit=1)
    return int(found[0]) if found else None


@contextmanager
def serving(command: Sequence[str], log: Path, key: str = "") -> Iterator[Server]:
    """Starts a server, and ends it. Its first line on stdout is JSON with `url`."""
    with log.open("ab") as errors:
        environment = os.environ | {"BERTLORA_API_KEY": key}
        process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the server did not start:\n{log.read_text()[-2000:]}")
        try:
            yield Server(json.loads(line)["url"], process.pid, key)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            process.stdout.close()
