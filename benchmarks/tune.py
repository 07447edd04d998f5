#!/usr/bin/env python3
"""Tries changes to a recipe: trains on some rows of a file, and evaluates on other rows.

    python benchmarks/tune.py imdb.parquet --train 1000 --validation 1000 --seeds 1 2 3 --log tune.jsonl \
        --try "" "truncation=left" "rank=16 alpha=32 learning_rate=5e-4"

Each result is a line in --log. A result that is already there is not computed again. Prints a Markdown table.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bertlora.data.reader import Examples, Reader
from bertlora.model.adapted import Adapted
from bertlora.pipeline.training_run import fitted_rivals
from bertlora.recipe import Recipe, parse_value
from bertlora.training.loop import Training


def main() -> None:
    """Trains every change with every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="Parquet with columns text, label (0, 1, ...)")
    parser.add_argument("--validation-file", help="rows for the evaluation, if they are in another file")
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--validation", type=int, default=1000)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--try", dest="changes", nargs="+", default=[""], help='changes: "rank=16 learning_rate=5e-4"')
    parser.add_argument("--log", required=True)
    a = parser.parse_args()
    train, validation = rows(a)
    log = Path(a.log)
    results = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    for seed in a.seeds:
        for change in a.changes:
            key = {"file": Path(a.file).name, "train": a.train, "recipe": a.recipe, "change": change, "seed": seed}
            key |= {"judged": Path(a.validation_file or a.file).name, "validation": len(validation)}
            if not any(key.items() <= r.items() for r in results):
                results.append(key | attempt(a.recipe, change, seed, train, validation))
                with log.open("a") as file:
                    file.write(json.dumps(results[-1]) + "\n")
    print(table([r for r in results if r["file"] == Path(a.file).name and r["train"] == a.train]))


def rows(a: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns training and validation rows, which do not overlap and are the same for all changes."""
    frame = pd.read_parquet(a.file)[["text", "label"]].sample(frac=1, random_state=1)
    if len(frame) < a.train + (0 if a.validation_file else a.validation):
        raise SystemExit(f"{a.file} has {len(frame)} rows, which is too few for both parts")
    if a.validation_file:
        return frame[: a.train], pd.read_parquet(a.validation_file)
    return frame[: a.train], frame[-a.validation :]


def attempt(name: str, change: str, seed: int, train: pd.DataFrame, validation: pd.DataFrame) -> dict[str, Any]:
    """Trains once, and returns the accuracy and loss of each epoch."""
    changes = {key: parse_value(key, value) for key, _, value in (part.partition("=") for part in change.split())}
    recipe = Recipe.named(name).replace(**changes, seed=seed)
    adapted = Adapted.fresh(recipe, [str(label) for label in sorted(train.label.unique())])
    began = time.perf_counter()
    learned, judged = examples(adapted.reader, train), examples(adapted.reader, validation)
    training = Training(adapted, recipe, learned, judged)
    fitted_rivals(adapted, training, (list(train.text), None), (list(validation.text), None))
    for _ in training.run():
        pass
    history = training.progress.history
    return {
        "accuracy": [round(e["accuracy"], 4) for e in history],
        "validation_loss": [round(e["validation_loss"], 4) for e in history],
        "train_loss": [round(e["train_loss"], 4) for e in history],
        "seconds": round(time.perf_counter() - began, 1),
    }


def examples(reader: Reader, frame: pd.DataFrame) -> Examples:
    """Returns the rows as the training loop needs them."""
    return Examples(reader.read(list(frame.text)), frame.label.to_numpy(np.int64))


def table(results: list[dict[str, Any]]) -> str:
    """Returns a Markdown table with one row per change; figures are means over seeds.

    The most accurate epoch has the kept adapter; of two, the one with the lower loss.
    """
    lines = [
        "| recipe | change | seeds | accuracy by epoch, % | validation loss by epoch | kept adapter, % | its loss |",
        "|---|---|---|---|---|---|---|",
    ]
    for recipe, change in dict.fromkeys((r["recipe"], r["change"]) for r in results):
        found = [r for r in results if (r["recipe"], r["change"]) == (recipe, change)]
        accuracy = ", ".join(f"{100 * x:.1f}" for x in by_epoch(r["accuracy"] for r in found))
        losses = ", ".join(f"{x:.3f}" for x in by_epoch(r["validation_loss"] for r in found))
        kept = [max(zip(r["accuracy"], (-x for x in r["validation_loss"]), strict=True)) for r in found]
        best, loss = [100 * right for right, _ in kept], -statistics.mean(score for _, score in kept)
        spread = f"{statistics.mean(best):.1f} ({min(best):.1f} to {max(best):.1f})"
        lines.append(
            f"| {recipe} | {change or 'none'} | {len(found)} | {accuracy} | {losses} | {spread} | {loss:.3f} |"
        )
    return "\n".join(lines)


def by_epoch(figures: Iterable[list[float]]) -> list[float]:
    """Returns the mean over seeds of a figure, for each epoch."""
    return [statistics.mean(epoch) for epoch in zip(*figures, strict=True)]


if __name__ == "__main__":
    main()
