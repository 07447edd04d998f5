"""Text files, maybe compressed with gzip or zstd, in any encoding: their lines, with exact line numbers.

file = TextFile(Path("reviews.csv.gz"), "reviews.csv.gz")
file.encoding                                   # "cp1252"
for line in file.lines(): ...
"""

import codecs
import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, AnyStr

from bertlora.data.encoding import detect_encoding
from bertlora.data.named_columns import ColumnNames
from bertlora.errors import DataError, InputError

FILE_TYPES = ".csv, .tsv, .jsonl, .ndjson, .json (also with .gz or .zst), .parquet, .xlsx or .ods"
COMPRESSED = (".gz", ".zst")
LONGEST_LINE = 64_000_000  # bytes
# A file that is read as a whole may unpack to this many bytes, or to this many times its size.
MOST_UNPACKED, MOST_TIMES = 64_000_000, 50
OVERRIDE = "if that is wrong, give --encoding"
# Gets the line (from 1) of a row that cannot be read, or the row from 0, and the reason.
OnFault = Callable[[int, str], None]
# They give halves of surrogate pairs, or raise errors of their own. No editor writes them.
NOT_OF_FILES = ("utf-7", "unicode-escape", "raw-unicode-escape", "punycode", "idna")
DELIMITER_NAMES = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "\\t": "\t"}


@dataclass(frozen=True)
class FileFormat:
    """How the user says that files are written. What is None is detected.

    Attributes:
        encoding: the name of a codec of Python, such as `cp1252`.
        delimiter: one character, or `comma`, `semicolon`, `tab`, `pipe`.
        on_fault: gets the rows that cannot be read, which are then left out; None makes the first one an error.

    Raises:
        InputError: Python has no such codec for text, or the delimiter is not one character.
    """

    encoding: str | None = None
    delimiter: str | None = None
    on_fault: OnFault | None = None

    @classmethod
    def of(cls, options: ColumnNames) -> "FileFormat":
        """Returns the format that options name."""
        return cls(options.get("encoding") or None, options.get("delimiter") or None)

    def __post_init__(self) -> None:
        if self.encoding is not None and not _is_codec(self.encoding):
            raise InputError(f"--encoding: '{self.encoding}' is unknown; expected a name such as utf-8, cp1252, utf-16")
        if self.delimiter is not None and (len(self.sign or "") != 1 or (self.sign or "") in '"\r\n'):
            raise InputError(f"--delimiter: got '{self.delimiter}', expected one character, or 'tab'")

    @property
    def sign(self) -> str | None:
        """The delimiter as a character."""
        return self.delimiter if self.delimiter is None else DELIMITER_NAMES.get(self.delimiter, self.delimiter)


