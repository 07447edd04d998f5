"""What the pages of a Parquet file expand to, from their headers, before pyarrow reads them.

A few KB can say "this text of 1 MB, a million times": a page may hold each text once, or only how it differs from the
text before it. pyarrow would make all of them.

pyarrow also reads the footer, but where it is damaged, its metadata of a column can end the process.

Source: the Apache Parquet format, `FileMetaData` and `PageHeader` in parquet.thrift, and Thrift's compact protocol.
"""

import os
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple

MOST_BATCH_BYTES = 1 << 29  # of the texts of one batch
MOST_PAGE_BYTES = 1 << 29  # of one page, unpacked; most writers end a page at 1 MB, fastparquet at 500
MOST_ITEMS = 50_000_000  # of the lists in a row group
HEADER_BYTES = 1 << 14
LARGEST_HEADER_BYTES = 1 << 24  # pyarrow's own bound
# Of `Encoding`, `PageType` and `Type` in parquet.thrift.
DELTA_BYTE_ARRAY, DICTIONARY_PAGE, BYTE_ARRAY = 7, 2, 6
# What reading fields of the wrong types raises.
DAMAGED = (KeyError, TypeError, AttributeError, IndexError, OverflowError)
TRUE, FALSE, BYTE, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
DEEPEST = 16


class PagesError(ValueError):
    """Pages that must not be read."""


class Page(NamedTuple):
    """What the header of a page says: whether it may stand for more bytes than it has, its bytes, and its values."""

    repeats: bool
    size: int
    values: int


def batch_rows(file: Any, raw: IO[bytes], columns: Iterable[str], rows: int) -> int:
    """Returns how many rows of some columns can be read at once, at most `rows`.

    Args:
        file: a pyarrow.parquet.ParquetFile.
        raw: the same file, as bytes.
        columns: the columns that will be read.
        rows: the most.

    Raises:
        PagesError: a page is too large, or a list is too long, to be read.
    """
    try:
        return _batch_rows(file, raw, set(columns), rows)
    except DAMAGED as error:
        raise PagesError("its pages are not described as they should be") from error


def _batch_rows(file: Any, raw: IO[bytes], wanted: set[str], rows: int) -> int:
    largest = 1
    leaves = [i for i in range(len(file.schema)) if file.schema.column(i).path.partition(".")[0] in wanted]
    for group in _row_groups(raw):
        for leaf in leaves:
            chunk = group[leaf]
            items = 0
            for page in _pages(raw, chunk):
                items += page.values
                if page.size > MOST_PAGE_BYTES:
                    raise PagesError(f"a page of {page.size:,} bytes, more than {MOST_PAGE_BYTES:,}")
                if page.repeats and chunk[1] == BYTE_ARRAY:
                    largest = max(largest, page.size)
            if file.schema.column(leaf).max_repetition_level and items > MOST_ITEMS:
                raise PagesError(f"lists of {items:,} items in a row group, more than {MOST_ITEMS:,}")
    return max(1, min(rows, MOST_BATCH_BYTES // largest))


def _row_groups(raw: IO[bytes]) -> list[list[dict[int, Any]]]:
    """Returns the `ColumnMetaData` of each column of each row group, by field."""
    raw.seek(-8, os.SEEK_END)
    size = int.from_bytes(raw.read(4), "little")
    raw.seek(-8 - size, os.SEEK_END)
    footer = _Thrift(raw.read(size)).struct()
    return [[column[3] for column in group[1]] for group in footer.get(4, [])]


def _pages(raw: IO[bytes], chunk: dict[int, Any]) -> Iterator[Page]:
    """Yields the pages of a column of a row group."""
    start, dictionary = chunk[9], chunk.get(11, 0)
    if 0 < dictionary < start:
        start = dictionary
    end = start + chunk[7]
    while start < end:
        header, length = _header(raw, start)
        kind, size, packed = (header.get(key, -1) for key in (1, 2, 3))
        if min(kind, size, packed) < 0:
            raise PagesError("a page whose header has no sizes")
        data = header.get(5) or header.get(8) or {}  # of version 1 or 2
        encoding = data.get(2 if 5 in header else 4)
        yield Page(kind == DICTIONARY_PAGE or encoding == DELTA_BYTE_ARRAY, size, data.get(1, 0))
        start += length + packed


def _header(raw: IO[bytes], start: int) -> tuple[dict[int, Any], int]:
    """Returns the header of the page at `start`, and its length."""
    size = HEADER_BYTES
    while True:
        raw.seek(start)
        reader = _Thrift(raw.read(size))
        try:
            return reader.struct(), reader.place
        except IndexError as error:
            if size > LARGEST_HEADER_BYTES or len(reader.content) < size:
                raise PagesError("a page whose header is not whole") from error
            size *= 16


class _Thrift:
    """Reads a struct in Thrift's compact protocol: numbers, structs and lists by field; it passes over the rest."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.place = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Returns the fields. IndexError means that the bytes end before the struct does."""
        fields: dict[int, Any] = {}
        field = 0
        while start := self._byte():
            field = field + (start >> 4) if start >> 4 else self._integer()
            fields[field] = self._value(start & 15, depth + 1)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > DEEPEST:
            raise PagesError("a description that is too deep")
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind in (BYTE, DOUBLE):
            return self._skip(1 if kind == BYTE else 8)
        if kind == BINARY:
            return self._skip(self._varint())
        if kind == STRUCT:
            return self.struct(depth)
        if kind in (LIST, SET):
            return self._list(depth)
        if kind == MAP:
            raise PagesError("a description with a map")  # the format has none
        return self._integer()

    def _list(self, depth: int) -> list[Any]:
        start = self._byte()
        kind, length = start & 15, start >> 4
        if length == 15:
            length = self._varint()
        if kind in (TRUE, FALSE):  # in a list each has a byte
            kind = BYTE
        return [self._value(kind, depth + 1) for _ in range(length)]

    def _byte(self) -> int:
        self.place += 1
        return self.content[self.place - 1]

    def _skip(self, length: int) -> None:
        self.place += length
        if self.place > len(self.content):
            raise IndexError

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise PagesError("a page whose header is no header")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
