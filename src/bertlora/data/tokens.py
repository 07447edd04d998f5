"""Token ids: texts are tokenised once, whole and without special tokens, and kept on disk with the prepared data.

`template.py` cuts the model inputs from these ids, so another maximum length needs no second tokenisation.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bertlora.files import write_whole
from bertlora.hashes import check_files, hashes_of, opened, sealed

if TYPE_CHECKING:
    from bertlora.data.tokenizer import AnyTokenizer

Ids = npt.NDArray[np.int32]

CHUNK_TEXTS = 4096


@dataclass(frozen=True)
class TokenTable:
    """The token ids of B texts, end to end in one array. The array may be mapped from disk.

    Attributes:
        ids: (T,) int32, the ids of all texts in order.
        offsets: (B + 1,) int64, text i is `ids[offsets[i]:offsets[i + 1]]`.
    """

    ids: Ids
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> Ids:
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(B,) number of tokens of each text."""
        return np.diff(self.offsets)

    @classmethod
    def of(cls, rows: Sequence[Sequence[int] | Ids]) -> "TokenTable":
        """Returns the table of these rows of ids."""
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        ids = np.empty(int(offsets[-1]), dtype=np.int32)
        for row, start, end in zip(rows, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            ids[start:end] = row
        return cls(ids, offsets)

    @classmethod
    def joined(cls, tables: Iterable["TokenTable"]) -> "TokenTable":
        """Returns one table with the texts of all these tables."""
        parts = list(tables)
        ids = np.concatenate([part.ids for part in parts]) if parts else np.zeros(0, dtype=np.int32)
        lengths = np.concatenate([part.lengths for part in parts]) if parts else np.zeros(0, dtype=np.int64)
        return cls(ids, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def tokenize(tokenizer: "AnyTokenizer", texts: Iterable[str]) -> TokenTable:
    """Returns the ids of whole texts, without special tokens. Uses all cores."""
    return TokenTable.joined(token_chunks(tokenizer, texts))


def token_chunks(tokenizer: "AnyTokenizer", texts: Iterable[str]) -> Iterator[TokenTable]:
    """Yields the same in tables of up to 4,096 texts, for data that do not fit in memory."""
    waiting = iter(texts)
    while chunk := list(itertools.islice(waiting, CHUNK_TEXTS)):
        yield TokenTable.of(tokenizer.ids(chunk))


def kept_tokens(folder: Path, name: str, make: Callable[[], Iterable[TokenTable]]) -> TokenTable:
    """Returns the table saved in `folder` as `name`, with its ids mapped from disk.

    Saves it first if it is missing or damaged, or if an older version saved it, without hashes.

    Args:
        folder: where the table is saved. If it cannot be written, the table is kept in memory.
        name: the table's name.
        make: yields the table in parts; only one part is in memory at a time.
    """
    ids, offsets = _files(folder, name)
    if not has_tokens(folder, name):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(ids, offsets, make())
            write_whole(_manifest(folder, name), sealed({"files": hashes_of(folder, [ids.name, offsets.name])}))
        except OSError:
            return TokenTable.joined(make())
    # An empty file cannot be mapped.
    kept = np.memmap(ids, dtype=np.int32, mode="r") if ids.stat().st_size else np.zeros(0, dtype=np.int32)
    return TokenTable(kept, np.load(offsets, allow_pickle=False))


def has_tokens(folder: Path, name: str) -> bool:
    """Returns whether `folder` has the table that is saved as `name`, and it is whole."""
    try:
        files = opened(_manifest(folder, name).read_text(encoding="utf-8"))["files"]
        check_files(folder, files)
    except (OSError, ValueError, KeyError, TypeError):  # a RunError is a ValueError
        return False
    return True


def _files(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.ids", folder / f"{name}.offsets.npy"


def _manifest(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _write(ids: Path, offsets: Path, parts: Iterable[TokenTable]) -> None:
    """Writes both files, the offsets last. Several processes may do so at once."""
    partials = [path.with_name(f".{path.name}.partial-{os.getpid()}") for path in (ids, offsets)]
    ends = [np.zeros(1, dtype=np.int64)]
    try:
        with partials[0].open("wb") as file:
            for part in parts:
                file.write(part.ids.tobytes())
                ends.append(part.offsets[1:] + ends[-1][-1])
        with partials[1].open("wb") as file:
            np.save(file, np.concatenate(ends))
        for partial, path in zip(partials, (ids, offsets), strict=True):
            partial.replace(path)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)
