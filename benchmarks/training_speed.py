#!/usr/bin/env python3
"""Compares the training speed with transformers' Trainer and PEFT, on the same rows with the same recipe.

    python benchmarks/training_speed.py imdb.parquet --peers PEERS --rows 400 --batch 16 --log speed.jsonl

PEERS is a folder with hf_peft_train.py. With `--stock` it trains as tutorials do, with `--tuned` with the best flags.
The programs take turns, each in a fresh process. Prints a Markdown table: examples/s of only the training loop, real
tokens/s, percentage of the matrix product's speed, wall time of the whole process, peak memory.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import pandas as pd
from contest import Result, contest_parser, interleaved, machine, median, ratios, table

from bertlora.model.fetch import embedded_folder
from bertlora.model.machine import speed
from bertlora.recipe import Recipe

STOCK, TUNED, FP32, OURS = "Trainer + PEFT, stock", "Trainer + PEFT, tuned", "bertlora, fp32", "bertlora"
# The format of the matrix product that a program is compared with; only the last one chooses it.
FORMATS = {STOCK: "fp32", TUNED: "bf16", FP32: "fp32"}
# MiniLM's linear layers: four products of 384 x 384 and two of 384 x 1,536 in each of six layers.
WEIGHTS = 6 * (4 * 384 * 384 + 2 * 384 * 1536)


def main() -> None:
    """Measures and prints."""
    parser = contest_parser(__doc__)
    parser.add_argument("file", help="Parquet with columns text, label")
    parser.add_argument("--peers", required=True, help="folder with hf_peft_train.py")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--targets", default="query", help="module names to adapt, or all-linear")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        contestants = commands(a, Path(folder))
        key: Result = {"contest": "training", "file": Path(a.file).name, "rows": a.rows, "targets": a.targets} | {
            "batch": a.batch
        }
        results = interleaved(contestants, a.rounds, Path(a.log), key)
    print(f"{Path(a.file).name}, {a.rows} rows, batch {a.batch}, {a.rounds} rounds. {machine()}\n")
    print(summary([normal(r) for r in results]))


def commands(a: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    """Returns the four commands; all use the same rows."""
    rows = pd.read_parquet(a.file)[["text", "label"]].sample(a.rows, random_state=1)
    rows.to_parquet(folder / "train.parquet")
    recipe = Recipe(
        targets=tuple(a.targets.split(",")),
        rank=4,
        alpha=32.0,
        lora_dropout=0.01,
        batch_size=a.batch,
        epochs=1,
        max_length=512,
        truncation="left",
        head_start="random",
        warmup_fraction=0.0,
        average_weights=0.0,
        split="100/0/0",
    )
    (folder / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    peer = [sys.executable, f"{a.peers}/hf_peft_train.py", "--model", str(embedded_folder()), "--no-eval"]
    peer += ["--train", a.file, "--validation", str(folder / "train.parquet"), "--n", str(a.rows)]
    peer += ["--batch", str(a.batch), "--targets", a.targets]
    ours = [sys.executable, "-m", "bertlora", "train", str(folder / "train.parquet"), "--overwrite", "--json"]
    ours += ["--recipe", str(folder / "recipe.toml"), "--out", str(folder / "run")]
    own = {FP32: [*ours, "--precision", "fp32"], OURS: ours}
    return {STOCK: [*peer, "--stock"], TUNED: [*peer, "--tuned"]} | own


def normal(result: Result) -> Result:
    """Returns a result with examples/s and tokens/s at its top level, also if the program nests them."""
    own: Result = result.get("train", {})
    return result | own


def summary(results: list[Result]) -> str:
    """Returns the Markdown table."""

    def pace(result: Result) -> float:
        return float(result["examples_per_s"])

    rows = []
    chosen = next(str(r["precision"]) for r in results if r["name"] == OURS)
    for name in (STOCK, TUNED, FP32, OURS):
        tokens = median(results, name, lambda r: float(r["tokens_per_s"]))
        rate = tokens * 4 * WEIGHTS / speed(FORMATS.get(name, "bf16" if chosen == "bf16" else "fp32"))
        rows.append(
            [
                f"{name}, {chosen} by itself" if name == OURS else name,
                f"{median(results, name, pace):.1f}",
                ratios(results, name, STOCK, pace),
                ratios(results, name, TUNED, pace),
                f"{tokens:,.0f}",
                f"{100 * rate:.0f} %",
                f"{median(results, name, lambda r: float(r['wall_s'])):.1f} s",
                f"{median(results, name, lambda r: float(r['peak_mib'])):,.0f} MiB",
            ]
        )
    head = ["", "examples/s", "times stock", "times tuned", "tokens/s", "of the product's rate", "wall", "peak memory"]
    return table(head, rows)


if __name__ == "__main__":
    main()
