"""The verb prepare: from a source to a prepared folder. Also how other verbs get their data."""

import os
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any, Unpack

from bertlora.data.named_columns import ColumnNames as ColumnNames  # the verbs' functions take it from here
from bertlora.data.named_columns import SourceColumns
from bertlora.data.prepared import Prepared, is_prepared
from bertlora.data.prepared import prepare as prepare_data
from bertlora.data.reader import Reader
from bertlora.data.sources import SPLIT_ALIASES
from bertlora.data.table_source import TableSpec, table_specs
from bertlora.errors import InputError
from bertlora.model.base import find_base, longest_input
from bertlora.model.fetch import embedded_folder
from bertlora.options import split_with_validation
from bertlora.recipe import Recipe

MAX_LENGTH = 512
FEWEST_VALIDATION_ROWS = 30  # as many as a temperature needs
SOURCES = (
    "a CSV, TSV, JSONL, Parquet, XLSX or ODS file, a folder pos/ neg/, hub:NAME[/CONFIG], or train=FILE "
    "validation=FILE test=FILE"
)
# A source as the functions take it: one, or several named splits, or a table in memory (`table_source`).
Source = str | Path | Sequence[str] | Sized


def prepare(
    source: Source,
    out: str | Path,
    *,
    split: str = Recipe.split,
    sample: int = Recipe.sample,
    sample_from: str = Recipe.sample_from,
    seed: int = Recipe.seed,
    task: str = Recipe.task,
    model: str | None = None,
    max_length: int | None = None,
    strict: bool = False,
    fix: bool = False,
    overwrite: bool = False,
    **columns: Unpack[SourceColumns],
) -> dict[str, Any]:
    """Reads, checks, splits and writes data.

    Args:
        source: a file, a folder `pos/ neg/`, `hub:NAME`, or several named splits such as `train=FILE`. Or a pandas
            DataFrame, a pyarrow Table, a datasets Dataset, or a mapping of splits to these.
        out: the folder to write.
        split: shares of train/validation/test in percent.
        sample: rows drawn at random, each class in its share; 0 takes all.
        sample_from: what they are drawn from: `table` draws from a table before it is split, `split` from each of its
            splits. Named splits are always drawn from each.
        seed: seed of sample and split.
        task: what is predicted: `classification`, `multilabel`, `regression`, or `auto`, which finds it by the labels.
        model: base model whose tokenizer checks the texts; None is minilm if it is installed, otherwise no such checks.
        max_length: tokens that the truncation check allows a text; None is 512, or the model's limit if that is lower.
        strict: treat a check's warning as an error; nothing is written then.
        fix: drop exact duplicates and split without leakage.
        overwrite: replace what `out` holds.
        columns: `text_column`, `text_pair_column` and `label_column`; found by their names if not given.
            `label_column="a,b"` names columns of 0 and 1, one for each label. One of these may decide the splits:
            `group_column` (rows with the same value stay in one split), `time_column` (the oldest rows go to train, the
            latest to test), `split_column` (the split of each row). `encoding` and `delimiter` of the files; detected
            if not given. What is done with labels: `rename=["old=new"]`, `merge_label_case=True`, `drop_label=["N/A"]`,
            `label_delimiter="|"`.

    Returns:
        `data`, `task`, `rows` {split: n}, `labels`, `fingerprint`, `checks`, `notes` and more; see the verb's JSON.

    Raises:
        DataError: the data cannot be used; the message names the place.
        InputError: an option is out of its range, or excludes another.
        OutputError: `out` is not empty, or cannot be written.
    """
    Recipe(task=task, sample_from=sample_from)  # checks them
    reader = _token_reader(model, max_length)
    data = prepare_data(
        as_specs(source),
        Path(out),
        split=split,
        sample=sample,
        sample_from=sample_from,
        seed=seed,
        task=task,
        overwrite=overwrite,
        strict=strict,
        fix=fix,
        reader=reader,
        **columns,
    )
    return data.summary() | {"data": str(out)}


def given_data(source: Source, recipe: Recipe, folder: Path, **columns: Unpack[SourceColumns]) -> Prepared:
    """Returns the prepared folder `source`, or prepares `source`, or the recipe's own data, in `folder`.

    If the recipe's `split` leaves validation out, `validation_fraction` of the training rows is held out, unless that
    would be fewer than 30 rows.

    Raises:
        InputError: no data is named.
        DataError: the data cannot be used.
    """
    specs = as_specs(source) or list(recipe.data)
    if len(specs) == 1 and is_prepared(specs[0]):
        return Prepared.load(Path(specs[0]))
    if is_prepared(folder):
        return Prepared.load(folder)
    require_data(source, recipe)
    keys = ("sample", "sample_from", "seed", "task")
    options = {key: getattr(recipe, key) for key in keys} | {"overwrite": True, **columns}
    held_out = split_with_validation(recipe.split, recipe.validation_fraction)
    data = prepare_data(specs, folder, split=held_out, **options)
    if held_out != recipe.split and data.rows.get("validation", 0) < FEWEST_VALIDATION_ROWS:
        return prepare_data(specs, folder, split=recipe.split, **options)
    return data


def require_data(source: Source, recipe: Recipe) -> None:
    """Raises InputError if neither `source` nor the recipe names data."""
    if not as_specs(source) and not recipe.data:
        raise InputError(f"DATA is missing, and the recipe names none; name a prepared folder, or {SOURCES}")


def refuse_preparing(source: Source, **options: object) -> None:
    """Raises InputError for an option that says how to prepare data, if `source` is prepared already."""
    specs = as_specs(source)
    if len(specs) != 1 or not is_prepared(specs[0]):
        return
    for name, value in options.items():
        if value is not None and value is not False and value != ():
            raise InputError(f"--{name.replace('_', '-')}: DATA is prepared already; give this to prepare")


def as_specs(source: Source) -> list[str]:
    """Returns a source as a list of specs, as `data.sources.open_sources` takes them.

    Raises:
        InputError: it is neither a path, nor names of splits, nor a table.
    """
    if isinstance(source, str | Path):
        return [source if isinstance(source, str) else str(source)]
    if isinstance(source, list | tuple):
        return [spec if isinstance(spec, str) else str(spec) for spec in source]
    return list(table_specs(source))


def absolute_specs(specs: Sequence[str]) -> tuple[str, ...]:
    """Returns specs that mean the same in any working folder: `reviews.csv`, `train=FILE`, `hub:NAME`.

    A table in memory has no name that a recipe can keep, and is left out.
    """
    return tuple(_absolute(spec) for spec in specs if not isinstance(spec, TableSpec))


def _absolute(spec: str) -> str:
    split, sign, path = spec.partition("=")
    if spec.startswith("hub:"):
        return spec
    if sign and split in SPLIT_ALIASES and not Path(spec).exists():
        return f"{split}={os.path.abspath(path)}"
    return os.path.abspath(spec)


def _token_reader(model: str | None, max_length: int | None) -> Reader | None:
    """Returns the reader for the checks that need a tokenizer; None if there is no model.

    Raises:
        InputError: `max_length` is out of its range, or there is no tokenizer to count tokens with.
    """
    if model is None and embedded_folder() is None:
        if max_length is not None:
            raise InputError("--max-length: needs a tokenizer to count tokens with; name a base model by --model")
        return None
    base = find_base(model or Recipe.model)
    longest = longest_input(base)
    if max_length is not None and not 0 < max_length <= longest:
        raise InputError(f"--max-length: got {max_length}, expected 1 to {longest}, the positions of {base.id}")
    return Reader.of(base.text_tokenizer(), min(MAX_LENGTH, longest) if max_length is None else max_length, "right")
