"""Kills a training at thirty moments and resumes each: the run must be the one that nothing interrupted, bit for bit.

    python faults/kills.py              thirty kills
    python faults/kills.py --kills 3    fewer

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
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Timer
from typing import Any

HERE = Path(__file__).parent
# The server has the same path, and imports `kill_at`.
sys.path[:0] = [str(HERE), str(HERE.parent / "tests"), str(HERE.parent / "src")]

from conftest import _make, _write_reviews  # noqa: E402
from fork_server import ForkServer, Process  # noqa: E402

SEED = 17
NEVER = 3600.0
# Every layer but the last is frozen: there is a prefix to keep. Dropout draws random numbers in every step.
OPTIONS = (
    *("--max-length", "32", "--precision", "fp32", "--rank", "2", "--batch-size", "4", "--epochs", "4"),
    *("--lora-dropout", "0.1", "--adapt-last-layers", "1", "--checkpoint-minutes", "0.0001", "--split", "70/30/0"),
)
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


class Place:
    """A folder with data, a base, and a server that starts verbs."""

    def __init__(self, folder: Path, server: ForkServer) -> None:
        self._folder, self._server = folder, server
        self._base, self._data = _make("bert", folder / "base"), _write_reviews(folder / "reviews.csv")

    def run(self, name: str) -> Path:
        """Returns the run folder of that name."""
        return self._folder / "runs" / name

    def train(self, name: str, *more: str, kill: Mapping[str, float] | None = None) -> tuple[int, str]:
        """Trains or resumes, and returns the exit status and the last line on stderr.

        Args:
            name: the run.
            more: further words of the command.
            kill: `after` so many seconds, or `at` a file operation with this number; None lets it finish.
        """
        words = ["train", str(self._data), "--model", str(self._base), "--out", str(self.run(name)), *OPTIONS, *more]
        kill = kill or {}
        env = {"KILL_AT": str(int(kill["at"]))} if "at" in kill else {}
        env["COUNT_TO"] = str(self._folder / "operations")
        with (self._folder / "stderr").open("w+") as said, (self._folder / "stdout").open("w") as out:
            with self._server.start(words, env, stdout=out.fileno(), stderr=said.fileno()) as process:
                killer = Timer(kill.get("after", NEVER), killed, [process])
                killer.start()
                status = process.wait()
                killer.cancel()
            said.seek(0)
            return status, (said.read().splitlines() or [""])[-1]

    def operations(self) -> int:
        """Returns how many file operations the last whole training had."""
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


def result(run: Path) -> dict[str, Any]:
    """Returns what a run must have: bytes of its files, history, metrics, and the names of all its files."""
    found: dict[str, Any] = {name: (run / name).read_bytes() for name in BYTES}
    found["history"] = [timeless(json.loads(line)) for line in (run / "history.jsonl").read_text().splitlines()]
    found["metrics"] = timeless(json.loads((run / "metrics.json").read_text()))
    found["files"] = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    found["beside"] = sorted(path.name for path in run.parent.iterdir() if path.name.startswith("."))
    return found


def moments(count: int, seconds: float, operations: int) -> list[list[dict[str, float]]]:
    """Returns, for each case, the kills that follow each other: of the training, and of every third resume."""
    draws = random.Random(SEED)

    def drawn(number: int) -> dict[str, float]:
        by_clock = {"after": draws.uniform(0, seconds)}
        return {"at": draws.randrange(1, operations + 1)} if number % 2 else by_clock

    return [[drawn(case), *([drawn(case // 3)] if case % 3 == 0 else [])] for case in range(count)]


def state_of(run: Path) -> str:
    """Returns how far a killed run was, in words."""
    if not (run / "recipe.toml").is_file():
        return "preparing"
    if (run / "run.json").is_file():
        return "after run.json"
    numbers = [path for path in (run / "checkpoints").glob("*") if path.name.isdecimal()]
    return "training, evaluating, saving" if numbers else "probing"


def survived(place: Place, name: str, kills: Sequence[Mapping[str, float]], seen: Counter[str]) -> bool:
    """Kills a training, and then its resumes; returns whether the last resume ends well. Counts what happened."""
    how: tuple[str, ...] = ()
    for kill in [*kills, None]:
        status, said = place.train(name, *how, kill=kill)
        if status == -signal.SIGKILL:
            seen[f"killed while {state_of(place.run(name))}"] += 1
            seen["kills"] += 1
            how = ("--resume",)
        elif status == 2 and "holds no run to resume" in said:
            seen["started again, since nothing was begun"] += 1
            how = ()
            status, said = place.train(name)
        if status != -signal.SIGKILL:
            if status and "nothing to resume" not in said:
                print(f"{name}: {kills}: status {status}: {said}", file=sys.stderr)
                return False
            return True
    return False


def suffer(cases: int) -> tuple[dict[str, int], bool]:
    """Returns the figures, and whether every promise held."""
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder, ForkServer(["kill_at"]) as server:
        place = Place(Path(folder), server)
        place.train("warm")
        began = time.perf_counter()
        status, said = place.train("whole")
        seconds = time.perf_counter() - began
        if status:
            raise SystemExit(f"the whole training failed: {said}")
        expected = result(place.run("whole"))
        print(f"a training takes {seconds:.1f} s and {place.operations()} file operations", file=sys.stderr)
        for number, kills in enumerate(moments(cases, seconds, place.operations())):
            name = f"run{number}"
            good = survived(place, name, kills, seen)
            found = result(place.run(name)) if good else {}
            wrong = [key for key in expected if found.get(key) != expected[key]]
            seen["resumed bit-identical" if not wrong else "wrong"] += 1
            print(f"{number + 1}/{cases} {kills}: {'wrong: ' + ', '.join(wrong) if wrong else 'ok'}", file=sys.stderr)
            if not wrong:
                shutil.rmtree(place.run(name))
    figures = {"trainings killed": cases, "resumed bit-identical": 0, "wrong": 0} | dict(seen)
    return figures, not figures["wrong"]


def main() -> int:
    """Prints the figures as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="how many trainings are killed")
    figures, good = suffer(parser.parse_args().kills)
    print(json.dumps(figures))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