class TextFile:
    """A text file.

    Attributes:
        path: the file.
        name: its name in messages.
        encoding: the codec that reads it.
        detected: whether the encoding was detected and is not UTF-8.
        on_fault: gets the rows that cannot be read; None makes the first one an error.

    Args:
        path: the file.
        name: its name in messages.
        encoding: the codec; None detects it.
        on_fault: see above.

    Raises:
        DataError: it is missing, a folder, empty, or cannot be decompressed.
    """

    def __init__(self, path: Path, name: str, encoding: str | None = None, on_fault: OnFault | None = None) -> None:
        check_file(path)
        self.path = path
        self.name = name
        self.on_fault = on_fault
        self._raw: IO[bytes] | None = None  # the file as it is on disk
        given = encoding is not None
        if encoding is None:
            with self._opened() as file:
                encoding = detect_encoding(file)
            self._raw = None  # so far nothing of it is read
        # With the codec `utf-8` a byte-order mark would be part of the first column's name.
        self.encoding = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
        self.detected = not given and not self.is_utf8

    @property
    def is_utf8(self) -> bool:
        """Whether the encoding is UTF-8."""
        return self.encoding == "utf-8-sig"

    @property
    def fraction_read(self) -> float | None:
        """How much of the file is read, 0..1; None if it was not opened, or if that is not known."""
        if self._raw is None:
            return None
        if self._raw.closed:  # after its last line
            return 1.0
        return self._raw.tell() / self.path.stat().st_size or None

    def fault(self, line: int, reason: str, cause: Exception | None = None) -> None:
        """Reports a row that cannot be read to `on_fault`.

        Raises:
            DataError: there is no `on_fault`.
        """
        if self.on_fault is None:
            raise DataError(f"{self.name} line {line}: {reason}") from cause
        self.on_fault(line, reason)

    def lines(self, undecodable: dict[int, str] | None = None, longest: int = LONGEST_LINE) -> Iterator[str]:
        r"""Yields the lines with their line ends. Only `\n` ends a line, as in editors, so line numbers agree.

        Args:
            undecodable: gets the lines that are not of the encoding, as line number → reason. They are yielded with
                `\ufffd` in place of what cannot be decoded. UTF-16 and UTF-32 have no such lines.
            longest: the most bytes of a line; in UTF-16 and UTF-32 the most characters.

        Raises:
            DataError: the file cannot be opened, a line is too long, or without `undecodable` is not of the encoding.
        """
        with self._opened() as file:
            if codecs.lookup(self.encoding).name.startswith(("utf-16", "utf-32")):
                yield from self._wide_lines(file, longest)
                return
            for number, raw in enumerate(self._each(file, longest), 1):
                yield self._decoded(raw, number, undecodable)

    def readable_lines(self) -> Iterator[tuple[int, str]]:
        """Yields line numbers, from 1, with the lines. A line that is not of the encoding is a fault, and left out.

        Raises:
            DataError: as in `lines`; and for such a line, if there is no `on_fault`.
        """
        undecodable: dict[int, str] | None = None if self.on_fault is None else {}
        for number, line in enumerate(self.lines(undecodable), 1):
            if undecodable and number in undecodable:
                self.fault(number, undecodable.pop(number))
            else:
                yield number, line

    def text(self) -> str:
        """Returns the whole text of a (small) file.

        Raises:
            DataError: as in `lines`; or a compressed file is small, and its text is very large.
        """
        limit = sys.maxsize - 1
        if self.path.suffix.lower() in COMPRESSED:
            limit = max(MOST_UNPACKED, MOST_TIMES * self.path.stat().st_size)
        text = io.StringIO(newline="")  # a list of short lines would take ten times as much
        for line in self.lines(longest=limit):
            text.write(line)
            if text.tell() > limit:
                raise DataError(f"{self.name}: unpacks to more than {limit:,} characters; unpack it yourself first")
        return text.getvalue()

    def start(self, size: int) -> str:
        """Returns the first characters, from the first `size` bytes."""
        with self._opened() as file:
            return file.read(size).decode(self.encoding, "ignore")

    def sample(self, characters: int) -> tuple[list[str], bool]:
        """Returns the first lines, of about this many characters, and whether they are all."""
        taken: list[str] = []
        for line in self.lines(None if self.on_fault is None else {}):
            if characters <= 0:
                return taken, False
            taken.append(line)
            characters -= len(line)
        return taken, True

    def _each(self, file: IO[AnyStr], longest: int) -> Iterator[AnyStr]:
        """Yields the lines. One line of a small compressed file can be larger than the memory."""
        for number, line in enumerate(iter(partial(file.readline, longest + 1), file.read(0)), 1):
            if len(line) > longest:
                raise DataError(f"{self.name} line {number}: is longer than {longest:,} bytes; check the line ends")
            yield line

    def _wide_lines(self, file: IO[bytes], longest: int) -> Iterator[str]:
        r"""Yields the lines of UTF-16 or UTF-32, where the byte of `\n` is part of other characters too."""
        number, text = 0, io.TextIOWrapper(file, self.encoding, newline="\n")
        try:
            for line in self._each(text, longest):
                number += 1
                yield line.removeprefix("\ufeff") if number == 1 else line
        except UnicodeError as error:  # a missing byte-order mark is no UnicodeDecodeError
            raise DataError(f"{self.name} after line {number}: {self._not_of_encoding('the text')}") from error
        finally:
            text.detach()  # `file` is closed by its own block

    def _decoded(self, raw: bytes, number: int, undecodable: dict[int, str] | None) -> str:
        codec = self.encoding if number == 1 or not self.is_utf8 else "utf-8"
        try:
            return raw.decode(codec)
        except UnicodeDecodeError as error:
            reason = self._not_of_encoding(f"byte 0x{raw[error.start]:02x} at column {error.start + 1}")
            if undecodable is None:
                raise DataError(f"{self.name} line {number}: {reason}") from error
            undecodable[number] = reason
            return raw.decode(codec, "replace")

    def _not_of_encoding(self, what: str) -> str:
        encoding = "UTF-8" if self.is_utf8 else self.encoding
        return f"{what} is not {encoding}; give another --encoding"

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        """Yields the file, decompressed. A fault of the file becomes a DataError."""
        try:
            with self.path.open("rb") as self._raw, _decompressed(self.path, self._raw) as file:
                yield file
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{self.name}: cannot be decompressed ({error}); fetch or write it again") from error
        except OSError as error:
            if self.path.suffix.lower() in COMPRESSED and error.errno is None:  # of pyarrow
                raise DataError(f"{self.name}: cannot be decompressed ({error}); fetch or write it again") from error
            raise unreadable(self.path, error) from error


def detected(file: TextFile) -> str:
    """Returns the note on a detected encoding: `reviews.csv: read as cp1252`."""
    return f"{file.name}: read as {'UTF-8' if file.is_utf8 else file.encoding}"


def kind_of(path: Path) -> str:
    """Returns the suffix that says what a file holds: `.csv` for `reviews.CSV.gz`."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSED else suffix


def check_file(path: Path) -> None:
    """Checks that `path` is a file that is not empty.

    Raises:
        DataError: it is missing, a folder, or empty.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected a file ({FILE_TYPES})")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; check the path")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty, expected rows of text")


def unreadable(path: Path, error: OSError) -> DataError:
    """Returns the error for a file that cannot be read."""
    return DataError(f"{path}: cannot be read ({error.strerror or error})")


def _decompressed(path: Path, raw: IO[bytes]) -> IO[bytes]:
    match path.suffix.lower():
        case ".gz":
            return io.BufferedReader(gzip.GzipFile(fileobj=raw, mode="rb"))
        case ".zst":
            import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

            return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))
    return raw


def _is_codec(encoding: str) -> bool:
    """Returns whether Python has a codec with this name that reads the text of files; `base64` does not."""
    try:
        b"a".decode(encoding, "replace")
        return codecs.lookup(encoding).name not in NOT_OF_FILES
    except (LookupError, ValueError):
        return False
