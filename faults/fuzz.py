"""Gives every reader inputs that nobody would write; prints how many, and what went wrong.

    python faults/fuzz.py                               all readers
    python faults/fuzz.py --reader JSON --inputs 5000   one

libFuzzer makes a quarter of the inputs, by atheris, guided by coverage. The others are plain mutations of what it
found, which take a fraction of the time. Where atheris is missing, all are plain mutations of small valid inputs.
"""

import argparse
import json
import math
import multiprocessing
import os
import resource
import sys
import tempfile
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "tests")]

from fuzzing.engine import ENDS, FIGURES, GUIDED, LAST, Found, Share, watched  # noqa: E402
from fuzzing.readers import READERS, maker  # noqa: E402

INPUTS = 100_000
MOST_S = 300.0
EXAMPLES = 50  # of good requests, and as many of bad ones
STARTS_S = 120.0  # a process imports bertlora, and makes its small files
GUIDED_PART = 0.25 if GUIDED else 0.0  # of the inputs: coverage costs several times the reading
HOW = (
    "coverage (atheris), a quarter; mutations of what it found, the rest" if GUIDED else "nothing (atheris is missing)"
)
MEMORY = Path("/dev/shm")  # for the files of readers that need a path
KINDS = {"hang": "hangs", "memory": "over the bound of memory"}
# They take seconds to import, so all processes share them. Each imports bertlora itself, with coverage or without.
IMPORTED = ("torch", "transformers", "peft", "pyarrow.parquet", "scipy.optimize", "fastapi", "conftest")
FORK = multiprocessing.get_context("fork")


def main() -> int:
    """Fuzzes the readers one after the other, each part of one in processes of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", action="append", choices=[*READERS], help="which; all if none is named")
    parser.add_argument("--inputs", type=int, default=INPUTS, help="of each reader (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=MOST_S, help="longest time of a process, two for a part (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the mutations (%(default)s)")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="of each operation of the server (%(default)s)")
    asked = parser.parse_args()
    for name in IMPORTED:
        import_module(name)
    figures: dict[str, object] = {"guided by": HOW}
    counts = {"crashes": 0, "hangs": 0, "over the bound of memory": 0, "readers out of time": 0}
    for name in asked.reader or READERS:
        parts = READERS[name]
        found = [fuzz_part(part, math.ceil(asked.inputs / len(parts)), asked) for part in parts]
        figures[f"inputs: {name}"] = sum(one.inputs for one in found)
        counts["readers out of time"] += any(one.inputs < asked.inputs // len(parts) for one in found)
        for fault in (fault for one in found for fault in one.faults):
            counts[KINDS.get(fault, "crashes")] += 1
    if not asked.reader:
        figures["requests made from /openapi.json"], faults = described(asked.examples)
        counts["answers that do not fit it"] = len(faults)
    print(json.dumps(figures | counts))
    return int(any(counts.values()))


def fuzz_part(part: str, inputs: int, asked: argparse.Namespace) -> Found:
    """Returns what is found for a part of a reader, and prints it to stderr."""
    began, found = processor_s(), Found()
    guided = int(inputs * GUIDED_PART)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        for name, number in (("guided", guided), ("mutated", inputs - guided)):
            share = Share(Path(folder, name), Path(folder, "corpus"), number, asked.seconds, asked.seed)
            one = in_a_process(name, part, share) if number else Found()
            found = Found(found.inputs + one.inputs, found.faults | one.faults)
    seconds = processor_s() - began
    print(f"{part}: {found.inputs:,} inputs in {seconds:.0f} s of CPU, {len(found.faults)} findings", file=sys.stderr)
    for fault, data in found.faults.items():
        print(f"  {fault}: {data}", file=sys.stderr)
    return found


def in_a_process(how: str, part: str, share: Share) -> Found:
    """Returns what a process finds for a part of a reader, also if it dies."""
    share.folder.mkdir()
    process = FORK.Process(target=give_share, args=(how, part, share))
    process.start()
    process.join(STARTS_S + share.most_s)
    late = process.is_alive()
    process.kill()
    process.join()
    figures, last = share.folder / FIGURES, share.folder / LAST
    found = Found(**json.loads(figures.read_text())) if figures.exists() else Found()
    status = process.exitcode
    if status:
        fault = "hang" if late else ENDS.get(status, f"the process ended with {status}")
        found.faults[fault] = repr(last.read_bytes()) if last.exists() else ""
    return found


def give_share(how: str, part: str, share: Share) -> None:
    """Makes a part of a reader in this process, and gives it inputs until the last one ends the process."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the figures only are for stdout
    with watched() if how == "guided" else nullcontext():
        make = maker(part)
    getattr(share, how)(make(share.folder))


def described(examples: int) -> tuple[int, list[str]]:
    """Returns how many requests schemathesis made from the server's description, and what does not fit it."""
    from fuzzing.described import disagreements
    from fuzzing.http import instant_app

    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        sent, faults = disagreements(instant_app(Path(folder), "right"), examples, {"Authorization": "Bearer right"})
    print(*faults, sep="\n", file=sys.stderr)
    return sent, faults


def processor_s() -> float:
    """Returns the seconds of CPU that processes of this one have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
