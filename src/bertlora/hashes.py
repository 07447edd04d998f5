"""Which content the files of a folder must have: SHA-256 by name, in the folder's manifest, which is written last.

    table["files"] = hashes_of(folder, ["a.bin", "below/b.bin"])
    write_whole(folder / "manifest.json", sealed(table))

    table = opened((folder / "manifest.json").read_text())
    check_files(folder, table["files"])

A manifest has no other file that covers it, so it has the SHA-256 of its own content: the seal. Folders of older
versions have neither, and are not checked. This finds damage and mistakes. It does not find forgery: who can change
a file can change its hash.
"""

import hashlib
import json
from collections.abc import Container, Iterable, Mapping
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import Any

from bertlora.errors import BertloraError, RunError

RUN_MANIFEST, CARD = "run.json", "README.md"  # people may change the card: no hash covers it
SEAL = "sha256"
ADVICE = "copy the folder again, or make it again"


def sealed(table: Mapping[str, Any]) -> str:
    """Returns the text of a manifest with these values, and its seal as the last key."""
    # As it will be read: JSON has no tuples, and its keys are texts.
    kept = json.loads(json.dumps({key: value for key, value in table.items() if key != SEAL}))
    return json.dumps(kept | {SEAL: _seal(kept)}, indent=2, ensure_ascii=False) + "\n"


def opened(text: str) -> dict[str, Any]:
    """Returns the values of a manifest, without the seal.

    Raises:
        ValueError: the text is no JSON object, or does not fit its seal.
    """
    try:
        table = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(table, dict):
        raise ValueError("expected a JSON object")
    seal = table.pop(SEAL, None)
    if seal is not None and seal != _seal(table):
        raise ValueError("it was changed after it was written")
    return table


def hashes_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Returns the SHA-256 of files of a folder, by name; a name has `/` between folders on every system."""
    return {name: sha256(folder / name) for name in names}


def check_files(
    folder: Path,
    files: Mapping[str, str],
    names: Iterable[str] | None = None,
    kind: type[BertloraError] = RunError,
    advice: str = ADVICE,
) -> None:
    """Checks files of a folder.

    Args:
        folder: the folder.
        files: SHA-256 by name, as the manifest has it. Other names are not checked. While a file is being replaced,
            it has two, with a space between them.
        names: which of them; None for all.
        kind: the error to raise.
        advice: what its message tells the user to do.

    Raises:
        BertloraError: a file is missing, or has another content. It is of the type `kind`.
    """
    for name in files if names is None else names:
        if name not in files:
            continue
        if not is_below(name):
            raise kind(f"{folder}: its manifest names a file outside the folder, {name!r}; {advice}")
        path = folder / name
        try:
            found = sha256(path) if path.is_file() else None
        except OSError as error:  # is_file raises it for a name that is too long
            raise kind(f"{path}: cannot be read ({error}); {advice}") from error
        if found is None:
            raise kind(f"{folder}: lacks {name}; {advice}")
        if found not in str(files[name]).split():
            raise kind(f"{path}: is damaged, or belongs to another folder (its SHA-256 differs); {advice}")


def is_below(name: str) -> bool:
    """Returns whether a name in a manifest stays below the manifest's folder, on every system."""
    path = PureWindowsPath(name)  # it takes `/` and `\\`, and has drives
    return not (path.anchor or ".." in path.parts or "\0" in name)


def is_part(file: Path) -> bool:
    """Returns whether a run folder, or an export, has a file, which is then what its run.json lists.

    Raises:
        RunError: run.json lists it, and it is missing or has another content.
    """
    check_files(file.parent, _listed(file.parent), [file.name])
    return file.is_file()


def names_below(folder: Path, without: Container[str] = ()) -> list[str]:
    """Returns the names of all files below a folder, in order, but those whose last part is in `without`."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name not in without]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _listed(folder: Path) -> dict[str, str]:
    """Returns the hashes that the run.json of a folder has."""
    file = folder / RUN_MANIFEST
    if not file.is_file():
        return {}
    now = file.stat()
    try:
        return _files_in(file, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{file}: cannot be read ({error}); the run is damaged") from error


@lru_cache(maxsize=64)
def _files_in(file: Path, *stamps: int) -> dict[str, str]:
    return dict(opened(file.read_text(encoding="utf-8")).get("files", {}))


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, in hex. A process reads a file once, unless its time or size changes."""
    now = path.stat()
    return _sha256(path, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)


@lru_cache(maxsize=4096)
def _sha256(path: Path, *stamps: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(table: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of values, whatever the white space and the order in their file."""
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
