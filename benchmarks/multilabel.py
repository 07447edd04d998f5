#!/usr/bin/env python3
"""Compares linear probe, TF-IDF and LoRA where a review may have several labels.

    python benchmarks/multilabel.py imdb.parquet --rows 3000

The labels are made from stars, length and words of the reviews, (text, rating) in Parquet: positive (7 stars or more),
extreme (1, 2, 9 or 10), long (200 words or more), and comedy, drama and horror if the review has that word. The rows
are prepared with --fix, so similar texts are in one split. Prints what `bertlora evaluate` prints.
"""

import argparse
import json
import re
import tempfile
from pathlib import Path

import pandas as pd
from contest import machine

import bertlora
from bertlora.cli import main as bertlora_main

GENRES = ("comedy", "drama", "horror")
LONG = 200


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="Parquet with columns text, rating")
    parser.add_argument("--rows", type=int, default=3000, help="rows in all: 60 % train, 10 % validation, 30 % test")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()
    frame = pd.read_parquet(a.file).sample(a.rows, random_state=a.seed)
    with tempfile.TemporaryDirectory() as name:
        rows, folder = Path(name) / "rows.jsonl", Path(name) / "data"
        lines = zip(frame.text, frame.rating, strict=True)
        rows.write_text(
            "".join(json.dumps({"text": text, "label": labels(text, stars)}) + "\n" for text, stars in lines)
        )
        bertlora.prepare(rows, folder, split="60/10/30", seed=a.seed, fix=True)
        bertlora.train(folder, Path(name) / "run", max_length=a.max_length, seed=a.seed)
        print(f"{a.rows:,} rows of {Path(a.file).name}, {a.max_length} tokens. {machine()}\n", flush=True)
        bertlora_main(["evaluate", str(Path(name) / "run")])


def labels(text: str, stars: int) -> list[str]:
    """Returns the labels of a review."""
    words = re.findall(r"[a-z]+", text.lower())
    found = {"positive": stars >= 7, "extreme": stars in (1, 2, 9, 10), "long": len(words) >= LONG}
    return [name for name, has in found.items() if has] + [genre for genre in GENRES if genre in words]


if __name__ == "__main__":
    main()
