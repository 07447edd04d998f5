#!/usr/bin/env python3
"""What each way with long texts loses, and whether a temperature fitted on validation rows helps on others.

    python benchmarks/long_texts.py imdb.parquet --out runs/long

One recipe is trained on the same rows with each way, and evaluated on other rows: reviews that are over the maximum
length, and reviews that fit. Prints two Markdown tables. Runs that are in --out already are evaluated without training
them again.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from contest import machine, table

from bertlora.confidence.calibration import Calibration
from bertlora.data.prepared import Prepared, prepare
from bertlora.evaluation.comparison import Comparison
from bertlora.evaluation.metrics import classification_metrics
from bertlora.evaluation.verdict import Evaluated
from bertlora.pipeline.training_run import train_run
from bertlora.recipe import Recipe
from bertlora.run.loaded import Run
from bertlora.run.manifest import MANIFEST

WAYS = {
    "right end cut": {"truncation": "right"},
    "left end cut": {"truncation": "left"},
    "middle cut (head and tail)": {"truncation": "head-tail"},
    "windows": {"long_texts": "windows"},
}


def main() -> None:
    """Trains, evaluates and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="Parquet with columns text, label (0, 1, ...)")
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--validation", type=int, default=500)
    parser.add_argument("--judged", type=int, default=1000, help="rows of each kind for the evaluation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="where the runs go")
    a = parser.parse_args()
    frame = pd.read_parquet(a.file)[["text", "label"]].sample(frac=1, random_state=1)
    learned = frame[: a.train + a.validation]
    runs = {name: trained(a, name, keys, learned) for name, keys in WAYS.items()}
    long, short = by_length(next(iter(runs.values())), frame[len(learned) :], a.judged)
    judged = {name: (scored(run, long), scored(run, short)) for name, run in runs.items()}
    print(f"{Path(a.file).name}, {a.train} training rows, evaluated on {len(long)} long and {len(short)} other rows,")
    print(f"seed {a.seed}. {machine()}\n\n{losses(judged)}\n\n{calibration(judged)}")


def trained(a: argparse.Namespace, name: str, keys: dict[str, str], frame: pd.DataFrame) -> Run:
    """Returns the run of one way with long texts."""
    out = a.out / "-".join(keys.values())
    recipe = Recipe.named("default").replace(**keys, seed=a.seed)
    if not (out / MANIFEST).is_file():
        data = a.out / "data"
        if not data.exists():
            a.out.mkdir(parents=True, exist_ok=True)
            frame[: a.train].to_parquet(a.out / "train.parquet")
            frame[a.train :].to_parquet(a.out / "validation.parquet")
            sources = [f"{split}={a.out / split}.parquet" for split in ("train", "validation")]
            prepare(sources, data)
        train_run(Prepared.load(data), recipe, out)
        print(f"{name}: trained", file=sys.stderr)
    return Run.load(out)


def by_length(run: Run, frame: pd.DataFrame, count: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns `count` rows that are over the maximum length, and `count` that fit."""
    framing = run.adapted.reader.template
    lengths = run.adapted.reader.read(list(frame.text)).first.lengths
    over = lengths > framing.room(pair=False)
    return frame[over][:count], frame[~over][:count]


def scored(run: Run, frame: pd.DataFrame) -> Evaluated:
    """Returns a run's logits of rows, with their labels."""
    inputs = run.adapted.reader.read(list(frame.text))
    logits = run.adapted.logits(inputs, precision=run.metrics()["train"]["precision"])
    assert isinstance(run.calibration, Calibration)
    return Evaluated(run.manifest.labels, frame.label.to_numpy(np.int64), {"lora": logits}, run.calibration)


def losses(judged: dict[str, tuple[Evaluated, Evaluated]]) -> str:
    """Returns the table of accuracies, and how each way compares with the first on the long texts."""
    first = next(iter(judged.values()))[0].right("lora")
    rows: list[list[str]] = []
    for name, (long, short) in judged.items():
        mine = first if not rows else long.right("lora")
        found = Comparison.of(first, mine)
        low, high = classification_metrics(long.raw_logits["lora"], long.y_true, long.labels)["accuracy_ci95"]
        rows.append(
            [
                name,
                f"{100 * long.right('lora').mean():.1f} % ({100 * low:.1f} to {100 * high:.1f})",
                "" if first is mine else f"{found.gain:+.1f} ({found.low:+.1f} to {found.high:+.1f})",
                f"{100 * short.right('lora').mean():.1f} %",
            ]
        )
    head = ["", "accuracy, long texts", "points over the first", "accuracy, others"]
    return table(head, rows)


def calibration(judged: dict[str, tuple[Evaluated, Evaluated]]) -> str:
    """Returns the table of calibration errors and losses on all evaluated rows, raw and with the run's temperature."""
    rows = []
    for name, parts in judged.items():
        logits = np.concatenate([part.raw_logits["lora"] for part in parts])
        y_true, temperature = np.concatenate([part.y_true for part in parts]), parts[0].calibration.temperature
        raw, scaled = (classification_metrics(logits / t, y_true, parts[0].labels) for t in (1.0, temperature))
        figures = [f"{found[key]:.4f}" for key in ("ece", "loss") for found in (raw, scaled)]
        rows.append([name, f"{temperature:.2f}", *figures])
    return table(["", "temperature", "ECE, raw", "ECE, calibrated", "log loss, raw", "log loss, calibrated"], rows)


if __name__ == "__main__":
    main()
