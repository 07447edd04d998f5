"""Writes parts, and joins them to the whole file."""

import io
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from bertlora.data.table_file import TEXT_FORMATS, table_file, text_rows
from bertlora.data.table_file import Part as Columns
from bertlora.files import json_line, whole_file, writing
from bertlora.scoring.part_folder import PartFolder


def write_part(folder: PartFolder, number: int, columns: Columns, faults: list[dict[str, Any]], types: Any) -> int:
    """Writes a part and its record, and returns its number of rows.

    Args:
        folder: where it goes.
        number: its number.
        columns: its columns.
        faults: the rows that could not be read or computed.
        types: for Parquet, the types of the columns.

    Raises:
        OutputError: it cannot be written.
    """
    with table_file(folder.part(number), folder.format, types) as write:
        write(columns)
    rows = len(next(iter(columns.values())))
    folder.record(number, rows, faults)
    return rows


def join(folder: PartFolder, names: Sequence[str], types: Any) -> tuple[int, int]:
    """Joins the parts to whole files in the folder, and returns the numbers of rows and of bad rows.

    Args:
        folder: of the parts, which are all done.
        names: all columns.
        types: for Parquet, the types of the columns.

    Raises:
        OutputError: the disk is full.
    """
    rows = bad = 0
    with writing(folder.out), whole_file(folder.bad) as file:
        for _, record in folder.records():
            rows += record["rows"]
            bad += len(record["faults"])
            file.writelines(f"{json_line(fault)}\n" for fault in record["faults"])
    if not bad:
        folder.bad.unlink()
    with writing(folder.out):
        _join_parquet(folder, types) if folder.format == "parquet" else _join_text(folder, names)
    return rows, bad


def _join_text(folder: PartFolder, names: Sequence[str]) -> None:
    header = io.StringIO()
    if folder.format in TEXT_FORMATS:
        text_rows(header, folder.format)({name: [] for name in names})
    start = header.getvalue().encode()
    with folder.whole.open("wb") as file:
        file.write(start)
        for number, _ in folder.records():
            with folder.part(number).open("rb") as part:
                part.seek(len(start))
                shutil.copyfileobj(part, file, 1 << 20)


def _join_parquet(folder: PartFolder, types: Mapping[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(folder.whole, pa.schema(list(types.items()))) as writer:
        for number, _ in folder.records():
            writer.write_table(pq.read_table(folder.part(number)))


def types_to_text(types: Mapping[str, Any]) -> str:
    """Returns Arrow types as text for a JSON file."""
    import pyarrow as pa

    return bytes(pa.schema(list(types.items())).serialize()).hex()


def types_of_text(text: str) -> dict[str, Any]:
    """Returns the types of `types_to_text`."""
    import pyarrow as pa

    schema = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(text)))
    return {field.name: field.type for field in schema}
