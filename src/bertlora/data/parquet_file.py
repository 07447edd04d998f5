"""Reads a Parquet file in bounded memory; what is wrong with it becomes a DataError."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bertlora.data.parquet_pages import MOST_BATCH_BYTES, PagesError, batch_rows
from bertlora.errors import BertloraError, DataError

PART_BYTES = 64_000_000  # of what becomes values of Python at once


@contextmanager
def parquet_faults(fault: Callable[[Exception], DataError]) -> Iterator[None]:
    """Inside, what pyarrow raises becomes the error that `fault` returns."""
    import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

    try:
        yield
    except BertloraError:
        raise
    # Names that are not UTF-8, dates of no calendar, columns without chunks: pyarrow has no type for all of these.
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise fault(error) from error


def parquet_batches(file: Any, path: Path, columns: Sequence[str], rows: int) -> Iterator[Any]:
    """Yields some columns of a Parquet file in batches whose texts have a bounded size.

    Args:
        file: a pyarrow.parquet.ParquetFile.
        path: the same file.
        columns: the columns.
        rows: the most in a batch.

    Raises:
        ValueError: a page is too large, or its lists are too long.
    """
    with path.open("rb") as raw:
        rows = batch_rows(file, raw, columns, rows)
    # Threads would each keep memory of Arrow's, some 15 MiB together, until the process ends.
    for batch in file.iter_batches(batch_size=rows, columns=list(columns), use_threads=False):
        if sum(map(_listed_bytes, batch.columns)) > MOST_BATCH_BYTES:
            raise PagesError(f"lists with texts of more than {MOST_BATCH_BYTES:,} bytes")
        step = max(1, batch.num_rows * PART_BYTES // max(batch.nbytes, PART_BYTES))
        yield from (batch.slice(start, step) for start in range(0, batch.num_rows, step))


def open_parquet(path: Path, **options: Any) -> Any:
    """Returns a pyarrow.parquet.ParquetFile. Of lists of texts it reads each text once."""
    import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

    file = pq.ParquetFile(path, **options)
    leaves = [file.schema.column(i) for i in range(len(file.schema))]
    lists = [leaf.path for leaf in leaves if leaf.max_repetition_level and leaf.physical_type == "BYTE_ARRAY"]
    return pq.ParquetFile(path, read_dictionary=lists, **options) if lists else file


def _listed_bytes(array: Any) -> int:
    """Returns the bytes of the texts in lists, each as often as it is there."""
    import pyarrow as pa
    import pyarrow.compute as pc  # type: ignore[import-untyped, unused-ignore]

    kind = array.type
    if pa.types.is_dictionary(kind) and not pa.types.is_primitive(kind.value_type):
        return pc.sum(pc.binary_length(array.dictionary).take(array.indices)).as_py() or 0
    if pa.types.is_struct(kind):
        return sum(map(_listed_bytes, array.flatten()))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _listed_bytes(array.flatten())
    return _listed_bytes(array.items) if pa.types.is_map(kind) else 0
