"""Runs for tests of the server, and requests to an application without a socket."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from helpers import adapted_of, save_tiny_run

from bertlora.confidence.calibration import Calibration
from bertlora.confidence.learned import Learned
from bertlora.confidence.spread import Spread
from bertlora.confidence.thresholds import Thresholds
from bertlora.run.loaded import Run

# Name → labels, task, whether it reads pairs.
ADAPTERS: dict[str, tuple[list[str], str, bool]] = {
    "reviews": (["negative", "positive"], "classification", False),
    "topics": (["war", "drama", "comedy"], "multilabel", False),
    "stars": (["stars"], "regression", False),
    "entailed": (["no", "maybe", "yes"], "classification", True),
}


def save_runs(folder: Path, tiny: Callable[[str], Path]) -> dict[str, Run]:
    """Writes runs of every task that were not trained, and loads them; their weights are random."""
    rng = np.random.default_rng(0)
    for name, (labels, task, pairs) in ADAPTERS.items():
        adapted = adapted_of(tiny("bert"), labels, pairs=pairs, task=task)
        save_tiny_run(folder / name, adapted, _learned(labels, task, rng))
    return {name: Run.load(folder / name) for name in ADAPTERS}


def _learned(labels: list[str], task: str, rng: np.random.Generator) -> Learned:
    """Returns what 200 validation rows might have taught."""
    if task == "regression":
        return Spread.of(0.5, 2.0, rng.normal(size=(200, 1)), rng.normal(size=200))
    y_true = np.eye(len(labels))[rng.integers(len(labels), size=200)]
    logits = 0.4 * rng.gumbel(size=y_true.shape) + y_true
    return Thresholds.fit(logits, y_true > 0) if task == "multilabel" else Calibration.fit(logits, y_true.argmax(1))


@dataclass(frozen=True)
class Reply:
    """An answer of HTTP."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """The value of the body."""
        return json.loads(self.content)


def scope_of(method: str, url: str, headers: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
    """Returns what an ASGI application gets of a request, without its body. The URL may be of any characters."""
    path, _, query = url.partition("?")
    scope: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method}
    scope |= {"scheme": "http", "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)}
    scope |= {"path": path, "raw_path": path.encode(errors="replace"), "headers": list(headers)}
    return scope | {"query_string": query.encode("latin-1", "replace")}


def ask(
    app: Any, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, ends: bool = True
) -> Reply:
    """Sends a request to an ASGI application. A body that is not bytes is sent as JSON; it may never end."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    given = {"content-type": "application/json", "content-length": str(len(content))} | dict(headers or {})
    scope = scope_of(method, path, [(name.lower().encode(), value.encode()) for name, value in given.items()])
    sent: list[Any] = []

    async def run() -> None:
        parts = [content[i : i + 65536] for i in range(0, len(content), 65536)] or [b""]

        async def receive() -> Any:
            if not parts:
                await asyncio.sleep(3600)
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts) or not ends}

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)

    asyncio.run(run())
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Reply(sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:]))
