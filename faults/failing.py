"""Lets the n-th of all writes, syncs and renames below a folder fail, as a full or a broken disk does.

    with failing(folder, 3) as count:
        ...         # the operation with number 3, from 0, raises OSError
    count.done      # how many there were

What torch, pyarrow and Rust write is not seen here; a small disk finds these (see disk.py).
"""

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from bertlora import files

NEVER = -1


@dataclass
class Count:
    """Counts operations.

    Attributes:
        folder: where they count.
        fails: the number of the one that fails.
        done: how many there were.
    """

    folder: Path
    fails: int
    done: int = 0

    def operation(self, path: object) -> None:
        """Raises OSError if this is the one that fails."""
        if not isinstance(path, str | os.PathLike) or not Path(os.fspath(path)).is_relative_to(self.folder):
            return
        self.done += 1
        if self.done - 1 == self.fails:
            number = (errno.ENOSPC, errno.EIO)[self.fails % 2]
            raise OSError(number, os.strerror(number), os.fspath(path))


@contextmanager
def failing(folder: Path, number: int = NEVER) -> Iterator[Count]:
    """Inside, the operation with this number fails; by default none does."""
    count, real_open, real_sync = Count(folder, number), io.open, os.fsync

    class Raw(io.FileIO):
        def write(self, content: Any) -> Any:
            count.operation(self.name)
            return super().write(content)

    def opened(file: Any, mode: str = "r", buffering: int = -1, *more: Any, **keys: Any) -> Any:
        names = ("encoding", "errors", "newline")
        given = dict(zip(names, more, strict=False)) | keys
        if not {*mode} & {*"wax"} or not isinstance(file, str | os.PathLike) or given.keys() - {*names}:
            return real_open(file, mode, buffering, *more, **keys)
        count.operation(file)
        raw = Raw(os.fspath(file), mode.replace("b", "").replace("t", ""))
        buffered = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, **given, line_buffering=buffering == 1)

    def synced(file: int) -> None:
        count.operation(os.readlink(f"/proc/self/fd/{file}"))
        real_sync(file)

    def renaming(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Path, to: Path) -> Any:
            count.operation(path)
            return real(path, to)

        return call

    with ExitStack() as patches:
        for owner, name, instead in (
            (io, "open", opened),
            (builtins, "open", opened),
            (os, "fsync", synced),
            (Path, "rename", renaming(Path.rename)),
            (Path, "replace", renaming(Path.replace)),
            (files, "_swap", lambda first, second: False),  # renames can fail, this call cannot be seen
        ):
            patches.enter_context(mock.patch.object(owner, name, instead))
        yield count
