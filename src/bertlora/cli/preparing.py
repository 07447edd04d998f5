"""The verbs that come before training: cache, prepare."""

from pathlib import Path
from typing import Any

from bertlora.cli.inputs import SOURCES, column_arguments, columns
from bertlora.cli.registry import OUT, OVERWRITE, Arguments, flag, flags, verb


@verb(
    "cache",
    "fetches a base model and its tokenizer once, for later use offline",
    "bertlora cache distilbert-base-uncased --to models/distilbert",
    flags(
        flag("model", "a hub id, or minilm"),
        flag("--to", "a folder to copy it to, for a machine without a network; default: the hub's cache"),
        OVERWRITE,
    ),
)
def cache(args: Arguments) -> None:
    """Fetches a model."""
    import json
    import shutil

    from bertlora.cli import console
    from bertlora.files import megabytes, size_of, whole_folder
    from bertlora.model.base import ORIGIN, find_base

    base = find_base(args.model)
    base.config()
    base.check_weights()
    folder = base.folder
    if args.to:
        folder = Path(args.to)
        with whole_folder(folder, args.overwrite, inputs=[base.folder]) as partial:
            shutil.copytree(base.folder, partial, dirs_exist_ok=True)
            (partial / ORIGIN).write_text(json.dumps(base.origin) + "\n", encoding="utf-8")
    facts = {"model": base.id, "folder": str(folder), "revision": base.revision, "sha256": base.sha256()}
    if args.json:
        console.print_json(facts)
        return
    print(f"{base.id}: {megabytes(size_of(base.folder))} in {folder}")
    print(f"SHA-256 of its weights: {facts['sha256'] or 'no model.safetensors'}")


@verb(
    "prepare",
    "reads, checks and splits data",
    "bertlora prepare reviews.csv --out data/reviews --split 70/15/15",
    flags(
        flag("source", SOURCES, nargs="+", metavar="SOURCE"),
        OUT,
        columns,
        flag("--split", "train/validation/test in percent; default: 70/15/15", default="70/15/15"),
        flag("--sample", "rows drawn at random, each class in its share; default: all", type=int, default=0),
        flag("--seed", "seed of sample and split; default: 42", type=int, default=42),
        flag("--model", "tokenise for this base model right away; default: minilm, where it is installed"),
        OVERWRITE,
    ),
)
def prepare(args: Arguments) -> None:
    """Prepares data."""
    from bertlora.cli import console
    from bertlora.data.prepared import prepare as prepare_data
    from bertlora.model.base import embedded_folder

    if args.model:
        _check_model(args.model)
    data = prepare_data(
        args.source,
        Path(args.out),
        split=args.split,
        sample=args.sample,
        seed=args.seed,
        overwrite=args.overwrite,
        **column_arguments(args),
    )
    if args.model or embedded_folder():
        _tokenise(data, args.model or "minilm")
    if args.json:
        console.print_json(data.summary() | {"data": args.out})
        return
    console.print_table(["split", "rows"], list(data.rows.items()))
    print(f"labels: {', '.join(data.labels)}\nfingerprint: {data.fingerprint}")
    for check in data.checks:
        print(f"{check['severity']}: {check['name']}, {check['count']:,} rows; {check['advice']}")
    for note in data.notes:
        print(f"note: {note}")
    print(f"Next: bertlora train {args.out} --out runs/a")


def _check_model(model: str) -> None:
    """Finds out that a model cannot serve before anything is read and written."""
    from bertlora.model.base import find_base

    base = find_base(model)
    base.config()
    base.tokenizer()


def _tokenise(data: Any, model: str) -> None:
    from bertlora.model.base import find_base
    from bertlora.model.predict import Reader
    from bertlora.pipeline import split_examples

    reader = Reader.of(find_base(model).tokenizer(), max_length=512, truncation="right")
    for split in data.rows:
        split_examples(reader, data, split)
