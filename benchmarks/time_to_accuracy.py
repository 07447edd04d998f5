#!/usr/bin/env python3
"""Measures the time from the start of the process to the saved run, and the accuracy of the run.

    python benchmarks/time_to_accuracy.py imdb.parquet --rows 1000 --judged 4000 --seeds 1 2 3
    python benchmarks/time_to_accuracy.py sst2.parquet --judged-file sst2_validation.parquet --seeds 1 2 3

The rows for training and for evaluation do not overlap. Each run is a fresh process; its time does not include the
evaluation. With `--peers` and `--rows` the stock Trainer trains on the same rows, for `--peer-epochs` epochs.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from contest import Result, machine, measured, table

from bertlora.model.fetch import embedded_folder
from bertlora.run.loaded import Run


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="Parquet with columns text, label (0, 1, ...)")
    parser.add_argument(
        "--rows", type=int, default=0, help="rows to train on; 0 = all that are not used for the evaluation"
    )
    parser.add_argument("--judged", type=int, default=4000, help="rows of the same file for the evaluation")
    parser.add_argument("--judged-file", help="evaluate on the rows of this file instead")
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--change", default="", help='changes to the recipe: "rank=16 learning_rate=5e-4"')
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=[1, 2, 3], help="seeds of bertlora's runs; can be empty"
    )
    parser.add_argument("--peers", help="folder with hf_peft_train.py")
    parser.add_argument("--peer-epochs", type=int, nargs="+", default=[3])
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        judged = split(a, folder)
        results = [one(a, folder, seed, judged) for seed in a.seeds]
        if a.peers:
            results += [peer(a, folder, epochs) for epochs in a.peer_epochs]
    print(f"{Path(a.file).name}, {a.rows or 'all'} rows, evaluated on {len(judged)} others. {machine()}\n")
    print(summary(results))


def split(a: argparse.Namespace, folder: Path) -> pd.DataFrame:
    """Writes the rows for training, and returns the rows for evaluation."""
    frame = pd.read_parquet(a.file)[["text", "label"]].sample(frac=1, random_state=1)
    judged = pd.read_parquet(a.judged_file) if a.judged_file else frame[-a.judged :]
    rest = frame if a.judged_file else frame[: -a.judged]
    rest[: a.rows or len(rest)].to_parquet(folder / "train.parquet")
    judged.to_parquet(folder / "judged.parquet")
    return judged


def one(a: argparse.Namespace, folder: Path, seed: int, judged: pd.DataFrame) -> Result:
    """Trains with one seed, and evaluates the run."""
    out = folder / "run"
    command = [sys.executable, "-m", "bertlora", "train", str(folder / "train.parquet"), "--recipe", a.recipe]
    command += ["--split", "100/0/0", "--out", str(out), "--overwrite", "--json", "--seed", str(seed)]
    command += [f"--{change.replace('_', '-')}" for change in a.change.split()]
    trained = measured(command)
    adapted = Run.load(out).adapted
    scores = adapted.logits(adapted.reader.read(judged.text.tolist()), precision=trained["train"]["precision"])
    trained["accuracy"] = float(np.mean(scores.argmax(1) == judged.label.to_numpy()))
    print(f"seed {seed}: {trained['wall_s']} s, {100 * trained['accuracy']:.2f} %", file=sys.stderr)
    return trained | {"label": f"bertlora, {a.recipe} {a.change}".strip()}


def peer(a: argparse.Namespace, folder: Path, epochs: int) -> Result:
    """Trains the stock peer on the same rows; it evaluates itself."""
    command = [sys.executable, f"{a.peers}/hf_peft_train.py", "--stock", "--model", str(embedded_folder())]
    command += ["--train", str(folder / "train.parquet"), "--validation", str(folder / "judged.parquet")]
    command += ["--batch", "16", "--epochs", str(epochs)]
    found = measured(command)
    return found | {"wall_s": found["wall_s"] - found["evaluate_s"], "label": f"Trainer + PEFT, stock, {epochs} epochs"}


def summary(results: list[Result]) -> str:
    """Returns the Markdown table."""
    rows = []
    for label in dict.fromkeys(r["label"] for r in results):
        found = [r for r in results if r["label"] == label]
        accuracy, seconds = [100 * r["accuracy"] for r in found], [r["wall_s"] for r in found]
        spread = f"{min(accuracy):.2f} to {max(accuracy):.2f}"
        rows.append(
            [
                label,
                len(found),
                f"{statistics.mean(accuracy):.2f} %",
                spread,
                f"{max(seconds):.1f} s",
                f"{max(r['peak_mib'] for r in found):,} MiB",
            ]
        )
    return table(
        ["", "seeds", "accuracy, mean", "lowest to highest", "slowest, start to saved run", "peak memory"], rows
    )


if __name__ == "__main__":
    main()
