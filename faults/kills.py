"""Kills a training at thirty moments and resumes each: the run must be the one that nothing interrupted, bit for bit.

    python faults/kills.py              thirty trainings, three of two seeds, three audits
    python faults/kills.py --kills 3    three trainings

Half of the kills come by the clock, at moments drawn over the time of a whole training. The others come at a file
operation (write, sync, rename), drawn over all of them: there a file may be half there. Every third resume is killed as
well, and resumed again. All kills are SIGKILL, so nothing can be tidied up.
"""

import argparse
import contextlib
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Timer
from typing import Any

HERE = Path(__file__).parent
# The server has the same path, and imports `kill_at`.
sys.path[:0] = [str(HERE), str(HERE.parent / "tests"), str(HERE.parent / "src")]

from conftest import tiny_model, write_reviews  # noqa: E402
from fork_server import ForkServer, Process  # noqa: E402

SEED = 17
NEVER = 3600.0
# Every layer but the last is frozen: there is a prefix to keep. Dropout draws random numbers in every step.
OPTIONS = (
    *("--max-length", "32", "--precision", "fp32", "--rank", "2", "--batch-size", "4", "--epochs", "4"),
    *("--lora-dropout", "0.1", "--adapt-last-layers", "1"),
)
RUN = ("--checkpoint-minutes", "0.0001", "--split", "70/30/0")
# The same bytes in every run; and JSON in which only times and paths may differ.
BYTES = (
    "adapter/adapter_model.safetensors",
    "probe.safetensors",
    "tfidf.safetensors",
    "seen.safetensors",
    "calibration.json",
    "validation.safetensors",
    "certificate.safetensors",
)
TIMES = ("seconds", "examples_per_s", "tokens_per_s", "peak_rss_mib", "run")


@dataclass(frozen=True)
class Work:
    """What is killed.

    Attributes:
        name: in words, for the figures.
        verb: the verb.
        options: its options, without the data, the base and the output.
        again: how the command differs that goes on.
        done: what the command says if the kill came after the end.
        result: returns what an output must have.
    """

    name: str
    verb: str
    options: tuple[str, ...]
    again: tuple[str, ...]
    done: str
    result: Callable[[Path], dict[str, Any]]


class Place:
    """A folder with data, a base, and a server that starts verbs."""

    def __init__(self, folder: Path, server: ForkServer) -> None:
        self._folder, self._server = folder, server
        self._base, self._data = tiny_model("bert", folder / "base"), write_reviews(folder / "reviews.csv")
        (folder / "out").mkdir()

    def out(self, name: str) -> Path:
        """Returns the output of that name."""
        return self._folder / "out" / name

    def do(self, work: Work, name: str, *more: str, kill: Mapping[str, float] | None = None) -> tuple[int, str]:
        """Does some work or goes on with it, and returns the exit status and the last line on stderr.

        Args:
            work: the work.
            name: its output.
            more: further words of the command.
            kill: `after` so many seconds, or `at` a file operation with this number; None lets it finish.
        """
        words = [work.verb, str(self._data), "--model", str(self._base), "--out", str(self.out(name))]
        kill = kill or {}
        env = {"COUNT_TO": str(self._folder / "operations")}
        env |= {"KILL_AT": str(int(kill["at"]))} if "at" in kill else {}
        with (self._folder / "stderr").open("w+") as said, (self._folder / "stdout").open("w") as out:
            words += [*work.options, *more]
            with self._server.start(words, env, stdout=out.fileno(), stderr=said.fileno()) as process:
                killer = Timer(kill.get("after", NEVER), killed, [process])
                killer.start()
                status = process.wait()
                killer.cancel()
            said.seek(0)
            return status, (said.read().splitlines() or [""])[-1]

    def operations(self) -> int:
        """Returns how many file operations the last work had that was not killed."""
        return int((self._folder / "operations").read_text())


