"""The verbs that come before training: cache, prepare."""

import sys
from collections.abc import Sequence
from typing import Any

from bertlora.cli.console import show
from bertlora.cli.options import (
    COLUMNS,
    LABEL_RULES,
    OVERWRITE,
    PATH,
    SOURCES,
    SPLIT_COLUMNS,
    OneOf,
    Option,
    Whole,
    flag,
    required,
)
from bertlora.cli.verb import Argument, verb
from bertlora.recipe import Recipe
from bertlora.task import AUTO, CLASSIFICATION, MULTILABEL, TASKS

ROWS_SHOWN = 3


def show_cached(found: dict[str, Any]) -> None:
    """Prints where the model is, its size, and its hash."""
    from bertlora.files import megabytes

    show(f"{found['model']}: {megabytes(found['bytes'])} in {found['folder']}")
    show(f"SHA-256 of its weights: {found['sha256'] or 'no model.safetensors'}")


@verb(
    "Fetch a base model and its tokenizer once, for later use offline.",
    "bertlora cache distilbert-base-uncased --to models/distilbert",
    Argument("model", text="a hub id, a folder, or minilm", type=PATH, metavar="MODEL"),
    Option(
        "--to",
        "a folder to copy it to, for a machine without a network; default: the hub's cache",
        type=PATH,
        metavar="DIR",
    ),
    OVERWRITE,
    show=show_cached,
)
def cache(model: str, **options: Any) -> dict[str, Any]:
    """Fetches a model."""
    from bertlora.pipeline.cache import cache

    return cache(model, **options)


def show_prepared(found: dict[str, Any]) -> None:
    """Prints the rows of each split, the labels, and all checks."""
    from bertlora.cli.console import print_table

    print_table(["split", "rows"], list(found["rows"].items()))
    names = ", ".join(found["labels"])
    kinds = {CLASSIFICATION: f"labels: {names}", MULTILABEL: f"any number of the labels: {names}"}
    targets = kinds.get(found["task"], f"{found['task']}, of the column '{names}'")
    show(f"{targets}\nfingerprint: {found['fingerprint']}")
    print_checks(found["checks"])
    for note in found["notes"]:
        show(f"note: {note}")
    show(f"Next: bertlora train {found['data']} --out runs/a")


def print_checks(checks: Sequence[dict[str, Any]], stderr: bool = False) -> None:
    """Prints what the checks found as a table: check, severity, count, the first rows, what to do."""
    from bertlora.cli.console import print_table
    from bertlora.data.checks import named_rows

    if not checks:
        print("checks: nothing found", file=sys.stderr if stderr else sys.stdout)
        return
    rows = [[c["name"], c["severity"], c["count"], named_rows(c, ROWS_SHOWN), c["advice"]] for c in checks]
    print_table(["check", "severity", "count", "first rows", "what to do"], rows, stderr=stderr)


@verb(
    "Read, check and split data.",
    "bertlora prepare reviews.csv --out data/reviews --split 70/15/15",
    Argument("source", text=SOURCES, nargs=-1, required=True, type=PATH, metavar="SOURCE..."),
    required("--out", "the folder to write", "DATA"),
    *COLUMNS,
    *SPLIT_COLUMNS,
    *LABEL_RULES,
    Option("--split", "train/validation/test in percent; a 0 leaves a part out", metavar="A/B/C", default=Recipe.split),
    Option(
        "--sample",
        "rows drawn at random, each class in its proportion; 0 = all",
        type=Whole(0),
        default=Recipe.sample,
    ),
    Option(
        "--sample-from",
        Recipe.__dataclass_fields__["sample_from"].metadata["help"],
        type=OneOf(Recipe.__dataclass_fields__["sample_from"].metadata["choices"]),
        default=Recipe.sample_from,
    ),
    Option("--seed", "seed of sample and split", type=Whole(0), default=Recipe.seed),
    Option(
        "--task", Recipe.__dataclass_fields__["task"].metadata["help"], type=OneOf((AUTO, *TASKS)), default=Recipe.task
    ),
    Option(
        "--model",
        "the base model whose tokenizer checks the texts; default: minilm, if it is installed",
        type=PATH,
        metavar="MODEL",
    ),
    Option(
        "--max-length",
        "tokens that the truncation check allows a text; default: 512, or the model's limit if that is lower",
        type=Whole(),
    ),
    flag("--strict", "treat a check's warning as an error: nothing is written"),
    flag("--fix", "drop exact duplicates and split without leakage; says what it did"),
    OVERWRITE,
    show=show_prepared,
)
def prepare(source: Sequence[str], out: str, **options: Any) -> dict[str, Any]:
    """Prepares data."""
    from bertlora.pipeline.prepare import prepare

    return prepare(source, out, **options)
