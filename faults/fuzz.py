"""Gives every reader inputs that nobody would write, guided by coverage; prints how many, and what went wrong.

    python faults/fuzz.py                               all readers
    python faults/fuzz.py --reader JSON --inputs 5000   one

libFuzzer makes the inputs, by atheris; where that is missing, plain mutations do.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "tests")]

from fuzzing.engine import GUIDED, Found, fuzz, watched  # noqa: E402
from fuzzing.readers import PARTS, READERS, maker  # noqa: E402

INPUTS = 100_000
MOST_S = 300.0
EXAMPLES = 50  # of good requests, and as many of bad ones
STARTS_S = 120.0  # a process imports torch, and makes its small files
MEMORY = Path("/dev/shm")  # for the files of readers that need a path
# How libFuzzer ends a process; see its FuzzerOptions.h.
HANGS = 70
EXITS = {HANGS: "hang", 71: "memory"}
KINDS = {"hang": "hangs", "memory": "over the bound of memory"}
FIGURES = "figures.json"


def main() -> int:
    """Fuzzes the readers one after the other, each part of one in a process of its own, which libFuzzer ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", action="append", choices=[*READERS], help="which; all if none is named")
    parser.add_argument("--inputs", type=int, default=INPUTS, help="of each reader (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=MOST_S, help="longest time of a part of a reader (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the mutations (%(default)s)")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="of each operation of the server (%(default)s)")
    parser.add_argument("--part", choices=[*PARTS], help=argparse.SUPPRESS)  # what this process fuzzes
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)  # the folder of its files
    asked = parser.parse_args()
    if asked.part:
        fuzz_part(asked)
    figures: dict[str, object] = {"guided by": "coverage (atheris)" if GUIDED else "nothing (atheris is missing)"}
    counts = {"crashes": 0, "hangs": 0, "over the bound of memory": 0, "readers out of time": 0}
    for name in asked.reader or READERS:
        parts = READERS[name]
        found = [in_a_process(part, math.ceil(asked.inputs / len(parts)), asked) for part in parts]
        figures[f"inputs: {name}"] = sum(one.inputs for one in found)
        counts["readers out of time"] += any(one.inputs < asked.inputs // len(parts) for one in found)
        for fault in (fault for one in found for fault in one.faults):
            counts[KINDS.get(fault, "crashes")] += 1
    if not asked.reader:
        figures["requests made from /openapi.json"], faults = described(asked.examples)
        counts["answers that do not fit it"] = len(faults)
    print(json.dumps(figures | counts))
    return int(any(counts.values()))


def fuzz_part(asked: argparse.Namespace) -> NoReturn:
    """Fuzzes a part of a reader in this process."""
    with watched():
        make = maker(asked.part)
    fuzz(make(asked.into), asked.into, asked.into / FIGURES, asked.inputs, asked.seconds, asked.seed)


def in_a_process(part: str, inputs: int, asked: argparse.Namespace) -> Found:
    """Returns what is found for a part of a reader, and prints it to stderr."""
    began = processor_s()
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        flags = {"part": part, "inputs": inputs, "seconds": asked.seconds, "seed": asked.seed, "into": folder}
        command = [sys.executable, __file__, *(f"--{flag}={value}" for flag, value in flags.items())]
        try:
            status = subprocess.run(
                command, stdout=sys.stderr, timeout=STARTS_S + asked.seconds, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            status = HANGS
        file = Path(folder, FIGURES)
        found = Found(**json.loads(file.read_text())) if file.exists() else Found()
    if status:
        found.faults[EXITS.get(status, f"the process ended with {status}")] = ""
    seconds = processor_s() - began
    print(f"{part}: {found.inputs:,} inputs in {seconds:.0f} s of CPU, {len(found.faults)} findings", file=sys.stderr)
    for fault, data in found.faults.items():
        print(f"  {fault}: {data[:400]}", file=sys.stderr)
    return found


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
