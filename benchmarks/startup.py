#!/usr/bin/env python3
"""Measures how long the command line takes to start: help, the error of a wrong column, and the first prediction.

    python benchmarks/startup.py runs/a --log startup.jsonl

Each program is a fresh process, timed from start to end. The reference imports torch and transformers, and loads the
tokenizer and weights of the run's base model. Any program that predicts must do this. It predicts nothing. Prints two
Markdown tables: the programs, and the time that each room takes to import.
"""

import compileall
import subprocess
import sys
import tempfile
from pathlib import Path

from contest import Result, contest_parser, interleaved, machine, median, ratios, table

import bertlora
from bertlora.run.loaded import Run

RIVAL, HELP, PREDICT = "torch, transformers and the weights", "bertlora --help", "bertlora predict RUN TEXT"
WRONG = "bertlora train reviews.csv --text-column nope"
ROOMS = ["bertlora", "bertlora.cli", "bertlora.pipeline.prepare", "bertlora.pipeline.train", "bertlora.run.loaded"]
ROOMS += ["bertlora.pipeline.training_run", "bertlora.classifier"]
LOADING = """
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
AutoTokenizer.from_pretrained({0!r})
AutoModelForSequenceClassification.from_pretrained({0!r})
print("{{}}")
"""


def main() -> None:
    """Measures and prints."""
    parser = contest_parser(__doc__)
    parser.add_argument("run", help="a run folder")
    a = parser.parse_args()
    # As pip does when it installs: an environment variable may forbid Python to write bytecode.
    compileall.compile_dir(Path(bertlora.__file__).parent, quiet=1)
    own = [sys.executable, "-m", "bertlora"]
    file = Path(tempfile.mkdtemp()) / "reviews.csv"
    file.write_text("text,label\n" + "a joy,good\na mess,bad\n" * 50)
    wrong = [*own, "train", str(file), "--out", str(file.parent / "run"), "--text-column", "nope"]
    contestants = {
        RIVAL: [sys.executable, "-c", LOADING.format(str(Run.load(a.run).adapted.base.folder))],
        HELP: ["sh", "-c", '"$@" --help > /dev/null && echo "{}"', "sh", *own],
        WRONG: ["sh", "-c", '"$@" 2> /dev/null; test $? = 2 && echo "{}"', "sh", *wrong],
        PREDICT: [*own, "predict", a.run, "A joy from start to finish."],
    }
    key: Result = {"contest": "start", "run": a.run}
    results = interleaved(contestants, a.rounds, Path(a.log), key)
    print(f"{a.rounds} rounds. {machine()}\n")
    print(table(["", "seconds", "times the first"], [row(results, name) for name in contestants]))
    print("\n" + table(["import", "seconds"], [[f"`{room}`", f"{import_seconds(room):.2f} s"] for room in ROOMS]))


def row(results: list[Result], name: str) -> list[str]:
    """Returns the table's row for one program."""
    return [name, f"{median(results, name, seconds):.2f} s", ratios(results, name, RIVAL, seconds)]


def import_seconds(room: str) -> float:
    """Returns the time of an import in a fresh process, as Python reports it."""
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", f"import {room}"], capture_output=True, text=True)
    (line,) = (line for line in done.stderr.splitlines() if line.endswith(f"| {room}") or line.endswith(f" {room}"))
    return int(line.split("|")[1]) / 1e6


def seconds(result: Result) -> float:
    """Returns the wall time of a process."""
    return float(result["wall_s"])


if __name__ == "__main__":
    main()
