"""The Parquet file of one split in a prepared folder: written, opened, and asked for the places of its rows."""

import json
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from bertlora.data.parquet_file import parquet_batches, parquet_faults
from bertlora.errors import DataError, first_line
from bertlora.task import MULTILABEL, REGRESSION

# The index of a class, the indices of the labels of a row, or a number.
Target = int | list[int] | float
GROUP_ROWS = 4096
GROUP_CHARACTERS = 16_000_000


class SplitWriter:
    """Writes the Parquet file of one split in row groups of bounded size, and hashes what it writes.

    Args:
        path: the file.
        task: what the targets are.
        labels: the label names, stored in the file in the way of `datasets`, so that other tools show them.
        pairs: whether each row has a second text.
        groups: whether rows have a group.
    """

    def __init__(self, path: Path, task: str, labels: list[str], pairs: bool, groups: bool = False) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        texts = ["text", "text_pair"] if pairs else ["text"]
        self._groups = ["group"] if groups else []
        features: dict[str, object] = {name: {"dtype": "string", "_type": "Value"} for name in texts}
        features["label"], label_type = _label_field(task, labels)
        features["row"] = {"dtype": "int64", "_type": "Value"}
        features |= {name: {"dtype": "string", "_type": "Value"} for name in ("place", *self._groups)}
        columns = [*((name, pa.string()) for name in texts), ("label", label_type)]
        self._schema = pa.schema(
            [*columns, ("row", pa.int64()), ("place", pa.string()), *((name, pa.string()) for name in self._groups)],
            metadata={"huggingface": json.dumps({"info": {"features": features}}, ensure_ascii=False)},
        )
        self._writer = pq.ParquetWriter(path, self._schema)
        self._values: list[list[object]] = [[] for _ in self._schema]
        self._characters = 0
        self._hash = sha256()
        self.rows = 0

    def add(self, text: str, pair: str | None, target: Target, row: int, place: str, group: str | None = None) -> None:
        """Adds a row: its texts, its target, its row in the source from 0, its place there, and its group."""
        texts = [text] if pair is None else [text, pair]
        for value in texts:
            raw = value.encode()
            self._hash.update(len(raw).to_bytes(8) + raw)  # with lengths, ("ab", "c") and ("a", "bc") differ
            self._characters += len(value)
        self._hash.update(_bytes(target))
        groups = [group] * len(self._groups)
        for column, item in zip(self._values, [*texts, target, row, place, *groups], strict=True):
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


def _label_field(task: str, labels: list[str]) -> tuple[dict[str, object], Any]:
    """Returns how `datasets` describes the column of the targets, and its Arrow type."""
    import pyarrow as pa

    classes: dict[str, object] = {"names": labels, "_type": "ClassLabel"}
    if task == REGRESSION:
        return {"dtype": "float64", "_type": "Value"}, pa.float64()
    if task == MULTILABEL:
        return {"feature": classes, "_type": "Sequence"}, pa.list_(pa.int32())
    return classes, pa.int32()


def _bytes(target: Target) -> bytes:
    """Returns a target as bytes, to be hashed."""
    if isinstance(target, list):
        return b"".join(one.to_bytes(8) for one in [len(target), *target])
    return target.to_bytes(8) if isinstance(target, int) else struct.pack(">d", target)


def split_path(folder: Path, split: str) -> Path:
    """Returns the Parquet file of a split in a prepared folder."""
    return folder / f"{split}.parquet"


def stream(path: Path, column: str) -> Iterator[list[Any]]:
    """Yields the values of one column of a split's file, in batches and in bounded memory.

    Raises:
        DataError: the file is damaged.
    """
    with reading(path) as file:
        for batch in parquet_batches(file, path, [column], GROUP_ROWS):
            yield batch.column(0).to_pylist()


def row_places(path: Path, rows: Sequence[int]) -> dict[int, str]:
    """Returns where rows of a split's file are in the source, by row; empty if the file does not say.

    Raises:
        DataError: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.compute as pc  # type: ignore[import-untyped, unused-ignore]

    with reading(path) as file:
        if "place" not in file.schema_arrow.names:
            return {}
        found: dict[int, str] = {}
        for batch in parquet_batches(file, path, ["row", "place"], GROUP_ROWS):
            kept = batch.filter(pc.is_in(batch.column("row"), pa.array(rows, pa.int64())))
            found |= zip(kept.column("row").to_pylist(), kept.column("place").to_pylist(), strict=True)
        return found


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """Yields a split's file as a pyarrow.parquet.ParquetFile; a fault of the file becomes a DataError."""
    import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

    def fault(error: Exception) -> DataError:
        return DataError(f"{path}: cannot be read ({first_line(error)}); prepare the data again")

    with parquet_faults(fault), pq.ParquetFile(path) as file:
        yield file
