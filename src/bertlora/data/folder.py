"""The prepared folder: train.parquet, validation.parquet and test.parquet as far as there are rows, and dataset.json.

dataset.json is written last, so that its existence means a whole folder.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertlora.data.rows import Split
from bertlora.data.source import SPLITS
from bertlora.errors import DataError

FORMAT_VERSION = 1
MANIFEST = "dataset.json"
GROUP_ROWS = 4096
GROUP_CHARACTERS = 16_000_000


@dataclass(frozen=True)
class Prepared:
    """A prepared folder, as its dataset.json describes it.

    Attributes:
        folder: where it is.
        labels: the labels, in order.
        rows: rows of each split that is there.
        fingerprint: SHA-256 over splits, texts, pairs, labels and label names, in order.
        columns: the source's columns: `text`, `text_pair` (or None) and `label`.
        sources: name of the source of each split, or of `all` when one table was split.
        shares: the shares asked for, such as `70/15/15`.
        sample: rows asked for; 0 = all.
        seed: seed of sample and split.
        notes: what was left out, and why.
        checks: what was found in the data; see `find_checks`.
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

    @classmethod
    def load(cls, folder: Path) -> "Prepared":
        """Opens a prepared folder.

        Raises:
            DataError: it is no prepared folder, unfinished, incomplete, or of a newer format.
        """
        table = _read_manifest(folder)
        version = table.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise DataError(
                f"{folder / MANIFEST}: format version {version}, expected {FORMAT_VERSION} at most; update bertlora"
            )
        try:
            facts = {key: table[key] for key in cls.__dataclass_fields__ if key not in ("folder", "shares")}
            prepared = cls(folder=folder, shares=table["split"], **facts)
        except KeyError as error:
            raise DataError(f"{folder / MANIFEST}: {error} is missing; prepare the data again") from error
        for split in prepared.rows:
            if not prepared.path(split).is_file():
                raise DataError(f"{prepared.path(split)}: is missing from a prepared folder; prepare the data again")
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
            DataError: it is not there, or its file is broken.
        """
        import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
        import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

        self.require(name)
        try:
            table = pq.read_table(self.path(name))
            pairs = table["text_pair"].to_pylist() if self.has_pairs else None
            texts, labels, rows = table["text"].to_pylist(), table["label"].to_numpy(), table["row"].to_numpy()
        except (pa.ArrowException, OSError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{self.path(name)}: cannot be read ({reason}); prepare the data again") from error
        self._check_rows(name, len(texts))
        return Split(texts, pairs, labels.astype(np.int64), rows.astype(np.int64))

    def require(self, name: str) -> None:
        """Raises DataError when there is no such split."""
        if name not in self.rows:
            raise DataError(f"{self.folder}: has no {name} split, only {', '.join(self.rows)}; name one of these")

    def stream(self, name: str, column: str) -> Iterator[Any]:
        """Yields the values of one column of a split, in bounded memory: `text`, `text_pair`, `label` or `row`.

        Raises:
            DataError: its file is broken.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            for batch in pq.ParquetFile(self.path(name)).iter_batches(GROUP_ROWS, columns=[column]):
                yield from batch.column(0).to_pylist()
        except (pa.ArrowException, OSError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{self.path(name)}: cannot be read ({reason}); prepare the data again") from error

    def label_ids(self, name: str) -> NDArray[np.int64]:
        """Returns the labels of a split alone, (N,), as indices in `labels`.

        Raises:
            DataError: its file is broken.
        """
        ids = np.fromiter(self.stream(name, "label"), dtype=np.int64)
        self._check_rows(name, len(ids))
        return ids

    def _check_rows(self, name: str, found: int) -> None:
        if found != self.rows[name]:
            expected = f"expected {self.rows[name]} as in {MANIFEST}"
            raise DataError(f"{self.path(name)}: {found} rows, {expected}; prepare the data again")

    def summary(self) -> dict[str, Any]:
        """Returns what `prepare --json` prints: `rows`, `labels`, `fingerprint`, `checks`, and `notes`."""
        keys = ("rows", "labels", "fingerprint", "checks", "notes")
        return {key: getattr(self, key) for key in keys}

    def write_manifest(self) -> None:
        """Writes dataset.json, which makes the folder whole."""
        table = {"format_version": FORMAT_VERSION, **vars(self), "split": self.shares}
        del table["folder"], table["shares"]
        text = json.dumps(table, indent=2, ensure_ascii=False) + "\n"
        (self.folder / MANIFEST).write_text(text, encoding="utf-8")


class SplitWriter:
    """Writes the Parquet file of one split in row groups of bounded size, and hashes what it writes.

    Args:
        path: the file.
        labels: the label names, kept in the file as `datasets` does, so that other tools show them.
        pairs: whether each row has a second text.
    """

    def __init__(self, path: Path, labels: list[str], pairs: bool) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        texts = ["text", "text_pair"] if pairs else ["text"]
        features: dict[str, object] = {name: {"dtype": "string", "_type": "Value"} for name in texts}
        features["label"] = {"names": labels, "_type": "ClassLabel"}
        features["row"] = {"dtype": "int64", "_type": "Value"}
        self._schema = pa.schema(
            [*((name, pa.string()) for name in texts), ("label", pa.int32()), ("row", pa.int64())],
            metadata={"huggingface": json.dumps({"info": {"features": features}}, ensure_ascii=False)},
        )
        self._writer = pq.ParquetWriter(path, self._schema)
        self._values: list[list[object]] = [[] for _ in self._schema]
        self._characters = 0
        self._hash = sha256()
        self.rows = 0

    def add(self, text: str, pair: str | None, label: int, row: int) -> None:
        """Adds a row."""
        texts = [text] if pair is None else [text, pair]
        for value in texts:
            raw = value.encode()
            self._hash.update(len(raw).to_bytes(8) + raw)  # the length keeps ("ab", "c") apart from ("a", "bc")
            self._characters += len(value)
        self._hash.update(label.to_bytes(8))
        for column, item in zip(self._values, [*texts, label, row], strict=True):
            column.append(item)
        self.rows += 1
        if len(self._values[0]) == GROUP_ROWS or self._characters > GROUP_CHARACTERS:
            self._flush()

    def close(self) -> bytes:
        """Finishes the file and returns the SHA-256 of its texts, pairs and labels, in order."""
        self._flush()
        self._writer.close()
        return self._hash.digest()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._values[0]:
            arrays = [pa.array(column, field.type) for column, field in zip(self._values, self._schema, strict=True)]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._values = [[] for _ in self._schema]
        self._characters = 0


def split_path(folder: Path, split: str) -> Path:
    """Returns the Parquet file of a split in a prepared folder."""
    return folder / f"{split}.parquet"


def is_prepared(path: str | Path) -> bool:
    """Tells whether `path` is a prepared folder, whole or not, rather than a source."""
    return (Path(path) / MANIFEST).is_file()


def data_fingerprint(digests: dict[str, bytes], labels: list[str]) -> str:
    """Returns the SHA-256, in hex, over the label names and the digest of each split, in order."""
    whole = sha256(json.dumps(labels, ensure_ascii=False).encode())
    for split, digest in digests.items():
        whole.update(split.encode() + b"\0" + digest)
    return whole.hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder, expected one that `bertlora prepare` made")
    if not path.is_file():
        unfinished = any(split_path(folder, split).exists() for split in SPLITS)
        fault = f"is unfinished ({MANIFEST} is missing)" if unfinished else f"is no prepared folder (no {MANIFEST})"
        raise DataError(f"{folder}: {fault}; make it with `bertlora prepare SOURCE --out DATA`")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error}); prepare the data again") from error
    if not isinstance(table, dict):
        raise DataError(f"{path}: is not a JSON object; prepare the data again")
    return table
