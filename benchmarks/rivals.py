#!/usr/bin/env python3
"""Compares base, linear probe, TF-IDF and LoRA on test rows that no training row leaks into.

    python benchmarks/rivals.py imdb.parquet --rows 250 1000 5000 --lengths 128 512 --log rivals.jsonl

The file is prepared once with --fix, so similar texts are in one split. For each number of training rows, the first
ones of the same random order are taken, and a sixth of that number as validation rows. All are evaluated on the same
test rows. Prints a Markdown table: accuracy with its 95 % interval, seconds of training, and LoRA's gain over the
better rival with its interval.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from contest import machine, table

import bertlora

NAMES = {"base": "base", "probe": "linear probe", "tfidf": "TF-IDF", "lora": "LoRA"}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="Parquet with columns text, label")
    parser.add_argument("--rows", type=int, nargs="+", default=[250, 1000, 5000], help="training rows; 0 = all")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512], help="values of max_length")
    parser.add_argument("--test", type=int, default=2000, help="test rows at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--log", default="rivals.jsonl", help="JSONL file with the results; they are not measured again"
    )
    a = parser.parse_args()
    log = Path(a.log)
    results = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    with tempfile.TemporaryDirectory() as name:
        parts = split(Path(a.file), Path(name), a.seed)
        for rows in a.rows:
            for length in a.lengths:
                key = {"file": Path(a.file).name, "rows": rows, "length": length, "seed": a.seed, "test": a.test}
                if any(key.items() <= found.items() for found in results):
                    continue
                results.append(key | one(parts, rows, length, a.test, a.seed, Path(name)))
                with log.open("a") as file:
                    file.write(json.dumps(results[-1]) + "\n")
                print(f"{rows} rows, length {length}: done", file=sys.stderr)
    own = [found for found in results if found["file"] == Path(a.file).name and found["test"] == a.test]
    print(f"{Path(a.file).name}, at most {a.test:,} test rows. {machine()}\n")
    print(summary(own))


def split(file: Path, folder: Path, seed: int) -> dict[str, pd.DataFrame]:
    """Returns train, validation and test rows in random order, with similar texts in one split."""
    bertlora.prepare(file, folder / "data", split="60/10/30", seed=seed, fix=True)
    return {
        name: pd.read_parquet(folder / "data" / f"{name}.parquet").sample(frac=1, random_state=seed)
        for name in ("train", "validation", "test")
    }


def one(parts: dict[str, pd.DataFrame], rows: int, length: int, test: int, seed: int, folder: Path) -> dict[str, Any]:
    """Trains on the first rows, and evaluates all classifiers."""
    count = rows or len(parts["train"])
    chosen = {"train": parts["train"][:count], "validation": parts["validation"][: max(1, count // 6)]}
    chosen["test"] = parts["test"][:test]
    for name, frame in chosen.items():
        frame[["text", "label"]].to_parquet(folder / f"{name}-part.parquet")
    sources = [f"{name}={folder / f'{name}-part.parquet'}" for name in chosen]
    trained = bertlora.train(sources, folder / "run", overwrite=True, max_length=length, seed=seed)
    found = bertlora.evaluate(folder / "run")
    return {
        "train_rows": count,
        "seconds": {"lora": trained["train"]["seconds"]}
        | {name: rival["seconds"] for name, rival in trained["rivals"].items()},
        "accuracy": {name: found[name]["accuracy"] for name in NAMES},
        "interval": {name: found[name]["accuracy_ci95"] for name in NAMES},
        "comparisons": found["comparisons"],
        "n": found["n"],
    }


def summary(results: list[dict[str, Any]]) -> str:
    """Returns the Markdown table."""
    rows = []
    for r in sorted(results, key=lambda r: (r["train_rows"], r["length"])):
        better = max(("probe", "tfidf"), key=lambda name: r["accuracy"][name])
        gain = r["comparisons"][better]
        low, high = gain["gain_points_ci95"]
        cells = [f"{r['train_rows']:,}", r["length"]]
        for name in NAMES:
            bottom, top = (100 * end for end in r["interval"][name])
            seconds = f", {r['seconds'][name]:,.0f} s" if name in r["seconds"] else ""
            cells.append(f"{100 * r['accuracy'][name]:.1f} % ({bottom:.1f} to {top:.1f}){seconds}")
        told = f"{gain['gain_points']:+.1f} ({low:+.1f} to {high:+.1f})"
        rows.append([*cells, f"{told}{'' if gain['significant'] else ', not significant'}, {NAMES[better]}"])
    return table(["rows", "tokens", *NAMES.values(), "LoRA over the better rival, points"], rows)


if __name__ == "__main__":
    main()
