"""The verbs that come before training: cache, prepare."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertlora.cli.inputs import SOURCES, column_arguments, columns
from bertlora.cli.registry import OUT, OVERWRITE, Arguments, flag, flags, verb
from bertlora.errors import InputError

if TYPE_CHECKING:
    from bertlora.data.prepared import Prepared
    from bertlora.model.predict import Reader

MAX_LENGTH = 512
ROWS_SHOWN = 3


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
        flag("--max-length", "tokens that the truncation check allows a text; default: 512, or the model's", type=int),
        flag("--strict", "a check's warning is an error: nothing is written", action="store_true"),
        flag("--fix", "drop exact duplicates and split without leakage; says what it did", action="store_true"),
        OVERWRITE,
    ),
)
def prepare(args: Arguments) -> None:
    """Prepares data."""
    from bertlora.cli import console
    from bertlora.data.prepared import prepare as prepare_data

    data = prepare_data(
        args.source,
        Path(args.out),
        split=args.split,
        sample=args.sample,
        seed=args.seed,
        overwrite=args.overwrite,
        strict=args.strict,
        fix=args.fix,
        more_checks=_token_checks(args.model, args.max_length),
        **column_arguments(args),
    )
    if args.json:
        console.print_json(data.summary() | {"data": args.out})
        return
    console.print_table(["split", "rows"], list(data.rows.items()))
    print(f"labels: {', '.join(data.labels)}\nfingerprint: {data.fingerprint}")
    print_checks(data.checks)
    for note in data.notes:
        print(f"note: {note}")
    print(f"Next: bertlora train {args.out} --out runs/a")


def print_checks(checks: Sequence[dict[str, Any]], stderr: bool = False) -> None:
    """Prints what the checks found as a short table: check, severity, count, the first rows, what to do."""
    from bertlora.cli import console
    from bertlora.data.checks.naming import named_rows

    if not checks:
        print("checks: nothing found", file=sys.stderr if stderr else sys.stdout)
        return
    rows = [[c["name"], c["severity"], c["count"], named_rows(c, ROWS_SHOWN), c["advice"]] for c in checks]
    console.print_table(["check", "severity", "count", "first rows", "what to do"], rows, stderr=stderr)


def _token_checks(model: str | None, max_length: int | None) -> "Callable[[Prepared], list[dict[str, Any]]]":
    """Returns the checks that need a tokenizer, which keep the tokens in the prepared folder; none without a model.

    What cannot serve is found out here, before anything is read and written.
    """
    from bertlora.model.base import embedded_folder, find_base, longest_input
    from bertlora.model.predict import Reader

    if model is None and embedded_folder() is None:
        if max_length is not None:
            raise InputError("--max-length: needs a tokenizer to count tokens with; name a base model by --model")
        return lambda data: []
    base = find_base(model or "minilm")
    longest = longest_input(base.config())
    if max_length is not None and not 0 < max_length <= longest:
        raise InputError(f"--max-length: got {max_length}, expected 1 to {longest}, the positions of {base.id}")
    reader = Reader.of(base.tokenizer(), min(MAX_LENGTH, longest) if max_length is None else max_length, "right")
    return lambda data: checks_as_read(data, reader)


def checks_as_read(data: "Prepared", reader: "Reader") -> list[dict[str, Any]]:
    """Returns the checks of what a model reads of the texts; their tokens are kept in the prepared folder."""
    from bertlora.data.checks import token_checks
    from bertlora.pipeline import split_examples

    unknown = reader.tokenizer.unk_token_id
    return token_checks(data, lambda split: split_examples(reader, data, split).inputs, unknown)
