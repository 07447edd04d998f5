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
from bertlora.data.hub import open_hub
from bertlora.data.readers import (
    FolderSource,
    JsonLinesSource,
    JsonListSource,
    ParquetSource,
    class_folders,
    is_json_list,
)
from bertlora.data.source import FILE_TYPES, SPLITS, Source
from bertlora.errors import DataError, suggestion

SPLIT_ALIASES = {
    **{name: name for name in SPLITS},
    **dict.fromkeys(("valid", "val", "dev"), "validation"),
}
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
# `train.tsv`, MNLI's `dev_matched.tsv`, the hub's `train-00000-of-00001.parquet`.
SPLIT_STEM = re.compile(rf"({'|'.join(SPLIT_ALIASES)})(_matched)?(-00000-of-00001)?")


def open_sources(specs: Sequence[str]) -> dict[str, Source]:
    """Opens what the user named: one file, folder or hub data set, or several `train=FILE validation=FILE test=FILE`.

    Returns:
        {"": source} for one table without splits. Otherwise a source for each split that exists, in the order train,
        validation, test.

    Raises:
        DataError: something is missing, of an unknown type, broken, or named twice.
        HubError: the hub cannot be reached, or does not have the data set.
    """
    if not specs:
        raise DataError("no data source was given, expected a file, a folder, hub:NAME, or splits such as train=FILE")
    named = [_named(spec) for spec in specs]
    if len(specs) == 1 and named[0] is None:
        spec = specs[0]
        return open_hub(spec.removeprefix("hub:")) if spec.startswith("hub:") else _open_path(Path(spec))
    paths: dict[str, Path] = {}
    for spec, pair in zip(specs, named, strict=True):
        if pair is None:
            raise DataError(
                f"'{spec}': one of several sources, expected each as train=FILE, validation=FILE, test=FILE"
            )
        if pair[0] in paths:
            raise DataError(f"'{spec}': the {pair[0]} split was named before, as '{paths[pair[0]]}'; drop one")
        paths[pair[0]] = pair[1]
    return _open_splits(paths)


def open_table(path: Path, name: str = "") -> Source:
    """Opens one file, or one folder with a folder for each class, as a table.

    Args:
        path: the file or folder.
        name: its name in messages; the file's name if empty.

    Raises:
        DataError: it is missing, empty, broken, or of an unknown type.
    """
    name = name or path.name
    if path.is_dir() and path.suffix.lower() not in SUFFIXES:
        return FolderSource(path, name)
    match path.suffix.lower():
        case ".csv":
            return DelimitedSource(path, name, tabs=False)
        case ".tsv":
            return DelimitedSource(path, name, tabs=True)
        case ".parquet":
            return ParquetSource(path, name)
        case ".json" if is_json_list(path):
            return JsonListSource(path, name)
        case ".jsonl" | ".ndjson" | ".json":
            return JsonLinesSource(path, name)
    if not path.exists():
        raise DataError(f"{path}: there is no such file; check the path")
    raise DataError(f"{path}: the file type '{path.suffix}' is unknown, expected {FILE_TYPES}")


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


def _open_path(path: Path) -> dict[str, Source]:
    if not path.is_dir() or path.suffix.lower() in SUFFIXES:
        return {"": open_table(path)}
    # `train/` and `test/` are splits if they hold folders of classes; otherwise they may be classes with these names.
    folders = _by_split(child for child in path.iterdir() if child.is_dir() and len(class_folders(child)) > 0)
    if folders:
        return _open_splits(folders)
    if class_folders(path):
        return {"": open_table(path, path.resolve().name)}
    files = _by_split(child for child in path.iterdir() if child.is_file() and child.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(
            f"{path}: a folder with an unknown layout, expected a folder of .txt files for each class (pos/ neg/), "
            "or the files train.tsv, validation.tsv, test.tsv (or .csv, .jsonl, .parquet)"
        )
    sources = _open_splits(files)
    for split, file in files.items():
        if file.stem.endswith("_matched"):
            sources[split].notes.append(f"{split} is {file.name}; the mismatched set was left out")
    return sources


def _by_split(paths: Iterable[Path]) -> dict[str, Path]:
    """Returns the files or folders whose names are those of splits."""
    found: dict[str, Path] = {}
    for path in sorted(paths):
        match = SPLIT_STEM.fullmatch(path.stem if path.is_file() else path.name)
        if match is None:
            continue
        split = SPLIT_ALIASES[match[1]]
        if split in found:
            raise DataError(
                f"{path.parent}: '{found[split].name}' and '{path.name}' both name the {split} split; keep one"
            )
        found[split] = path
    return found


def _open_splits(paths: dict[str, Path]) -> dict[str, Source]:
    # In messages the file name is enough, unless two splits have the same file name or are folders.
    names = Counter(path.name for path in paths.values())
    sources: dict[str, Source] = {}
    for split in SPLITS:
        if split in paths:
            path = paths[split]
            alone = names[path.name] == 1 and not path.is_dir()
            sources[split] = open_table(path, path.name if alone else f"{path.resolve().parent.name}/{path.name}")
    return sources
