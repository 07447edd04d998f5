"""Opens what the user named: a file, a folder, a hub data set, or named splits.

open_sources(["reviews.csv"])                           {"": Source}
open_sources(["aclImdb"])                               {"train": Source, "test": Source}
open_sources(["train=a.csv", "validation=b.csv"])       {"train": Source, "validation": Source}
open_sources(["hub:nyu-mll/glue/sst2"])                 {"train": Source, "validation": Source, "test": Source}
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from bertlora.data.delimited import DelimitedSource
from bertlora.data.excel import SHEET_TYPES, SheetSource
from bertlora.data.hub import open_hub
from bertlora.data.json_source import JsonLinesSource, JsonListSource, is_json_list
from bertlora.data.readers import FolderSource, ParquetSource, class_folders
from bertlora.data.source import SPLITS, Source
from bertlora.data.table_source import TableSpec
from bertlora.data.text_file import COMPRESSED, FILE_TYPES, FileFormat, TextFile, kind_of
from bertlora.errors import DataError, InputError, suggestion

SPLIT_ALIASES = {
    **{name: name for name in SPLITS},
    **dict.fromkeys(("valid", "val", "dev"), "validation"),
}
DELIMITED_TYPES = (".csv", ".tsv")
TEXT_TYPES = (*DELIMITED_TYPES, ".jsonl", ".ndjson", ".json")
SUFFIXES = (*TEXT_TYPES, ".parquet", *SHEET_TYPES)
AS_FOUND = FileFormat()
# `train.tsv`, MNLI's `dev_matched.tsv`, the hub's `train-00000-of-00001.parquet`.
SPLIT_STEM = re.compile(rf"({'|'.join(SPLIT_ALIASES)})(_matched)?(-00000-of-00001)?")


def open_sources(specs: Sequence[str], form: FileFormat = AS_FOUND) -> dict[str, Source]:
    """Opens what the user named: one file, folder or hub data set, or several `train=FILE validation=FILE test=FILE`.

    Args:
        specs: paths and names as above; or a `TableSpec` for each table in memory.
        form: how the files are written, as far as the user says it.

    Returns:
        {"": source} for one table without splits. Otherwise a source for each split that exists, in the order train,
        validation, test.

    Raises:
        DataError: something is missing, of an unknown type, broken, or named twice.
        HubError: the hub cannot be reached, or does not have the data set.
    """
    if not specs:
        raise DataError("no data source was given, expected a file, a folder, hub:NAME, or splits such as train=FILE")
    if isinstance(specs[0], TableSpec):
        _refuse(form, "a table in memory", encoding=True)
        return _open_tables([spec for spec in specs if isinstance(spec, TableSpec)])
    named = [_named(spec) for spec in specs]
    if len(specs) == 1 and named[0] is None:
        spec = specs[0]
        if not spec.startswith("hub:"):
            return _open_path(Path(spec), form)
        _refuse(form, "a hub data set", encoding=True)
        return open_hub(spec.removeprefix("hub:"))
    paths: dict[str, Path] = {}
    for spec, pair in zip(specs, named, strict=True):
        if pair is None:
            raise DataError(
                f"'{spec}': one of several sources, expected each as train=FILE, validation=FILE, test=FILE"
            )
        if pair[0] in paths:
            raise DataError(f"'{spec}': the {pair[0]} split was named before, as '{paths[pair[0]]}'; drop one")
        paths[pair[0]] = pair[1]
    return _open_splits(paths, form)


def open_table(path: Path, name: str = "", form: FileFormat = AS_FOUND) -> Source:
    """Opens one file, or one folder with a folder for each class, as a table.

    Args:
        path: the file or folder.
        name: its name in messages; the file's name if empty.
        form: how the file is written, as far as the user says it.

    Raises:
        DataError: it is missing, empty, broken, or of an unknown type.
    """
    name, kind = name or path.name, kind_of(path)
    if kind not in DELIMITED_TYPES:
        _refuse(form, name, encoding=kind in (".parquet", *SHEET_TYPES))
    if path.is_dir() and not is_table_file(path):
        return FolderSource(path, name, form.encoding)
    match kind:
        case ".parquet":
            return ParquetSource(path, name)
        case _ if kind in SHEET_TYPES:
            return SheetSource(path, name)
        case _ if kind in TEXT_TYPES:
            file = TextFile(path, name, form.encoding, form.on_fault)
            if kind in DELIMITED_TYPES:
                return DelimitedSource(file, kind == ".tsv", form.sign)
            return JsonListSource(file) if kind == ".json" and is_json_list(file) else JsonLinesSource(file)
    if not path.exists():
        raise DataError(f"{path}: there is no such file; check the path")
    raise DataError(f"{path}: the file type '{path.suffix}' is unknown, expected {FILE_TYPES}")


def is_table_file(path: Path) -> bool:
    """Returns whether a file has the name of a table, rather than of plain text."""
    return kind_of(path) in SUFFIXES


def _refuse(form: FileFormat, name: str, encoding: bool) -> None:
    """Raises InputError for a delimiter, or also for an encoding, that the source does not have."""
    if form.delimiter is not None:
        raise InputError(f"--delimiter: {name} is not a CSV or TSV file; leave it out")
    if encoding and form.encoding is not None:
        raise InputError(f"--encoding: {name} has its own encoding; leave it out")


def _open_tables(specs: Sequence[TableSpec]) -> dict[str, Source]:
    """Returns the sources of tables in memory by split. A split with another name is left out, with a note."""
    if [spec.part for spec in specs] == [""]:
        return {"": specs[0].source}
    found = {SPLIT_ALIASES[spec.part]: spec.source for spec in specs if spec.part in SPLIT_ALIASES}
    others = [spec.part for spec in specs if spec.part not in SPLIT_ALIASES]
    if not found:
        raise DataError(f"the splits are {', '.join(others)}, expected train, validation or test")
    sources = {split: found[split] for split in SPLITS if split in found}
    if others:
        next(iter(sources.values())).notes.append(f"left out: the splits {', '.join(others)}")
    return sources


def _named(spec: str) -> tuple[str, Path] | None:
    """Returns (split, path) of `train=FILE`, or None for a spec that names no split."""
    name, sign, value = spec.partition("=")
    if not sign or "/" in name or Path(spec).exists():
        return None
    if name not in SPLIT_ALIASES:
        raise DataError(
            f"'{spec}': split '{name}' is unknown, expected train, validation or test{suggestion(name, SPLITS)}"
        )
    if value.startswith("hub:"):
        raise DataError(
            f"'{spec}': expected a file or folder here; give a hub data set without a split, it has its own"
        )
    return SPLIT_ALIASES[name], Path(value)


def _open_path(path: Path, form: FileFormat) -> dict[str, Source]:
    if not path.is_dir() or is_table_file(path):
        return {"": open_table(path, form=form)}
    # `train/` and `test/` are splits if they hold folders of classes; otherwise they may be classes with these names.
    folders = _by_split(child for child in path.iterdir() if child.is_dir() and len(class_folders(child)) > 0)
    if folders:
        return _open_splits(folders, form)
    if class_folders(path):
        return {"": open_table(path, path.resolve().name, form)}
    files = _by_split(child for child in path.iterdir() if child.is_file() and is_table_file(child))
    if not files:
        raise DataError(
            f"{path}: a folder with an unknown layout, expected a folder of .txt files for each class (pos/ neg/), "
            "or the files train.tsv, validation.tsv, test.tsv (or .csv, .jsonl, .parquet)"
        )
    sources = _open_splits(files, form)
    for split, file in files.items():
        if _stem(file).endswith("_matched"):
            sources[split].notes.append(f"{split} is {file.name}; the mismatched set was left out")
    return sources


def _by_split(paths: Iterable[Path]) -> dict[str, Path]:
    """Returns the files or folders whose names are those of splits."""
    found: dict[str, Path] = {}
    for path in sorted(paths):
        match = SPLIT_STEM.fullmatch(_stem(path) if path.is_file() else path.name)
        if match is None:
            continue
        split = SPLIT_ALIASES[match[1]]
        if split in found:
            raise DataError(
                f"{path.parent}: '{found[split].name}' and '{path.name}' both name the {split} split; keep one"
            )
        found[split] = path
    return found


def _stem(path: Path) -> str:
    """Returns the name of a file without its suffixes: `train` for `train.csv.gz`."""
    return path.name.removesuffix(path.suffix) if path.suffix.lower() not in COMPRESSED else Path(path.stem).stem


def _open_splits(paths: dict[str, Path], form: FileFormat) -> dict[str, Source]:
    # In messages the file name is enough, unless two splits have the same file name or are folders.
    names = Counter(path.name for path in paths.values())
    sources: dict[str, Source] = {}
    for split in SPLITS:
        if split in paths:
            path = paths[split]
            alone = names[path.name] == 1 and not path.is_dir()
            sources[split] = open_table(path, path.name if alone else f"{path.resolve().parent.name}/{path.name}", form)
    return sources
