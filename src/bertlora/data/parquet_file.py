"""What is wrong with a Parquet file, as a DataError."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bertlora.errors import BertloraError, DataError


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
