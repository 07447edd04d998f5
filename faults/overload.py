"""Asks the server for twice what it can do, while adapters are replaced and clients go away.

    python faults/overload.py                  ten minutes
    python faults/overload.py --seconds 20

Requests of all contracts come at random times at twice the measured rate, whether or not others are answered. Each
answer must be that of its texts; a refused request must be told when to come again.
"""

import argparse
import json
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request as UrlRequest
from urllib.request import urlopen

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from http_load import Asked, Server, serving
from versions import NAMES, Known

KEY = "a-key-of-the-faults"
TEXTS, DISTINCT = 400, 1500  # texts, and requests that are different
QUEUE = 512  # texts that may wait
CLIENTS = 700  # connections: more than requests that can wait
# Parts of the mix in a hundred: explanations, and requests for several adapters.
EXPLAINED, MANY = 0.5, 5
# Memory may grow by this share after the first minute, or third of a short run.
GROWTH = 0.10
# An accepted request must be answered within this.
PATIENCE_S = 60.0
SETTLED_S = 10.0


@dataclass(frozen=True)
class Asking:
    """A request, and what its answer must say."""

    data: bytes
    path: str
    adapters: tuple[str, ...]
    texts: tuple[int, ...]


@dataclass
class Watched:
    """What was seen of the server while it was asked."""

    mib: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    swaps: int = 0
    gone: int = 0
    faults: list[str] = field(default_factory=list)


