#!/usr/bin/env python3
"""Flips labels at random, audits the data, and counts how many of the flipped rows come out on top.

    python benchmarks/audit_flips.py imdb_train.parquet --flip 0.05 --seed 1
    python benchmarks/audit_flips.py imdb_train.parquet --rows 5000 --change "adapt_last_layers=3 epochs=2"
    python benchmarks/audit_flips.py imdb_train.parquet --flip 0    # how many labels of clean data it doubts

Each audit is a fresh process of the command line. Labels that were wrong before count against it: they are not among
those flipped. With several `--change` there is a line for each.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from contest import Result, machine, measured, table
from sklearn.metrics import average_precision_score

FIRST = 100
# Column -> its cell. What is said of the rows, and what is found of those that were flipped.
SAID: dict[str, Callable[[Result], str]] = {
    "flagged": lambda r: f"{r['flagged']:,}",
    "wrong, at most": lambda r: f"{r['most_errors']:,}",
    "wrong of the flagged, about": lambda r: f"{r['likely_right']:,}",
    "too weak to say": lambda r: "yes" if r["weak"] else "no",
    "accuracy, true labels": lambda r: f"{100 * r['true_accuracy']:.2f} %",
    "wall time": lambda r: f"{r['wall_s']:.0f} s",
    "peak memory": lambda r: f"{r['peak_mib']:,} MiB",
}
FOUND: dict[str, Callable[[Result], str]] = {
    f"flipped, of the first {FIRST}": lambda r: f"{100 * r['first']:.1f} %",
    "precision = recall at the top": lambda r: f"{100 * r['top']:.1f} %",
    "found, in twice as many rows": lambda r: f"{100 * r['twice']:.1f} %",
    "average precision": lambda r: f"{r['average_precision']:.3f}",
    "flipped, of the flagged": lambda r: f"{100 * r['precision']:.1f} %",
    "flagged, of the flipped": lambda r: f"{100 * r['recall']:.1f} %",
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="Parquet with columns text, label (0, 1, ...)")
    parser.add_argument("--flip", type=float, default=0.05, help="share of the rows whose label is changed; 0 = none")
    parser.add_argument("--seed", type=int, default=1, help="draws rows, which of them are flipped, and to what")
    parser.add_argument("--rows", type=int, default=0, help="drawn at random; 0 = all")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--change", action="append", help='changes to the recipe: "adapt_last_layers=3 epochs=2"')
    a = parser.parse_args()
    frame = pd.read_parquet(a.file)[["text", "label"]]
    frame = frame.sample(a.rows or len(frame), random_state=a.seed) if a.rows else frame
    true = frame.label.to_numpy()
    given = flipped(true, a.flip, a.seed)
    with tempfile.TemporaryDirectory() as name:
        frame.assign(label=given).to_parquet(Path(name) / "flipped.parquet", index=False)
        results = [audited(a, Path(name), change, true, given) for change in a.change or [""]]
    print(f"{Path(a.file).name}, {len(true):,} rows, {np.sum(true != given):,} of them flipped. {machine()}\n")
    print(summary(results))


def flipped(true: npt.NDArray[np.int64], share: float, seed: int) -> npt.NDArray[np.int64]:
    """Returns the labels, a random share of them changed to another class."""
    random = np.random.default_rng(seed)
    classes = int(true.max()) + 1
    rows = random.choice(len(true), round(share * len(true)), replace=False)
    given = true.copy()
    given[rows] = (true[rows] + random.integers(1, classes, len(rows))) % classes
    return given


def audited(
    a: argparse.Namespace, folder: Path, change: str, true: npt.NDArray[np.int64], given: npt.NDArray[np.int64]
) -> Result:
    """Audits the flipped data and returns the figures."""
    command = [sys.executable, "-m", "bertlora", "audit", str(folder / "flipped.parquet"), "--json", "--overwrite"]
    command += ["--folds", str(a.folds), "--out", str(folder / "all.csv")]
    command += [f"--{key.replace('_', '-')}={value}" for key, _, value in (c.partition("=") for c in change.split())]
    found = measured(command)
    ranked = pd.read_csv(folder / "all.csv", usecols=["row", "suggested", "label_quality", "doubtful"])
    wrong = (true != given)[ranked.row]
    # Only by the score: the file has the rows that cleanlab flags first.
    by_doubt = wrong[np.argsort(ranked.label_quality.to_numpy(), kind="stable")]
    doubtful = ranked.doubtful.to_numpy()
    figures = {
        "label": change or "default",
        "flipped": int(wrong.sum()),
        "flagged": int(doubtful.sum()),
        "true_accuracy": float(np.mean(ranked.suggested.to_numpy() == true[ranked.row])),
    }
    if wrong.any():
        figures |= {
            "first": float(by_doubt[:FIRST].mean()),
            "top": float(by_doubt[: wrong.sum()].mean()),
            "twice": float(by_doubt[: 2 * wrong.sum()].sum() / wrong.sum()),
            "average_precision": float(average_precision_score(wrong, -ranked.label_quality)),
            "precision": float(wrong[doubtful].mean()) if doubtful.any() else float("nan"),
            "recall": float(wrong[doubtful].sum() / wrong.sum()),
        }
    print(figures, f"{found['wall_s']} s", file=sys.stderr)
    return found | figures


def summary(results: list[Result]) -> str:
    """Returns the table. As many rows are taken as were flipped: precision and recall are then one figure.

    If none was flipped, every flagged row and every label that is called wrong counts against the audit.
    """
    columns = (FOUND if results[0]["flipped"] else {}) | SAID
    return table(["", *columns], [[r["label"], *(shown(r) for shown in columns.values())] for r in results])


if __name__ == "__main__":
    main()
