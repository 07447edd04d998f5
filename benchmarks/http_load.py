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
        statuses: (N,) of HTTP.
        bodies: (N,) the answers.
        took: seconds of the whole.
        cpu_s: of the server.
    """

    seconds: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    took: float = 0.0
    cpu_s: float = 0.0

    @property
    def faults(self) -> int:
        """Requests that were not answered by status 200 or 201."""
        return sum(status >= 300 for status in self.statuses)


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
        results: list[tuple[float, int, bytes] | None] = [None] * len(requests)

        async def client() -> None:
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            for i in waiting:
                # A request without a time is due when its client is free.
                await asyncio.sleep(max(0.0, began + due[i] - time.perf_counter()))
                start = began + due[i] if due[i] else time.perf_counter()
                writer.write(requests[i])
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length:")[2].split(maxsplit=1)[0]
                body = await reader.readexactly(int(length))
                results[i] = time.perf_counter() - start, int(head.split(maxsplit=2)[1]), body
                if b"connection: close" in head.lower():
                    writer.close()
                    reader, writer = await asyncio.open_connection(place.hostname, place.port)
            writer.close()

        began, cpu = time.perf_counter(), self.cpu_s()
        await asyncio.gather(*(client() for _ in range(min(clients, len(requests)))))
        asked.took, asked.cpu_s = time.perf_counter() - began, self.cpu_s() - cpu
        found = [result for result in results if result is not None]
        asked.seconds, asked.statuses, asked.bodies = (list(column) for column in zip(*found, strict=True))
        return asked


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
