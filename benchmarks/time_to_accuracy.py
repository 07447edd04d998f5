#!/usr/bin/env python3
"""How long a recipe takes from the start of the process to the saved run, and how accurate the run is.

    python benchmarks/time_to_accuracy.py imdb.parquet --rows 1000 --judged 4000 --seeds 1 2 3
    python benchmarks/time_to_accuracy.py sst2.parquet --judged-file sst2_validation.parquet --seeds 1 2 3

Rows to learn from and rows to judge by do not overlap. Each run is a fresh process; judging is not in its time. With
`--peers` and `--rows` the stock Trainer learns from the same rows, for as many epochs as `--peer-epochs` says.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from contest import Result, machine, measured, table

from bertlora.model.base import embedded_folder
from bertlora.run import Run


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="Parquet with columns text, label (0, 1, ...)")
    parser.add_argument("--rows", type=int, default=0, help="to learn from; 0 = all that are not judged")
    parser.add_argument("--judged", type=int, default=4000, help="rows of the same file to judge by")
    parser.add_argument("--judged-file", help="judge by these rows instead")
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--change", default="", help='changes to the recipe: "rank=16 learning_rate=5e-4"')
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3], help="of bertlora's runs; may be none")
    parser.add_argument("--peers", help="folder with hf_peft_train.py")
    parser.add_argument("--peer-epochs", type=int, nargs="+", default=[3])
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        judged = split(a, folder)
        results = [one(a, folder, seed, judged) for seed in a.seeds]
        if a.peers:
            results += [peer(a, folder, epochs) for epochs in a.peer_epochs]
    print(f"{Path(a.file).name}, {a.rows or 'all'} rows, judged on {len(judged)} others. {machine()}\n")
    print(summary(results))


def split(a: argparse.Namespace, folder: Path) -> pd.DataFrame:
    """Writes the rows to learn from, and returns those to judge by."""
    frame = pd.read_parquet(a.file)[["text", "label"]].sample(frac=1, random_state=1)
    judged = pd.read_parquet(a.judged_file) if a.judged_file else frame[-a.judged :]
    rest = frame if a.judged_file else frame[: -a.judged]
    rest[: a.rows or len(rest)].to_parquet(folder / "train.parquet")
    judged.to_parquet(folder / "judged.parquet")
    return judged


def one(a: argparse.Namespace, folder: Path, seed: int, judged: pd.DataFrame) -> Result:
    """Trains under one seed and judges the run."""
    out = folder / "run"
    command = [sys.executable, "-m", "bertlora", "train", str(folder / "train.parquet"), "--recipe", a.recipe]
    command += ["--split", "100/0/0", "--out", str(out), "--overwrite", "--json", "--seed", str(seed)]
    command += [f"--{change.replace('_', '-')}" for change in a.change.split()]
    trained = measured(command)
    adapted = Run.load(out).adapted
    scores = adapted.logits(adapted.read(judged.text.tolist()), precision=trained["train"]["precision"])
    trained["accuracy"] = float(np.mean(scores.argmax(1) == judged.label.to_numpy()))
    print(f"seed {seed}: {trained['wall_s']} s, {100 * trained['accuracy']:.2f} %", file=sys.stderr)
    return trained | {"label": f"bertlora, {a.recipe} {a.change}".strip()}


def peer(a: argparse.Namespace, folder: Path, epochs: int) -> Result:
    """Trains the stock peer on the same rows, and lets it judge itself."""
    command = [sys.executable, f"{a.peers}/hf_peft_train.py", "--stock", "--model", str(embedded_folder())]
    command += ["--train", str(folder / "train.parquet"), "--validation", str(folder / "judged.parquet")]
    command += ["--batch", "16", "--epochs", str(epochs)]
    found = measured(command)
    return found | {"wall_s": found["wall_s"] - found["evaluate_s"], "label": f"Trainer + PEFT, stock, {epochs} epochs"}


def summary(results: list[Result]) -> str:
    """Returns the table."""
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
