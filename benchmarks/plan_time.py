#!/usr/bin/env python3
"""Compares the time that `bertlora plan` predicts with the time that `bertlora train` then takes.

    python benchmarks/plan_time.py sst2_train.parquet --rows 1000 --rounds 3 --log plan.jsonl
    python benchmarks/plan_time.py imdb_train.parquet --rows 300 --rounds 3 --log plan.jsonl --max-length 128

Options of `bertlora train` are given to both. Each program is a fresh process. Prints a Markdown table: predicted and
true seconds of the whole process and of the optimiser steps, and their ratio, with lowest and highest.

With `--cpu` the seconds are those of the processor, in plan and in train. That is for one thread (`OMP_NUM_THREADS=1`)
on a core that other programs use too.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from contest import Result, contest_parser, interleaved, machine, median, ratios, table

PLAN, TRAIN = "plan", "train"
ON_CPU_TIME = "import sys, time; time.perf_counter = time.process_time; from bertlora.cli import main; sys.exit(main())"


def main() -> None:
    """Measures and prints."""
    parser = contest_parser(__doc__)
    parser.add_argument("file", help="any source of `bertlora train`")
    parser.add_argument("--rows", type=int, default=1000, help="rows for training")
    parser.add_argument("--cpu", action="store_true", help="count the processor's seconds")
    a, options = parser.parse_known_args()
    key: Result = {"contest": "plan", "file": Path(a.file).name, "drawn": a.rows, "cpu": a.cpu, "options": options}
    with tempfile.TemporaryDirectory() as folder:
        results = interleaved(commands(a, options, folder), a.rounds, Path(a.log), key)
    print(f"{key['file']}, {a.rows} rows, {' '.join(options) or 'default'}. {machine()}\n")
    print(summary(results))


def commands(a: argparse.Namespace, options: list[str], folder: str) -> dict[str, list[str]]:
    """Returns the two commands."""
    own = [sys.executable, *(["-c", ON_CPU_TIME] if a.cpu else ["-m", "bertlora"])]
    given = [a.file, "--sample", str(a.rows), "--sample-from", "split", "--json", *options]
    return {
        PLAN: [*own, "plan", *given],
        TRAIN: [*own, "train", *given, "--out", f"{folder}/run", "--overwrite"],
    }


def whole(result: Result) -> float:
    """Returns the seconds of the whole training, predicted or true."""
    return float(result["seconds"] if result["name"] == PLAN else result["cpu_s" if result["cpu"] else "wall_s"])


def steps(result: Result) -> float:
    """Returns the seconds of the optimiser steps, predicted or true."""
    return float(result["seconds_of"]["steps"] if result["name"] == PLAN else result["train"]["seconds"])


def taken(result: Result) -> float:
    """Returns what a plan itself takes, besides reading the data and loading the base."""
    return float(result["cpu_s" if result["cpu"] else "wall_s"] - result["seconds_of"]["start"])


def summary(results: list[Result]) -> str:
    """Returns the Markdown table."""
    rows = [
        [
            name,
            f"{median(results, PLAN, value):.1f} s",
            f"{median(results, TRAIN, value):.1f} s",
            ratios(results, PLAN, TRAIN, value),
        ]
        for name, value in (("the whole process", whole), ("optimiser steps", steps))
    ]
    measuring = f"\n\nA plan measured for {median(results, PLAN, taken):.1f} s."
    return table(["", "predicted", "true", "predicted / true"], rows) + measuring


if __name__ == "__main__":
    main()
