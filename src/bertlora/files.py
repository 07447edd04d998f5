"""Outputs that are either whole or not there."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from bertlora.errors import BertloraError, OutputError

# Characters at which Python's `splitlines` and JavaScript break lines, and which JSON allows in a string.
LINE_BREAKS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}


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
    """Gives `new` the name `folder`, or its target's if that is a link. Then the old content is deleted."""
    folder = folder.resolve()
    old = folder.parent / f".{folder.name}.old-{os.getpid()}"
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


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
            partial.replace(path)
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

    shutil, and libraries in Rust (safetensors, tokenizers), have the system's error number only in their text.
    """
    if isinstance(error, BertloraError):
        return None
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := re.search(r"\(os error (\d+)\)|\[Errno (\d+)\]", str(error))):
        number = int(found[1] or found[2])
    return None if number is None else os.strerror(number)


def json_line(value: Any) -> str:
    """Returns a value as JSON without a line break in it."""
    return json.dumps(value, ensure_ascii=False).translate(LINE_BREAKS)


def size_of(folder: Path) -> int:
    """Returns the bytes of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def megabytes(size: int) -> str:
    """Returns a size in bytes for people: `152 KB`, `90.9 MB`."""
    return f"{size / 1000:,.0f} KB" if size < 1_000_000 else f"{size / 1_000_000:,.1f} MB"
