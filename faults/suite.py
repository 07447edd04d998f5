"""Breaks things on purpose, and prints what survived: the figures of docs/reliability.md.

    python faults/suite.py            everything, within twenty minutes on two cores
    python faults/suite.py kills      some of it

Each program beside this one is one kind of fault. It prints one JSON object: figures by name. It exits with status 1
if a promise was broken. Two run at a time, each on one core. Those that measure time run before, alone on all cores.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
# The longest first: two lanes end at about the same time.
PROGRAMS = ("overload", "fuzz", "kills", "corruption", "disk", "ranks", "long_lived", "drift")
# They measure time: a neighbour would be measured with them.
ALONE = ("side_by_side",)


def run(name: str) -> tuple[str, int, str, float]:
    """Returns the name, status, output and seconds of one program."""
    began = time.perf_counter()
    command = [sys.executable, str(HERE / f"{name}.py")]
    environment = os.environ | ({} if name in ALONE else {"OMP_NUM_THREADS": "1"})
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    return name, done.returncode, done.stdout, time.perf_counter() - began


def rows(name: str, status: int, output: str, seconds: float) -> list[str]:
    """Returns the rows of the table for one program."""
    lines = output.strip().splitlines()
    figures = json.loads(lines[-1]) if lines else {}
    if status:
        figures["status"] = f"{status}: a promise was broken"
    return [f"| {name} | {what} | {value} |" for what, value in (figures | {"seconds": round(seconds)}).items()]


def main() -> int:
    """Runs the programs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", help=f"which of {', '.join([*ALONE, *PROGRAMS])}; all if none is named")
    names = parser.parse_args().programs or (*ALONE, *PROGRAMS)
    if unknown := {*names} - {*ALONE, *PROGRAMS}:
        parser.error(f"no such program: {', '.join(sorted(unknown))}")
    print("| program | figure | value |\n|---|---|---:|")
    failed = False
    for lanes in (1, 2):
        with ThreadPoolExecutor(lanes) as pool:
            for found in pool.map(run, [name for name in names if (name in ALONE) == (lanes == 1)]):
                print("\n".join(rows(*found)), flush=True)
                failed |= bool(found[1])
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
