"""Outputs that are either whole or not there, also after a power cut.

A rename may reach the disk before the content of the file that it names. So each output is synced before its rename,
and the folder that holds its name after it.
"""

import ctypes
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from bertlora.errors import BertloraError, OutputError

HERE, EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
# What C++ says of a file that cannot be written.
STREAM_FAULT = "iostream error"
# What JSON allows in a string, but breaks a line in Python's `splitlines` and JavaScript, steers a terminal, or turns
# the reading direction.
STEERING = [*range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
ESCAPES = {code: f"\\u{code:04x}" for code in STEERING}


def check_vacant(folder: Path, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Raises OutputError when `folder` exists with something in it and may not be replaced, or cannot be made.

    It must not be or hold one of `inputs` either, since these would be deleted with it.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file, expected a folder to write to; name another")
    for path in inputs:
        if path.exists() and path.resolve().is_relative_to(folder.resolve()):
            raise OutputError(f"{folder}: holds the input {path}; name another output folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise OutputError(f"{folder}: holds something already; name another folder, or give --overwrite to replace it")
    parent = next(p for p in folder.resolve().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OutputError(f"{folder}: cannot be made, {parent} is not a folder that may be written to")


def check_vacant_file(file: Path, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Raises OutputError when `file` cannot be written, is one of `inputs`, or is there and may not be replaced."""
    if file.is_dir():
        raise OutputError(f"{file}: is a folder, expected a file to write; name a file in it")
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
        raise OutputError(f"{file}: cannot be written, {file.parent} is not a folder that may be written to")
    if file.exists() and any(path.exists() and path.samefile(file) for path in inputs):
        raise OutputError(f"{file}: is the input; name another output file")
    if file.exists() and not overwrite:
        raise OutputError(f"{file}: is there already; name another file, or give --overwrite to replace it")


@contextmanager
def whole_folder(folder: Path, overwrite: bool = False, inputs: Iterable[Path] = ()) -> Iterator[Path]:
    """Yields a temporary folder to fill. It gets the name `folder` if the block succeeds, otherwise it is deleted.

    If `folder` is a link, its target is replaced.

    Raises:
        OutputError: `folder` holds something already and `overwrite` is false, it holds one of `inputs`, or it cannot
            be written.
    """
    check_vacant(folder, overwrite, inputs)
    real = folder.resolve()
    partial = real.parent / f".{real.name}.partial-{os.getpid()}"
    try:
        partial.mkdir(parents=True)
        yield partial
        replace_folder(partial, real)
    except Exception as error:
        # Inside the block, `writing` names the temporary folder, which nobody knows outside.
        if (reason := _system_reason(error.__cause__ if isinstance(error, OutputError) else error)) is None:
            raise
        raise OutputError(f"{folder}: cannot be written ({reason}); nothing was kept") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace_folder(new: Path, folder: Path) -> None:
    """Gives `new` the name `folder`, or its target's if that is a link. Then the old content is deleted.

    If that fails, `folder` has its old content again.
    """
    folder = folder.resolve()
    sync(new)
    swapped = folder.exists() and _swap(new, folder)
    old = new if swapped else folder.parent / f".{folder.name}.old-{os.getpid()}"
    try:
        if not swapped:
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        sync_names(folder.parent)
    except OSError:
        if swapped:
            _swap(new, folder)
        else:
            _take_back(new, folder, old)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _take_back(new: Path, folder: Path, old: Path) -> None:
    """Undoes both renames, as far as they were done."""
    if not new.exists():
        folder.rename(new)
    if old.exists():
        old.rename(folder)


def _swap(first: Path, second: Path) -> bool:
    """Exchanges two names in one step, so that a kill leaves no moment without a folder. Returns False if it cannot.

    Only Linux has the call `renameat2`, and not for every file system.
    """
    call = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    return call is not None and call(HERE, os.fsencode(first), HERE, os.fsencode(second), EXCHANGE) == 0


def sync(path: Path) -> None:
    """Waits until a file, or a folder with all that is below it, is on the disk.

    Raises:
        OSError: the disk is full or broken.
    """
    if path.is_symlink():
        return
    if path.is_dir():
        for inside in path.iterdir():
            sync(inside)
        sync_names(path)
    elif path.is_file():
        # Windows syncs only what may be written to. Elsewhere the file may be read-only.
        _sync(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)


def sync_names(folder: Path) -> None:
    """Waits until the names in a folder are on the disk. Windows has no call for that, and needs none."""
    if os.name != "nt":
        _sync(folder, os.O_RDONLY)


def _sync(path: Path, how: int) -> None:
    file = os.open(path, how)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write_whole(path: Path, text: str) -> None:
    """Writes `text` to `path` through a neighbour and a rename: a reader sees the old file or the new one.

    Raises:
        OutputError: it cannot be written; the old file stays.
    """
    with whole_file(path) as file:
        file.write(text)


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """Yields a file to write, UTF-8. It takes the name `path` when the block ends well, and is removed otherwise.

    Raises:
        OutputError: it cannot be written; the old file stands.
    """
    with whole_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        yield file


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """Yields the path of a file to write, for libraries that open it themselves; otherwise like `whole_file`."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with writing(path):
            yield partial
            sync(partial)
            partial.replace(path)
            sync_names(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside, a full disk or a missing permission becomes an OutputError about `path`."""
    try:
        yield
    except Exception as error:
        if (reason := _system_reason(error)) is None:
            raise
        raise OutputError(f"{path}: cannot be written ({reason}); free space or name another") from error


def _system_reason(error: BaseException | None) -> str | None:
    """Returns the system's message, or None if the error has another cause.

    shutil, and libraries in Rust (safetensors, tokenizers), have the system's error number only in their text. C++'s
    streams (OpenVINO) do not have it at all.
    """
    if isinstance(error, BertloraError):
        return None
    if STREAM_FAULT in str(error):
        return "the disk is full or broken"
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := re.search(r"\(os error (\d+)\)|\[Errno (\d+)\]", str(error))):
        number = int(found[1] or found[2])
    return None if number is None else os.strerror(number)


def json_line(value: Any) -> str:
    """Returns a value as JSON on one line, without characters that steer what shows it."""
    return json.dumps(value, ensure_ascii=False).translate(ESCAPES)


def check_plain(*folders: Path) -> None:
    """Raises BertloraError if a folder has a pipe, a socket or a device: who reads one may wait for ever."""
    for path in (path for folder in folders if folder.is_dir() for path in folder.iterdir()):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise BertloraError(f"{path}: is a pipe or a device, expected a file; remove it")


def size_of(folder: Path) -> int:
    """Returns the bytes of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def megabytes(size: int) -> str:
    """Returns a size in bytes for people: `152 KB`, `90.9 MB`."""
    return f"{size / 1000:,.0f} KB" if size < 1_000_000 else f"{size / 1_000_000:,.1f} MB"
