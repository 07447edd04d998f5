"""The folder next to the output that holds what is done: parts, their records, and what they belong to.

    .FILE.parts/
      state.json           what the parts belong to: sources, run, options. Written first, deleted last. Its key `end`,
                           the result, says that the two files below are whole and only have to get their names
      part-000007.csv      a part, whole or not there
      part-000007.json     its number of rows and its bad rows; written after it: then the part is done
      whole.csv, bad.jsonl the joined parts, and the bad rows

A kill at any moment leaves a folder from which the same command goes on.
"""

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertlora.errors import OutputError
from bertlora.files import sync, sync_names, write_whole, writing

STATE, LOCK = "state.json", "lock"
# What an interrupted work belonged to, for the message that refuses another one.
BELONGS = {
    "sources": "another or changed source",
    "run": "another run",
    "options": "other options",
    "format": "another version of bertlora",
}


@dataclass(frozen=True)
class PartFolder:
    """The parts of one output file.

    Attributes:
        out: the output file.
        format: `csv`, `tsv`, `jsonl` or `parquet`.
    """

    out: Path
    format: str

    @property
    def path(self) -> Path:
        """The folder."""
        return self.out.with_name(f".{self.out.name}.parts")

    @property
    def quarantine(self) -> Path:
        """The file of the rows that could not be read or computed."""
        return self.out.with_name(f"{self.out.name}.quarantine.jsonl")

    @property
    def whole(self) -> Path:
        """The joined parts, before they get their name."""
        return self.path / f"whole.{self.format}"

    @property
    def bad(self) -> Path:
        """The rows that could not be read or computed, before the file gets its name."""
        return self.path / "bad.jsonl"

    def part(self, number: int) -> Path:
        """The file of a part."""
        return self.path / f"part-{number:06}.{self.format}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other process works in the folder. It is there, and stays if it has parts.

        Raises:
            OutputError: another process does, or the folder cannot be made.
        """
        with writing(self.out):
            self.path.mkdir(exist_ok=True)
            lock = (self.path / LOCK).open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise OutputError(
                    f"{self.out}: another process writes it; wait for it, or name another file"
                ) from error
            try:
                yield
            finally:
                if not self.saved():
                    shutil.rmtree(self.path, ignore_errors=True)

    def saved(self) -> dict[str, Any]:
        """Returns state.json; empty if there is none."""
        return _read(self.path / STATE)

    def other_than(self, belongs: Mapping[str, Any]) -> str:
        """Returns a message if the parts that are there belong to something else; otherwise an empty one."""
        saved = self.saved()
        changed = [name for name in BELONGS if saved and saved.get(name) != belongs[name]]
        if not changed:
            return ""
        what = f"{self.path}: holds unfinished parts of {BELONGS[changed[0]]}"
        return f"{what}; repeat the command that made them, or give --overwrite to start again"

    def begin(self, state: Mapping[str, Any]) -> None:
        """Removes what is there, and writes state.json."""
        self.clear()
        self._write(STATE, state)

    def clear(self) -> None:
        """Removes all but the lock; state.json last, so that a kill does not leave parts that belong to nothing."""
        for path in sorted(self.path.iterdir(), key=lambda path: path.name == STATE):
            if path.name != LOCK:
                path.unlink(missing_ok=True)

    def record(self, number: int, rows: int, faults: list[dict[str, Any]]) -> None:
        """Says that a part is done, once its file is there."""
        self._write(f"part-{number:06}.json", {"rows": rows, "faults": faults})

    def records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields the number and the record of each part that is done, in order."""
        numbers = sorted(int(path.stem.removeprefix("part-")) for path in self.path.glob("part-*.json"))
        for number in numbers:
            yield number, _read(self.path / f"part-{number:06}.json")

    def end(self) -> dict[str, Any]:
        """Returns the result if all parts are joined; otherwise an empty one."""
        found: dict[str, Any] = self.saved().get("end", {})
        return found

    def write_end(self, result: Mapping[str, Any]) -> None:
        """Says that the joined files are whole, once they are on the disk."""
        with writing(self.out):
            sync(self.whole)
        self._write(STATE, self.saved() | {"end": result})

    def publish(self) -> None:
        """Gives the joined files their names, and removes the rest. After a kill it can be done again."""
        with writing(self.out):
            if self.bad.exists():
                self.bad.replace(self.quarantine)
            elif not self.end()["quarantined"]:
                self.quarantine.unlink(missing_ok=True)  # of an older output
            if self.whole.exists():
                self.whole.replace(self.out)
            sync_names(self.out.parent)
        self.clear()

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        write_whole(self.path / name, json.dumps(value, ensure_ascii=False) + "\n")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
