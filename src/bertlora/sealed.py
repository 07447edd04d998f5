"""Folders that show by themselves whether they are whole: a seal, written last, has the hash of every file.

with sealing(folder, {"step": 12}) as partial:
    (partial / "a.safetensors").write_bytes(content)
facts_of(folder)     # {"step": 12}, or an error if a file is cut, damaged, missing or too many
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bertlora.errors import RunError
from bertlora.files import whole_folder
from bertlora.hashes import check_files, hashes_of, names_below, opened, sealed

SEAL = "checkpoint.json"


class Kept(NamedTuple):
    """A result that is kept for later: its folder, and what it must belong to, for JSON."""

    folder: Path
    facts: dict[str, Any]

    def part(self, name: str) -> "Kept":
        """Returns one of several results that belong to the same."""
        return Kept(self.folder / name, self.facts)

    def whole(self) -> bool:
        """Returns whether it is there, undamaged, and belongs to the same."""
        try:
            expected: dict[str, Any] = json.loads(json.dumps(self.facts))  # as it was read again: JSON has no tuples
            return facts_of(self.folder) == expected
        except (OSError, RunError):
            return False


@contextmanager
def sealing(folder: Path, facts: dict[str, Any] | None = None) -> Iterator[Path]:
    """Yields a temporary folder to fill. It is sealed and gets the name `folder` if the block succeeds.

    Args:
        folder: the folder; one of that name is replaced.
        facts: what the seal says besides the hashes, for JSON.

    Raises:
        OutputError: it cannot be written; nothing of it is kept.
    """
    with whole_folder(folder, overwrite=True) as partial:
        yield partial
        table = {"facts": facts or {}, "files": hashes_of(partial, names_below(partial))}
        (partial / SEAL).write_text(sealed(table), encoding="utf-8")


def facts_of(folder: Path) -> dict[str, Any]:
    """Returns the facts of a sealed folder, once every file in it has its hash.

    Raises:
        OSError: there is no seal, or a file cannot be read.
        RunError: the seal or a file is not as it was written, or a file is too many.
    """
    text = (folder / SEAL).read_text(encoding="utf-8", errors="replace")
    try:
        seal = opened(text)
        facts, files = dict(seal["facts"]), dict(seal["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / SEAL}: is damaged ({error})") from error
    check_files(folder, files, advice="it is not used")
    if more := set(names_below(folder)) - {*files, SEAL}:
        raise RunError(f"{folder}: has files that were not written with it: {', '.join(sorted(more))}")
    return facts