def killed(process: Process) -> None:
    """Kills a process, unless it has just ended."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)


def timeless(value: Any) -> Any:
    """Returns a JSON value without what differs from one run to the next."""
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if key not in TIMES}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def run_result(run: Path) -> dict[str, Any]:
    """Returns what a run must have: bytes of its files, history, metrics, and the names of all its files."""
    found: dict[str, Any] = {}
    for one in (run, *sorted(run.glob("seeds/*"))):
        found |= {str((one / name).relative_to(run)): (one / name).read_bytes() for name in BYTES}
        lines = (one / "history.jsonl").read_text().splitlines()
        found[f"history of {one.relative_to(run)}"] = [timeless(json.loads(line)) for line in lines]
        found[f"metrics of {one.relative_to(run)}"] = timeless(json.loads((one / "metrics.json").read_text()))
    found["files"] = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    return found


def file_result(path: Path) -> dict[str, Any]:
    """Returns what a file must have."""
    return {"content": path.read_bytes()}


def moments(count: int, seconds: float, operations: int) -> list[list[dict[str, float]]]:
    """Returns, for each case, the kills that follow each other: of the training, and of every third resume."""
    draws = random.Random(SEED)

    def drawn(number: int) -> dict[str, float]:
        by_clock = {"after": draws.uniform(0, seconds)}
        return {"at": draws.randrange(1, operations + 1)} if number % 2 else by_clock

    return [[drawn(case), *([drawn(case // 3)] if case % 3 == 0 else [])] for case in range(count)]


def state_of(out: Path, work: Work) -> str:
    """Returns how far a killed work was, in words."""
    if work.verb == "audit":
        return "auditing"
    if not (out / "recipe.toml").is_file():
        return "preparing"
    if (out / "run.json").is_file():
        return "after run.json was written"
    numbers = [path for path in (out / "checkpoints").glob("*") if path.name.isdecimal()]
    return "training, evaluating, saving" if numbers else "fitting the linear probe"


def survived(place: Place, work: Work, name: str, kills: Sequence[Mapping[str, float]], seen: Counter[str]) -> bool:
    """Kills a work, and then what goes on with it; returns whether the last one ends well. Counts what happened."""
    more: tuple[str, ...] = ()
    for kill in [*kills, None]:
        status, said = place.do(work, name, *more, kill=kill)
        if status == 2 and "holds no run to resume" in said:
            seen["started again, since nothing was begun"] += 1
            status, said = place.do(work, name)
        if status == -signal.SIGKILL:
            seen[f"killed while {state_of(place.out(name), work)}"] += 1
            seen["kills"] += 1
            more = work.again
        elif status and work.done not in said:
            print(f"{name}: {kills}: status {status}: {said}", file=sys.stderr)
            return False
        else:
            return True
    return False


def suffer(place: Place, work: Work, cases: int) -> Counter[str]:
    """Kills a work that many times, each time a new one, and returns the figures."""
    seen: Counter[str] = Counter()
    place.do(work, "warm")
    began = time.perf_counter()
    status, said = place.do(work, "whole")
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{work.name}: the whole one failed: {said}")
    expected = work.result(place.out("whole"))
    print(f"{work.name}: {seconds:.1f} s and {place.operations()} file operations", file=sys.stderr)
    for number, kills in enumerate(moments(cases, seconds, place.operations())):
        name = f"case{number}"
        found = work.result(place.out(name)) if survived(place, work, name, kills, seen) else {}
        wrong = [key for key in expected if found.get(key) != expected[key]]
        wrong += [path.name for path in place.out(name).parent.glob(".*")]
        seen[f"{work.name}, resumed bit-identical"] += not wrong
        seen["wrong"] += bool(wrong)
        print(f"{number + 1}/{cases} {kills}: {'wrong: ' + ', '.join(wrong) if wrong else 'ok'}", file=sys.stderr)
    for path in place.out("whole").parent.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return seen


def kill_all(kills: int) -> dict[str, int]:
    """Kills that many trainings, and a tenth as many of several seeds, and audits; returns the figures."""
    figures: Counter[str] = Counter({"wrong": 0})
    with tempfile.TemporaryDirectory(prefix="kills-") as folder, ForkServer(["kill_at"]) as server:
        place = Place(Path(folder), server)
        for work, cases in {TRAINING: kills, SEEDS: kills // 10, AUDIT: kills // 10}.items():
            if cases:
                figures[f"{work.name}, killed"] = cases
                figures.update(suffer(place, work, cases))
    return dict(figures)


TRAINING = Work("trainings", "train", (*OPTIONS, *RUN), ("--resume",), "nothing to resume", run_result)
SEEDS = replace(TRAINING, name="trainings of two seeds", options=(*OPTIONS, *RUN, "--epochs", "2", "--seeds", "2"))
AUDIT = Work("audits", "audit", OPTIONS, (), "is there already", file_result)


def main() -> int:
    """Prints the figures as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="how many trainings are killed")
    figures = kill_all(parser.parse_args().kills)
    print(json.dumps(figures))
    return int(figures["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
