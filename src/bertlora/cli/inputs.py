"""What verbs are given, turned into data: a prepared folder or any source."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertlora.cli.registry import MODEL, PRECISION, Arguments, flag, flags
from bertlora.errors import DataError, InputError
from bertlora.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from bertlora.data.prepared import Prepared
    from bertlora.run import Run
    from bertlora.training.events import Examples

SOURCES = (
    "a CSV, TSV, JSONL or Parquet file, a folder pos/ neg/, hub:NAME[/CONFIG], or train=FILE validation=FILE test=FILE"
)

text_columns = flags(
    flag("--text-column", "the column of the text; found by its name when left out"),
    flag("--text-pair-column", "the column of the second text of a pair; found by its name"),
)
columns = flags(text_columns, flag("--label-column", "the column of the label; found by its name"))


def judging_flags(
    whose: str, split: Callable[[argparse.ArgumentParser], None]
) -> Callable[[argparse.ArgumentParser], None]:
    """Returns the flags of a verb that judges: which rows, `whose` data where none are named, base and precision."""
    data = flag("--data", f"a prepared folder, or {SOURCES}; default: the data of {whose}", nargs="+")
    return flags(data, split, columns, MODEL, PRECISION)


def column_arguments(args: Arguments) -> dict[str, Any]:
    """Returns the column flags as keyword arguments of `prepare` and its kin."""
    return {name: getattr(args, name) for name in ("text_column", "text_pair_column", "label_column")}


def given_data(args: Arguments, recipe: Recipe, folder: Path) -> "Prepared":
    """Returns the prepared folder that DATA names, or prepares in `folder` the source that DATA or recipe names."""
    from bertlora.data.prepared import Prepared, is_prepared, prepare

    specs = args.sources or recipe.data
    if len(specs) == 1 and is_prepared(specs[0]):
        _refuse_preparing(args, "sample", "split")
        return Prepared.load(Path(specs[0]))
    if is_prepared(folder):
        return Prepared.load(folder)
    if not specs:
        raise InputError(f"DATA is missing, and the recipe names none; name a prepared folder, or {SOURCES}")
    return prepare(
        specs,
        folder,
        split=recipe.split,
        sample=recipe.sample,
        seed=recipe.seed,
        overwrite=True,
        **column_arguments(args),
    )


def absolute_sources(specs: Sequence[str]) -> tuple[str, ...]:
    """Returns the sources so that they mean the same in any folder: `reviews.csv`, `train=FILE`, `hub:NAME`."""
    return tuple(_absolute(spec) for spec in specs)


def _absolute(spec: str) -> str:
    from bertlora.data.sources import SPLIT_ALIASES

    split, sign, path = spec.partition("=")
    if spec.startswith("hub:"):
        return spec
    if sign and split in SPLIT_ALIASES and not Path(spec).exists():
        return f"{split}={os.path.abspath(path)}"
    return os.path.abspath(spec)


def _refuse_preparing(args: Arguments, *names: str) -> None:
    """Raises InputError for a flag that tells how to prepare data, when they are prepared."""
    for name in (*names, *column_arguments(args)):
        if getattr(args, name) is not None:
            raise InputError(f"--{name.replace('_', '-')}: DATA is prepared already; give these to prepare")


def labelled_rows(args: Arguments, run: "Run") -> tuple["Examples", str]:
    """Returns the rows that `--data` and `--split` name, or the run's own split, with the run's labels; and their name.

    Raises:
        DataError: the run's data has gone, the split is missing, or the labels are others.
    """
    from bertlora.data.prepared import Prepared, is_prepared, read_rows
    from bertlora.pipeline import split_examples
    from bertlora.training.events import Examples

    manifest = run.manifest
    if args.data:
        if len(args.data) > 1 or not is_prepared(args.data[0]):
            where = {"split": args.split, **column_arguments(args)}
            rows = read_rows(args.data, manifest.source_labels, aliases=manifest.labels, **where)
            return Examples(run.adapted.read(rows.texts, rows.pairs), rows.labels), _name(args, rows.name)
        data = Prepared.load(Path(args.data[0]))
    else:
        data = Prepared.load(own_data(run))
    _refuse_preparing(args)
    data.require(args.split)
    run.adapted.check_pairs(data.has_pairs)
    examples = split_examples(run.adapted.reader, data, args.split)
    return Examples(examples.inputs, _order(data.labels, run)[examples.labels]), _name(args, args.split)


def own_data(run: "Run") -> Path:
    """Returns the folder of the prepared data that a run was trained on.

    Raises:
        DataError: it has gone.
    """
    folder = run.data_folder
    if folder is None:
        raise DataError(f"{run.path}: the data it was trained on is not at hand; name labelled rows by --data")
    return folder


def judged_folder(args: Arguments, run: "Run") -> Path | None:
    """Returns the prepared folder that a run is judged by: that of `--data`, or its own; None where it is a source."""
    from bertlora.data.prepared import is_prepared

    if not args.data:
        return own_data(run)
    return Path(args.data[0]) if len(args.data) == 1 and is_prepared(args.data[0]) else None


def say_met(args: Arguments, run: "Run") -> str:
    """Warns on stderr of rows that a run has met, or may have, and returns which: a key of the report's `CAUTIONS`.

    Returns:
        `train` or `validation` where these rows are the run's own of that name, `other` where they are of other
        prepared data than it learned from, else nothing.
    """
    from bertlora.cli.console import say
    from bertlora.evaluation.report.tables import CAUTIONS

    met = _met(args, run)
    if met:
        say(f"caution, {run.path}: {CAUTIONS[met]}")
    return met


def _met(args: Arguments, run: "Run") -> str:
    from bertlora.data.prepared import Prepared

    folder, own = judged_folder(args, run), run.manifest.data.get("fingerprint")
    if folder is None or not own:
        return ""
    if Prepared.load(folder).fingerprint != own:
        return "other"
    return "" if args.split == "test" else str(args.split)


def usual_split(args: Arguments, run: "Run") -> str:
    """Returns test, or validation where a prepared folder has that alone."""
    from bertlora.data.prepared import Prepared

    folder = judged_folder(args, run)
    rows = {} if folder is None else Prepared.load(folder).rows
    return "validation" if "validation" in rows and "test" not in rows else "test"


def _name(args: Arguments, split: str) -> str:
    return ", ".join([*([" ".join(args.data)] if args.data else []), *([f"{split} split"] if split else [])])


def _order(labels: Sequence[str], run: "Run") -> "npt.NDArray[np.int64]":
    """Returns the run's class of each of the data's labels, (K,); they may be named as in training or as shown."""
    import numpy as np

    known = {label: i for i, label in enumerate(run.manifest.source_labels)}
    known |= {label: i for i, label in enumerate(run.manifest.labels) if label not in known}
    for label in labels:
        if label not in known:
            expected = ", ".join(run.manifest.source_labels)
            raise DataError(f"label '{label}' is none of the run's: {expected}; name data with the same labels")
    return np.array([known[label] for label in labels], dtype=np.int64)


def add_data(page: argparse.ArgumentParser) -> None:
    """Adds DATA, one or several words, which may be left out."""
    page.add_argument("sources", nargs="*", metavar="DATA", help=f"a prepared folder, or {SOURCES}")
