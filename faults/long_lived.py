"""Lets one process work for long: its memory must stay as it was after the first part.

    python faults/long_lived.py                three minutes
    python faults/long_lived.py --predictions 500 --loads 40

Predictions of random texts by one classifier; adapters that are loaded and dropped, each on a base of its own, on a
shared base, and by a server's fleet while it answers. Each part runs in a process of its own. Memory is resident
memory, the median over the second tenth of a part and over its last tenth.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from contest import resident_mib
from versions import Known

from bertlora.model.base import find_base
from bertlora.model.mixed import MixedBase
from bertlora.run.loaded import Run
from bertlora.serving.fleet import Fleet
from bertlora.serving.questions import Question
from bertlora.serving.service import Service

# The level at the end may be above the one after the first part by this share.
GROWTH = 0.05
MOST_TEXTS, MOST_WORDS = 12, 120
TEXTS = 20

Step = Callable[[int], None]


def predictions(known: Known) -> Step:
    """Predicts random texts of random lengths."""
    run, draw = Run.load(known.folder / "x0"), random.Random(0)
    words = [word for word in run.model.reader.tokenizer.pieces() if word.isalpha()]

    def step(_: int) -> None:
        count = draw.randint(1, MOST_TEXTS) if draw.random() < 0.2 else 1
        run.predict([" ".join(draw.choices(words, k=draw.randint(1, MOST_WORDS))) for _ in range(count)])

    return step


def loads(known: Known) -> Step:
    """Loads a run on a base of its own, asks it, and drops it."""
    paths = sorted(known.folder.iterdir())

    def step(i: int) -> None:
        Run.load(paths[i % len(paths)]).predict(known.texts)

    return step


def shared_loads(known: Known) -> Step:
    """Loads a run on a shared base, asks it, and drops it."""
    paths, base = sorted(known.folder.iterdir()), MixedBase(find_base(str(known.folder.parent / "base")))

    def step(i: int) -> None:
        Run.load(paths[i % len(paths)], on=base).predict(known.texts)

    return step


def served_loads(known: Known) -> Step:
    """Replaces and drops adapters of a server, which answers and explains in between."""
    paths, service, events = sorted(known.folder.iterdir()), Service(Fleet(most_loaded=2)), asyncio.new_event_loop()

    def step(i: int) -> None:
        name, path = f"a{i % 3}", paths[i % len(paths)]
        events.run_until_complete(service.load(name, path))
        events.run_until_complete(service.answer([Question(name, text) for text in known.texts]))
        if i % 20 == 0:
            events.run_until_complete(service.explain(Question(name, known.texts[0])))
        if i % 4 == 0:
            service.fleet.drop(name)

    return step


def levels(prepare: Callable[[Known], Step], known: Known, count: int) -> tuple[float, float]:
    """Returns the memory after the first part and at the end, in MiB."""
    step, found = prepare(known), list[float]()
    for i in range(count):
        step(i)
        found.append(resident_mib())
    tenth = max(1, count // 10)
    return statistics.median(found[tenth : 2 * tenth]), statistics.median(found[-tenth:])


def long_lived(folder: Path, predicted: int, loaded: int) -> tuple[dict[str, Any], list[str]]:
    """Returns the figures, and which promises were broken."""
    known, result, broken = Known.make(folder, TEXTS), dict[str, Any](), list[str]()
    parts = {predictions: predicted, loads: loaded, shared_loads: loaded, served_loads: loaded}
    for part, count in parts.items():
        # A new process has no memory of the parts before.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            first, last = pool.apply(levels, (part, known, count))
        name = f"{count:,} {part.__name__.replace('_', ' ')}"
        result[f"{name}: MiB at first and at last"] = f"{first:.0f} and {last:.0f}"
        print(f"{name}: {first:.0f} and {last:.0f} MiB", file=sys.stderr, flush=True)
        result[f"{name}: growth, %"] = round(100 * (last / first - 1), 1)
        if last > (1 + GROWTH) * first:
            broken.append(f"{name}: memory grew from {first:.0f} to {last:.0f} MiB")
    return result, broken


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=int, default=10_000)
    parser.add_argument("--loads", type=int, default=200)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found, broken = long_lived(Path(folder), a.predictions, a.loads)
    print(*broken, sep="\n", file=sys.stderr)
    print(json.dumps(found))
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