class Load:
    """The requests to a server, and what watches it meanwhile."""

    def __init__(self, server: Server, known: Known, seed: int = 0) -> None:
        self.server, self.known, self.draw = server, known, random.Random(seed)
        self.requests = [self._drawn() for _ in range(DISTINCT)]

    def _drawn(self) -> Asking:
        """Returns a request of one of the contracts."""
        draw, name = self.draw, self.draw.choice(NAMES)
        texts = tuple(draw.sample(range(len(self.known.texts)), draw.choice((1, 1, 1, 2, 3, 8))))
        said = [self.known.texts[i] for i in texts]
        tensor = {"name": "text", "shape": [len(said)], "datatype": "BYTES", "data": said}
        own, names = {"texts": said}, tuple(draw.sample(NAMES, 2))
        kind = draw.random() * 100
        if kind < EXPLAINED:
            explained = {"texts": said[:1], "explain": True}
            return self._asking(f"/v1/adapters/{name}/predict", explained, (name,), texts[:1])
        if kind < EXPLAINED + MANY:
            return self._asking("/v1/predict", own | {"adapters": names}, names, texts)
        path, body = draw.choice(
            [
                (f"/v1/adapters/{name}/predict", own),
                (f"/predict?adapter={name}", {"inputs": [[text] for text in said]}),
                ("/classify", {"model": name, "input": said}),
                (f"/v2/models/{name}/infer", {"inputs": [tensor]}),
            ]
        )
        return self._asking(path, body, (name,), texts)

    def _asking(self, path: str, body: Any, adapters: tuple[str, ...], texts: tuple[int, ...]) -> Asking:
        return Asking(self.server.request(path, body), path, adapters, texts)

    def capacity(self, seconds: float) -> float:
        """Returns the requests a second that it answers to clients that wait."""
        pace, count = 0.0, 50
        while True:
            asked = self.server.closed([one.data for one in self.draw.choices(self.requests, k=count)], 32)
            pace = count / asked.took
            if asked.took > seconds / 2:
                return pace
            count = max(2 * count, int(pace * seconds))

    def open(self, rate: float, seconds: float) -> tuple[list[Asking], Asked, Watched]:
        """Asks at a rate, and watches the server meanwhile."""
        gaps = np.random.default_rng(0).exponential(1 / rate, size=int(rate * seconds))
        asked, watched, ended = self.draw.choices(self.requests, k=len(gaps)), Watched(), threading.Event()
        tasks = (self._look, self._swap, self._leave)
        threads = [threading.Thread(target=_again, args=(task, watched, ended)) for task in tasks]
        for thread in threads:
            thread.start()
        found = self.server.open([one.data for one in asked], np.cumsum(gaps).tolist(), CLIENTS)
        ended.set()
        for thread in threads:
            thread.join()
        return asked, found, watched

    def _look(self, watched: Watched) -> float:
        """Reads memory and queue. Returns after how many seconds to do so again."""
        watched.mib.append(self.server.mib())
        samples = dict(line.rsplit(" ", 1) for line in self._get("/metrics").splitlines() if line[0] != "#")
        watched.waiting.append(float(samples["bertlora_accepted_texts"]))
        return 1.0

    def _swap(self, watched: Watched) -> float:
        """Replaces an adapter by its other version."""
        name, version = NAMES[watched.swaps % len(NAMES)], (watched.swaps // len(NAMES) + 1) % 2
        self._get(f"/v1/adapters/{name}", {"path": f"{name}{version}"}, "PUT")
        watched.swaps += 1
        return 0.5

    def _leave(self, watched: Watched) -> float:
        """Sends a request, and goes away before it is answered."""
        place = urlsplit(self.server.url)
        with socket.create_connection((place.hostname, place.port), 60) as connection:
            connection.sendall(random.choice(self.requests).data)
            time.sleep(0.05 * random.random())
        watched.gone += 1
        return 0.1

    def _get(self, path: str, body: Any = None, method: str = "GET") -> str:
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        with urlopen(UrlRequest(self.server.url + path, data, headers, method=method), timeout=PATIENCE_S) as answer:
            return str(answer.read().decode())

    def latency(self) -> float:
        """Returns the median seconds of a few requests, one after the other."""
        one = next(one for one in self.requests if len(one.texts) == 1 and "infer" in one.path)
        return statistics.median(self.server.closed([one.data] * 9, 1).seconds)

    def settle(self, usual: float) -> float:
        """Returns after how many seconds the latency is at most twice the usual again."""
        began = time.perf_counter()
        while self.latency() > 2 * usual + 0.01 and time.perf_counter() - began < 2 * SETTLED_S:
            pass
        return time.perf_counter() - began


def _again(task: Callable[[Watched], float], watched: Watched, ended: threading.Event) -> None:
    """Does a task again and again until the end. What it raises is noted."""
    pause = 0.0
    while not ended.wait(pause):
        try:
            pause = task(watched)
        except Exception as error:
            watched.faults.append(f"{task.__name__}: {error}")
            pause = 1.0


def answers_of(body: Any, path: str) -> list[tuple[list[str], list[list[float]]]]:
    """Returns the labels and the probabilities (B, K) that an answer has, for each adapter."""
    if path.startswith("/v2"):
        out = {one["name"]: one["data"] for one in body["outputs"]}
        return [(out["labels"], np.reshape(out["probabilities"], (-1, len(out["labels"]))).tolist())]
    if path == "/classify":
        start = body["data"][0]["label"].partition("-")[0]
        rows = [one["probs"] for one in body["data"]]
        return [([f"{start}-{k}" for k in range(len(rows[0]))], rows)]
    if path.startswith("/predict"):
        lines = [{one["label"]: one["score"] for one in row} for row in body]
    else:
        parts = body.get("adapters", [body])
        if len(parts) > 1:
            return [found for part in parts for found in answers_of(part, path)]
        lines = [line["probabilities"] for line in parts[0]["predictions"]]
    labels = list(lines[0])
    return [(labels, [[line.get(label, np.nan) for label in labels] for line in lines])]


def wrong(known: Known, asking: Asking, body: bytes) -> bool:
    """Returns whether an answer is another than its adapters give to its texts."""
    said = json.loads(body)
    found = answers_of(said, asking.path)
    if len(found) != len(asking.adapters):
        return True
    pairs = zip(asking.adapters, found, strict=True)
    if any(known.wrong(name, asking.texts, labels, rows) for name, (labels, rows) in pairs):
        return True
    explained = (said.get("predictions") or [{}])[0].get("explanation") if isinstance(said, dict) else None
    if explained is None:
        return False
    # The same version explains and answers, and explains the words of the text.
    words = "".join(word["word"] for word in explained["words"])
    same = explained["label"] == said["predictions"][0]["label"]
    return not same or words != known.texts[asking.texts[0]].replace(" ", "")


def overload(folder: Path, seconds: float, texts: int = TEXTS) -> tuple[dict[str, Any], list[str]]:
    """Returns the figures, and which promises were broken."""
    known = Known.make(folder, texts)
    runs = [f"{name}={known.folder / f'{name}0'}" for name in NAMES]
    words = ["serve", *runs, "--port", "0", "--json", "--quiet", "--precision", "fp32", "--queue", str(QUEUE)]
    words += ["--batch-ms", "50", "--load-from", str(known.folder)]
    with serving(["-m", "bertlora", *words], folder / "log", KEY) as server:
        load = Load(server, known)
        pace = load.capacity(min(20.0, seconds / 10))
        usual = load.latency()
        asked, found, watched = load.open(2 * pace, seconds)
        settled = load.settle(usual)
    return figures(known, asked, found, watched, settled, pace, usual)


def figures(
    known: Known, asked: list[Asking], found: Asked, watched: Watched, settled: float, pace: float, usual: float
) -> tuple[dict[str, Any], list[str]]:
    """Returns the figures, and which promises were broken."""
    answered = [i for i, status in enumerate(found.statuses) if status == 200]
    refused = [i for i, status in enumerate(found.statuses) if status == 429]
    crossed = [i for i in answered if wrong(known, asked[i], found.bodies[i])]
    print(*((asked[i], found.bodies[i]) for i in crossed[:3]), sep="\n", file=sys.stderr)
    first = min(60, len(watched.mib) // 3 + 1)
    level, most = max(watched.mib[:first]), max(watched.mib)
    times = np.sort([found.seconds[i] for i in answered])
    result = {
        "requests": len(asked),
        "requests/s it can answer": round(pace, 1),
        "requests/s asked": round(len(asked) / found.took, 1),
        "answered": len(answered),
        "refused with 429 and Retry-After": sum(found.waits[i] is not None for i in refused),
        "other statuses": len(asked) - len(answered) - len(refused),
        "wrong or crossed answers": len(crossed),
        "clients that went away": watched.gone,
        "adapters replaced": watched.swaps,
        "most texts waiting": int(max(watched.waiting)),
        "most MiB in the first minute": round(level),
        "most MiB in all": round(most),
        "median seconds before": round(usual, 3),
        "median seconds of an accepted request": round(float(np.median(times)), 2),
        "slowest accepted request, s": round(float(times[-1]), 2),
        "seconds until the latency is usual again": round(settled, 2),
    }
    promises = {
        "each answer is right": not crossed,
        "each request is answered or refused": not result["other statuses"],
        "a refusal says when to come again": all(found.waits[i] is not None for i in refused),
        "it was overloaded": bool(refused),
        "memory is bounded": most <= (1 + GROWTH) * level,
        "the queue is bounded": max(watched.waiting) <= QUEUE,
        "nothing waits for long": float(times[-1]) < PATIENCE_S,
        "latency is soon usual again": settled < SETTLED_S,
        f"metrics and swaps go on: {watched.faults[:3]}": not watched.faults and watched.swaps > 1,
    }
    return result, [promise for promise, held in promises.items() if not held]


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found, broken = overload(Path(folder), a.seconds)
    print(*broken, sep="\n", file=sys.stderr)
    print(json.dumps(found))
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
