#!/usr/bin/env python3
"""Measures `bertlora serve`: texts a second, times of answers, loading, and right answers while adapters are swapped.

    python benchmarks/serving.py sst2_train.parquet --rows 2000 --seconds 30
    python benchmarks/serving.py sst2_train.parquet --only swaps --rows 10000

The adapters are random: ranks 4 to 16 on every linear layer, 2 to 7 labels; see `mixed.py`. Of several adapters, number
n gets requests in proportion to 1 / n. Requests have --batch texts each. Parts:

- throughput: --clients clients, which wait for their answers. One adapter is compared with `Run.predict` in a process
  of its own, and with a FastAPI handler that calls transformers' pipeline; 64 adapters are compared with one.
- latency: requests that come at random times at fixed rates, for 1, 8 and 64 adapters; times count from when a request
  was due.
- loading: time and memory of 64 finished runs. At first the machine has not seen them, and replays their certificates;
  later it has. And 1,000 runs on disk with 100 in memory.
- swaps: --rows requests, while another client replaces adapters without a pause. Each answer is compared with the one
  of its adapter, in the version that its labels name.

CPU time is the server's only. Prints Markdown tables.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
import torch
from contest import Result, machine, measured, table
from http_load import Asked, Server, serving
from mixed import LABELS, RANKS, held, saved, zipf

from bertlora.confidence.calibration import Calibration
from bertlora.model.adapted import Adapted
from bertlora.model.base import find_base
from bertlora.model.build import build_classifier
from bertlora.recipe import Recipe
from bertlora.run.folder import save_run
from bertlora.run.loaded import Run
from bertlora.serving.fleet import Fleet

PARTS = ("throughput", "latency", "loading", "swaps")
MANY, KEY = 64, "a-key-of-the-benchmark"
CHECKED = 50  # texts of the swaps
# What is said of runs that are loaded → digits after the point.
LOADS = {
    "the first, ms": 0,
    "the last, ms": 0,
    "the slowest of the second half, ms": 0,
    "the last, MiB": 1,
    "mean of the second half, MiB": 1,
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", help="Parquet with a column text")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--model", default="minilm", help="the base")
    parser.add_argument("--rows", type=int, default=2000, help="texts of a throughput, requests of the swaps")
    parser.add_argument("--seconds", type=float, default=30, help="of each rate")
    parser.add_argument("--rates", type=float, nargs=3, default=[10, 30, 60], help="requests a second")
    parser.add_argument("--batch", type=int, default=1, help="texts in a request")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--adapters", type=int, nargs="+", default=[1, 8, MANY], help="how many are served")
    parser.add_argument("--batch-ms", type=int, default=400, help="of the server")
    parser.add_argument("--disk", type=int, default=1000, help="adapters on disk")
    parser.add_argument("--bound", type=int, default=100, help="of them in memory")
    parser.add_argument("--many", type=int, default=MANY, help="runs that are loaded one after the other")
    parser.add_argument("--predict", help=argparse.SUPPRESS)
    parser.add_argument("--loads", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.predict or a.loads:
        print(json.dumps(predicted(a) if a.predict else loaded(a)))
        return
    print(f"{machine()}\n")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(a, Path(folder))
        for part in a.only:
            getattr(bench, part)()


def texts_of(a: argparse.Namespace) -> list[str]:
    """Returns the texts, drawn at random."""
    found: list[str] = pd.read_parquet(a.texts)["text"].sample(a.rows, random_state=0, replace=True).tolist()
    return found


def predicted(a: argparse.Namespace) -> Result:
    """Returns the texts/s of `Run.predict`, by wall and processor time, of the second call."""
    run, texts = Run.load(a.predict, a.model), texts_of(a)
    run.predict(texts[:200])
    wall, cpu = time.perf_counter(), time.process_time()
    with run.ready():
        for start in range(0, len(texts), 1024):
            run.predict(texts[start : start + 1024])
    return {"wall": len(texts) / (time.perf_counter() - wall), "cpu": len(texts) / (time.process_time() - cpu)}


def loaded(a: argparse.Namespace) -> Result:
    """Returns what it takes to load runs onto a base that they share, in this process."""
    fleet, took, memory = Fleet(model=a.model), list[float](), list[float]()
    for number in range(a.many):
        before, began = held(), time.perf_counter()
        fleet.load(f"a{number}", Path(a.loads) / f"a{number}")
        took.append(1000 * (time.perf_counter() - began))
        memory.append(held() - before)
    half = a.many // 2
    return dict(zip(LOADS, [took[0], took[-1], max(took[half:]), memory[-1], fmean(memory[half:])], strict=True))


def finished(model: str, folder: Path, rank: int, classes: int, seed: int) -> None:
    """Writes a run with random weights on every linear layer, with all that loading reads of a trained one."""
    recipe = Recipe(model=model).replace(rank=rank, targets=["all-linear"], head_start="random", seed=seed)
    adapted, draws = Adapted.fresh(recipe, [str(k) for k in range(classes)]), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=draws))
    metrics: dict[str, Any] = {
        "run": str(folder),
        "train": {"examples": 1, "seconds": 1.0},
        "validation": None,
        "epochs": [],
    }
    save_run(folder, adapted, recipe, metrics, calibration=Calibration.without_rows(classes))


class Bench:
    """The parts, on adapters in a folder."""

    def __init__(self, a: argparse.Namespace, folder: Path) -> None:
        self.a, self.folder, self.texts = a, folder, texts_of(a)
        base = find_base(a.model)
        self.base = str(base.folder)
        self.names = [f"a{number}" for number in range(MANY)]
        if a.only == ["loading"]:
            return
        model = build_classifier(base, ["0", "1"], 0.0, 0)
        for number, name in enumerate(self.names):
            for version in (0, 1):
                classes = LABELS[(number + version) % len(LABELS)]
                rank = RANKS[number % len(RANKS)]
                saved(model, folder / f"{name}.{version}", rank, classes, 2 * number + version)

    def run(self, name: str, version: int = 0) -> str:
        """Returns the folder of an adapter."""
        return str(self.folder / f"{name}.{version}")

    def serve(self, adapters: int, *more: str) -> Any:
        """Starts a server with N adapters."""
        named = [f"{name}={self.run(name)}" for name in self.names[:adapters]]
        usual = ["--port", "0", "--json", "--quiet", "--model", self.base, "--batch-ms", str(self.a.batch_ms)]
        words = [*named, *usual, *more]
        return serving(["-m", "bertlora", "serve", *words], self.folder / "log", KEY)

    def requests(self, server: Server, adapters: Sequence[str], path: str = "/v1/adapters/{}/predict") -> list[bytes]:
        """Returns requests with all texts."""
        size = self.a.batch
        bodies = [{"texts": self.texts[start : start + size]} for start in range(0, len(self.texts), size)]
        chosen = zipf(len(bodies), len(adapters))
        return [server.request(path.format(adapters[n]), body) for n, body in zip(chosen, bodies, strict=True)]

    def throughput(self) -> None:
        """One adapter compared with its rivals, and 64 with one."""
        own = [sys.executable, __file__, self.a.texts, "--rows", str(self.a.rows), "--model", self.base]
        alone = measured([*own, "--predict", self.run("a0")])
        rows = [["`Run.predict`", alone["wall"], alone["cpu"]]]
        for count in self.a.adapters:
            with self.serve(count) as server:
                rows.append([f"serve, {count} adapters", *self._paces(server, self.names[:count])])
        Run.load(self.run("a0"), self.base).export(self.folder / "merged", "merged")
        command = [str(Path(__file__).with_name("pipeline_server.py")), str(self.folder / "merged")]
        with serving(command, self.folder / "log") as server:
            rows.append(["FastAPI and `pipeline`", *self._paces(server, ["a0"], "/predict")])
        head = [f"{self.a.clients} clients, {self.a.batch} texts a request", "texts/s", "texts per CPU second"]
        print(table(head, [[name, *(f"{value:.1f}" for value in values)] for name, *values in rows]), "\n", flush=True)

    def _paces(self, server: Server, names: Sequence[str], path: str = "/v1/adapters/{}/predict") -> list[float]:
        """Returns texts/s by the wall, and by the server's processor time."""
        requests = self.requests(server, names, path)
        server.closed(requests[: max(10, len(requests) // 10)], self.a.clients)
        asked = server.closed(requests, self.a.clients)
        check(asked)
        return [len(self.texts) / asked.took, len(self.texts) / asked.cpu_s]

    def latency(self) -> None:
        """Percentiles of times at fixed rates."""
        rows = []
        for count in self.a.adapters:
            with self.serve(count) as server:
                requests = self.requests(server, self.names[:count])
                server.closed(requests[:50], self.a.clients)
                for rate in self.a.rates:
                    gaps = np.random.default_rng(0).exponential(1 / rate, max(20, int(rate * self.a.seconds)))
                    some = [requests[i % len(requests)] for i in range(len(gaps))]
                    asked = server.open(some, np.cumsum(gaps).tolist())
                    found = np.percentile(1000 * np.array(asked.seconds), [50, 95, 99])
                    rows.append([count, rate, len(gaps), *(f"{value:.0f}" for value in found), asked.faults])
        head = ["adapters", "requests/s", "requests", "p50, ms", "p95, ms", "p99, ms", "refused"]
        print(table(head, rows), "\n", flush=True)

    def loading(self) -> None:
        """Finished runs, which a machine sees for the first time, and later; and many on disk."""
        os.environ["XDG_CACHE_HOME"] = str(self.folder / "cache")  # so that no mark of a certificate is there
        runs = [self.folder / "runs" / f"a{number}" for number in range(self.a.many)]
        for number, run in enumerate(runs):
            finished(self.base, run, RANKS[number % len(RANKS)], LABELS[number % len(LABELS)], number)
        own = [sys.executable, __file__, self.a.texts, "--model", self.base, "--many", str(len(runs))]
        rows = []
        for when in ("the first time", "later"):
            found = measured([*own, "--loads", str(runs[0].parent)])
            rows.append([when, *(f"{found[name]:.{digits}f}" for name, digits in LOADS.items())])
        print(table([f"{len(runs)} runs, loaded one after the other", *LOADS], rows), "\n", flush=True)
        watched = self.folder / "watched"
        for number in range(self.a.disk):  # 1,000 different ones would fill the disk
            shutil.copytree(runs[number % len(runs)], watched / f"b{number}", copy_function=os.link)
        head = ["ready, s", "requests", "adapters asked", "refused", "p50, ms", "p99, ms", "server, MiB"]
        starts = [[f"{when} start", *self._watching(watched)] for when in ("first", "second")]
        print(table([f"{self.a.disk:,} runs on disk, {self.a.bound} in memory", *head], starts), "\n", flush=True)

    def _watching(self, folder: Path) -> list[Any]:
        """Returns how a server of a watched folder answers requests for adapters that are often not in memory."""
        names = [f"b{number}" for number in range(self.a.disk)]
        began = time.perf_counter()
        with self.serve(0, "--watch", str(folder), "--most-loaded", str(self.a.bound)) as server:
            started = time.perf_counter() - began
            asked = server.closed(self.requests(server, names), self.a.clients)
            mib = server.mib()
        check(asked)
        used = len(set(zipf(len(asked.seconds), len(names))))
        p50, p99 = np.percentile(1000 * np.array(asked.seconds), [50, 99])
        times = [f"{p50:.0f}", f"{p99:.0f}", f"{mib:.0f}"]
        return [f"{started:.1f}", f"{len(asked.seconds):,}", used, asked.faults, *times]

    def swaps(self) -> None:
        """Right answers while adapters are replaced."""
        names, texts, ended = self.names[:8], self.texts[:CHECKED], threading.Event()
        right: dict[tuple[str, int, int], Any] = {}
        for name in names:
            for version in (0, 1):
                probabilities = Run.load(self.run(name, version), self.base).predict_proba(texts)
                right |= {(name, len(p), i): p for i, p in enumerate(probabilities)}
        draw = np.random.default_rng(0)
        chosen = [(names[draw.integers(8)], int(draw.integers(len(texts)))) for _ in range(self.a.rows)]
        with self.serve(8, "--load-from", str(self.folder)) as server:
            make = partial(server.request, method="PUT")
            puts = [make(f"/v1/adapters/{name}", {"path": f"{name}.{v}"}) for v in (1, 0) for name in names]
            swapped = list[int]()

            def swap() -> None:
                while not ended.is_set():
                    swapped.extend(server.closed(puts, 1).statuses)

            swapper = threading.Thread(target=swap)
            swapper.start()
            requests = [server.request(f"/v1/adapters/{name}/predict", {"texts": [texts[i]]}) for name, i in chosen]
            asked = server.closed(requests, self.a.clients)
            ended.set()
            swapper.join()
        wrong = sum(not _is_right(right, *pair, body) for pair, body in zip(chosen, asked.bodies, strict=True))
        print(f"{len(requests):,} requests in {asked.took:.0f} s, {len(swapped)} adapters replaced meanwhile ", end="")
        print(f"({sum(status >= 300 for status in swapped)} refused): {asked.faults} refused, {wrong} wrong\n")


def _is_right(right: dict[tuple[str, int, int], Any], name: str, text: int, body: bytes) -> bool:
    lines = json.loads(body).get("predictions", [])
    found = list(lines[0]["probabilities"].values()) if len(lines) == 1 else []
    expected = right.get((name, len(found), text))
    return expected is not None and bool(np.allclose(found, expected, atol=1e-4))


def check(asked: Asked) -> None:
    """Ends the program if a request was refused."""
    if asked.faults:
        bad = next(body for status, body in zip(asked.statuses, asked.bodies, strict=True) if status >= 300)
        raise SystemExit(f"{asked.faults} requests were refused, such as: {bad[:300]!r}")


if __name__ == "__main__":
    main()
