#!/usr/bin/env python3
"""How long the command line takes to begin: its help, and the first prediction of a saved run.

    python benchmarks/startup.py runs/a --log startup.jsonl

Each contestant is a fresh process, timed from its start to its end. The rival imports torch and transformers and loads
tokenizer and weights of the run's base, which any program that predicts must do; it predicts nothing. Prints a table.
"""

import sys
from pathlib import Path

from contest import Result, contest_parser, interleaved, machine, median, ratios, table

from bertlora.run import Run

RIVAL, HELP, PREDICT = "torch, transformers and the weights", "bertlora --help", "bertlora predict RUN TEXT"
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
    own = [sys.executable, "-m", "bertlora"]
    contestants = {
        RIVAL: [sys.executable, "-c", LOADING.format(str(Run.load(a.run).adapted.base.folder))],
        HELP: ["sh", "-c", '"$@" --help > /dev/null && echo "{}"', "sh", *own],
        PREDICT: [*own, "predict", a.run, "A joy from start to finish."],
    }
    key: Result = {"contest": "start", "run": a.run}
    results = interleaved(contestants, a.rounds, Path(a.log), key)
    print(f"{a.rounds} rounds. {machine()}\n")
    print(table(["", "seconds", "times the first"], [row(results, name) for name in contestants]))


def row(results: list[Result], name: str) -> list[str]:
    """Returns the table's row of one contestant."""
    return [name, f"{median(results, name, seconds):.2f} s", ratios(results, name, RIVAL, seconds)]


def seconds(result: Result) -> float:
    """Returns the wall time of a process."""
    return float(result["wall_s"])


if __name__ == "__main__":
    main()
