#!/usr/bin/env python3
"""Measures `bertlora score` on a large file: rows/s, memory over time, and what is left after kills.

    python benchmarks/scoring.py runs/a sst2_train.parquet --rows 10000 1000000 --kills 5

For each number of rows it writes a CSV file with the columns id and text, made of the file's texts, repeated. Then
fresh processes do the following, one after the other:
- `logits`: `Run.model.logits` on up to 4,000 of these texts, as one call: with tokenisation, and without it (the inputs
  are made before). The weights are made ready before, and a call on 500 texts goes first. It runs before and after
  `score`, and the faster one counts.
- `score`: the whole file. Its rows/s count from the start of scoring, after imports and loading. Resident memory is
  read from /proc every half second.
- With --kills, for the largest number of rows: the same, killed by SIGKILL at random times and started again. The
  output must be the same file. A run on a tiny base is enough for this, and for the memory.
"""

import argparse
import csv
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from contest import Result, machine, measured, resident_mib, table

from bertlora.run.loaded import Run

PACED_TEXTS, WARMING_TEXTS = 4_000, 500
TICK_S = 0.5


def main() -> None:
    """Measures and prints; with --logits it is one of the measured programs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder")
    parser.add_argument("texts", help="Parquet with a column text")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="draws the times of the kills")
    parser.add_argument("--folder", help="where the files go; default: a temporary folder")
    parser.add_argument("--logits", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.logits:
        print(json.dumps(logits(a.run, a.texts, a.precision)))
        return
    print(f"{machine()}\n")
    with tempfile.TemporaryDirectory(dir=a.folder) as folder:
        for rows in a.rows:
            measure(a, Path(folder), rows)


def measure(a: argparse.Namespace, folder: Path, rows: int) -> None:
    """Measures one number of rows, and prints a table."""
    source, out = folder / f"{rows}.csv", folder / f"{rows}.scored.csv"
    write_rows(Path(a.texts), source, rows)
    own = [sys.executable, __file__, a.run, str(source), "--logits", "--precision", a.precision]
    before = measured(own)
    result, memory = scored(command(a, source, out))
    after = measured(own)
    read, without = (max(before[name], after[name]) for name in ("read", "without"))
    pace, third = result["rows_per_s"], max(1, len(memory) // 3)
    figures = {
        "rows/s of `score`": f"{pace:,.0f}",
        "`logits` with tokenisation, texts/s": f"{read:,.0f}",
        "`score` by it": f"{pace / read:.0%}",
        "`logits` without tokenisation, texts/s": f"{without:,.0f}",
        "`score` by this": f"{pace / without:.0%}",
        "peak memory, MiB": f"{max(memory):,.0f}",
        "mean memory in the second and the last third, MiB": " and ".join(
            f"{sum(part) / len(part):,.0f}" for part in (memory[third : 2 * third] or memory, memory[-third:])
        ),
        "file, MB": f"{source.stat().st_size / 1e6:,.1f}",
    }
    check_ids(out, rows)
    if a.kills and rows == max(a.rows):
        figures["kills"] = killed(a, source, folder / f"{rows}.killed.csv", out, result["seconds"])
    print(table([f"{rows:,} rows, {result['precision']}", ""], list(figures.items())), "\n", flush=True)


def write_rows(texts: Path, source: Path, rows: int) -> None:
    """Writes the file to score."""
    found = pd.read_parquet(texts).text.tolist()
    with source.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["id", "text"])
        out.writerows((i, found[i % len(found)]) for i in range(rows))


def command(a: argparse.Namespace, source: Path, out: Path) -> list[str]:
    """Returns the command that scores the file."""
    words = [a.run, str(source), "--out", str(out), "--precision", a.precision, "--json", "--quiet"]
    return [sys.executable, "-m", "bertlora", "score", *words]


def scored(words: list[str], kill_after: float | None = None) -> tuple[Result, list[float]]:
    """Runs a scoring, and returns its result and its resident memory over time, in MiB.

    Args:
        words: the command.
        kill_after: kill it after this many seconds; the result is then empty, unless it was faster.
    """
    began, memory = time.perf_counter(), list[float]()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    while process.poll() is None:
        held = resident_mib(process.pid)
        memory += [held] if held else []
        if kill_after is not None and time.perf_counter() - began > kill_after:
            process.send_signal(signal.SIGKILL)
        time.sleep(TICK_S if kill_after is None else 0.01)
    assert process.stdout is not None
    said = process.stdout.read()
    if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"{' '.join(words)}: status {process.returncode}")
    return json.loads(said) if said else {}, memory


def killed(a: argparse.Namespace, source: Path, out: Path, whole: Path, seconds: float) -> str:
    """Scores with kills at random times, and returns what was found."""
    draws = random.Random(a.seed)
    for _ in range(a.kills):
        # The time of a start to import and load comes on top. Each start has a part of the work to do.
        if scored(command(a, source, out), kill_after=5 + draws.random() * seconds / (a.kills + 1))[0]:
            raise SystemExit("a scoring ended before it was killed; give more rows")
        if out.exists():
            raise SystemExit(f"{out}: is there before it is whole")
    result, _ = scored(command(a, source, out))
    check_ids(out, int(source.stem))
    same = hashlib.sha256(out.read_bytes()).digest() == hashlib.sha256(whole.read_bytes()).digest()
    return f"{a.kills}; the last start found {result['resumed']:,} rows done; {'the same' if same else 'ANOTHER'} file"


def check_ids(out: Path, rows: int) -> None:
    """Stops if a row is lost, doubled or out of order."""
    with out.open(newline="", encoding="utf-8") as file:
        ids = [int(row["id"]) for row in csv.DictReader(file)]
    if ids != list(range(rows)):
        raise SystemExit(f"{out}: rows are lost, doubled or out of order")


def logits(run: str, source: str, precision: str) -> Result:
    """Returns the texts/s with and without tokenisation."""
    texts = pd.read_csv(source, keep_default_na=False).text.tolist()[:PACED_TEXTS]
    model = Run.load(run).model
    with model.ready(precision):
        model.logits(model.reader.read(texts[:WARMING_TEXTS]), precision=precision)
        began = time.perf_counter()
        inputs = model.reader.read(texts)
        middle = time.perf_counter()
        model.logits(inputs, precision=precision)
        end = time.perf_counter()
    return {"read": len(texts) / (end - began), "without": len(texts) / (end - middle)}


if __name__ == "__main__":
    main()
