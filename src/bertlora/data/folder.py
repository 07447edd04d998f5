"""The prepared folder: a Parquet file for each split that has rows, and dataset.json.

dataset.json is written last: a folder that has it is complete. It has the SHA-256 of the Parquet files.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertlora.data.folder_facts import check_facts
from bertlora.data.label_sets import marks_of
from bertlora.data.rows import Split
from bertlora.data.source import SPLITS
from bertlora.data.split_file import reading, row_places, split_path, stream
from bertlora.data.table_source import TableSpec
from bertlora.errors import DataError
from bertlora.files import check_plain, write_whole
from bertlora.hashes import check_files, hashes_of, opened, sealed
from bertlora.task import CLASSIFICATION, MULTILABEL, TASKS

FORMAT_VERSION = 1
MANIFEST = "dataset.json"
LATER = ("label_rules", "task", "files")  # keys that folders of older versions do not have


@dataclass(frozen=True)
class Prepared:
    """A prepared folder, as its dataset.json describes it.

    Attributes:
        folder: its path.
        task: what is predicted.
        labels: the labels, in order; in a regression the name of the number.
        rows: number of rows of each split.
        fingerprint: SHA-256 over splits, texts, pairs, labels and label names, in order.
        columns: the source's columns: `text`, `text_pair` (or None), `label`, and `group`, `time` or `split` if named.
        sources: name of the source of each split; one name under `all` if one table was split.
        shares: the shares of `--split`, such as `70/15/15`.
        sample: the rows of `--sample`; 0 = all.
        seed: seed of sample and split.
        notes: what was left out, and why.
        checks: what was found in the data; see `find_checks`.
        label_rules: what was done with the labels; see `LabelRules`. Empty if nothing was.
        files: SHA-256 of the Parquet files, by name. Empty in folders of older versions.
    """

    folder: Path
    labels: list[str]
    rows: dict[str, int]
    fingerprint: str
    columns: dict[str, str | None]
    sources: dict[str, str]
    shares: str
    sample: int
    seed: int
    notes: list[str]
    checks: list[dict[str, Any]]
    label_rules: dict[str, Any] = field(default_factory=dict)
    task: str = CLASSIFICATION
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> "Prepared":
        """Opens a prepared folder.

        Raises:
            DataError: it is not a prepared folder, is incomplete, or has a newer format.
        """
        check_plain(folder)
        table = _read_manifest(folder)
        version = table.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise DataError(
                f"{folder / MANIFEST}: format version {version}, expected {FORMAT_VERSION} at most; update bertlora"
            )
        try:
            check_facts(table)
            facts = {key: table[key] for key in cls.__dataclass_fields__ if key not in ("folder", "shares", *LATER)}
            later = {key: table[key] for key in LATER if key in table}
            prepared = cls(folder=folder, shares=table["split"], **facts, **later)
        except KeyError as error:
            raise DataError(f"{folder / MANIFEST}: {error} is missing; prepare the data again") from error
        except ValueError as error:
            raise DataError(f"{folder / MANIFEST}: {error}; prepare the data again") from error
        for split in prepared.rows:
            if not prepared.path(split).is_file():
                raise DataError(f"{prepared.path(split)}: is missing from a prepared folder; prepare the data again")
        # The others are checked when they are read. One is enough to find the dataset.json of another folder.
        if prepared.rows:
            prepared._whole(min(prepared.rows, key=lambda split: prepared.path(split).stat().st_size))
        return prepared

    @property
    def has_pairs(self) -> bool:
        """Whether each row has a second text."""
        return self.columns["text_pair"] is not None

    def path(self, split: str) -> Path:
        """Returns the Parquet file of a split."""
        return split_path(self.folder, split)

    def split(self, name: str) -> Split:
        """Reads a split: `train`, `validation` or `test`.

        Raises:
            DataError: there is no such split, or its file is damaged.
        """
        self.require(name)
        with reading(self._whole(name)) as file:
            table = file.read(use_threads=False)  # see `parquet_batches`
            pairs = table["text_pair"].to_pylist() if self.has_pairs else None
            texts, labels, rows = table["text"].to_pylist(), table["label"].to_pylist(), table["row"].to_numpy()
            groups = _numbered(table["group"].to_pylist()) if self.columns.get("group") else None
        self._check_rows(name, len(texts))
        return Split(texts, pairs, self._its_targets(name, labels), rows.astype(np.int64), groups=groups)

    def require(self, name: str) -> None:
        """Raises DataError if there is no such split."""
        if name not in self.rows:
            raise DataError(f"{self.folder}: has no {name} split, only {', '.join(self.rows)}; name one of these")

    def stream(self, name: str, column: str) -> Iterator[Any]:
        """Yields the values of one column of a split, in bounded memory: `text`, `text_pair`, `label` or `row`.

        Raises:
            DataError: the split's file is damaged.
        """
        for values in stream(self._whole(name), column):
            yield from values

    def targets(self, name: str) -> NDArray[Any]:
        """Returns the targets of a split.

        Returns:
            (N,) int64 indices in `labels`, (N, K) bool which labels each row has, or (N,) float64 numbers.

        Raises:
            DataError: the split's file is damaged.
        """
        found = self._its_targets(name, self.stream(name, "label"))
        self._check_rows(name, len(found))
        return found

    def no_targets(self) -> NDArray[Any]:
        """Returns the targets of no row."""
        return self._typed([])

    def _its_targets(self, name: str, targets: Iterable[Any]) -> NDArray[Any]:
        """Returns the targets that the file of a split has, or raises DataError if they are not those of the task."""
        try:
            found = self._typed(targets)
            if self.task == CLASSIFICATION and len(found) and not 0 <= found.min() <= found.max() < len(self.labels):
                raise IndexError("a class that is not one of the labels")
        except DataError:  # of the file
            raise
        except (TypeError, ValueError, IndexError, OverflowError) as error:
            raise DataError(f"{self.path(name)}: its labels do not fit {MANIFEST}; prepare the data again") from error
        return found

    def _typed(self, targets: Iterable[Any]) -> NDArray[Any]:
        if self.task == MULTILABEL:
            rows = list(targets)
            return marks_of(rows, len(rows), len(self.labels))
        return np.fromiter(targets, dtype=TASKS[self.task].target_type)

    def _whole(self, name: str) -> Path:
        """Returns the Parquet file of a split, or raises DataError if it is not the one that was written."""
        path = self.path(name)
        check_files(self.folder, self.files, [path.name], DataError, "prepare the data again")
        return path

    def _check_rows(self, name: str, found: int) -> None:
        if found != self.rows[name]:
            expected = f"expected {self.rows[name]} as in {MANIFEST}"
            raise DataError(f"{self.path(name)}: {found} rows, {expected}; prepare the data again")

    def places(self, name: str, rows: Sequence[int]) -> list[str]:
        """Returns where rows of a split are in the source, such as `reviews.csv line 17`.

        Args:
            name: the split.
            rows: rows of the source, from 0.

        Raises:
            DataError: the split's file is damaged.
        """
        found = row_places(self._whole(name), rows)
        source = self.sources.get(name) or self.sources.get("all", name)
        # A folder that an older version prepared does not have the places.
        return [found.get(row) or f"{source} row {row}" for row in rows]

    def summary(self) -> dict[str, Any]:
        """Returns what `prepare --json` prints: `task`, `rows`, `labels`, `fingerprint`, `checks`, and `notes`."""
        keys = ("task", "rows", "labels", "fingerprint", "checks", "notes")
        return {key: getattr(self, key) for key in keys}

    def write_manifest(self) -> None:
        """Writes dataset.json, which marks the folder as complete."""
        files = hashes_of(self.folder, [self.path(split).name for split in self.rows])
        table = {"format_version": FORMAT_VERSION, **vars(self), "split": self.shares, "files": files}
        del table["folder"], table["shares"]
        if not self.label_rules:
            del table["label_rules"]
        write_whole(self.folder / MANIFEST, sealed(table))


def _numbered(groups: Sequence[str | None]) -> NDArray[np.int64]:
    """Returns the number of each row's group, (N,); a blank is a group of its own."""
    numbers: dict[str | int, int] = {}
    keys = (row if group is None else group for row, group in enumerate(groups))
    return np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), np.int64, len(groups))


def is_prepared(path: str | Path) -> bool:
    """Returns whether `path` is a prepared folder rather than a source."""
    return not isinstance(path, TableSpec) and (Path(path) / MANIFEST).is_file()


def data_fingerprint(digests: dict[str, bytes], labels: list[str]) -> str:
    """Returns the SHA-256, in hex, of the label names and the digest of each split, in order."""
    whole = sha256(json.dumps(labels, ensure_ascii=False).encode())
    for split, digest in digests.items():
        whole.update(split.encode() + b"\0" + digest)
    return whole.hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder, expected one that `bertlora prepare` made")
    if not path.is_file():
        unfinished = any(split_path(folder, split).exists() for split in SPLITS)
        fault = (
            f"is not complete ({MANIFEST} is missing)" if unfinished else f"is not a prepared folder (no {MANIFEST})"
        )
        raise DataError(f"{folder}: {fault}; make it with `bertlora prepare SOURCE --out DATA`")
    try:
        return opened(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error}); prepare the data again") from error
