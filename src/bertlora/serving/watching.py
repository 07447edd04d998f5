"""A watched folder: its runs are loaded, replaced when they change, and dropped when they go."""

import logging
import time
from pathlib import Path
from threading import Event, Thread
from typing import Protocol

from bertlora.errors import InputError
from bertlora.model.adapter_files import is_adapter
from bertlora.run.manifest import MANIFEST

LOG = logging.getLogger("bertlora.serving")
# Looking takes at most one part in N of a core: thousands of runs have many files.
PAUSES = 30
# Name → size and time of each file of a run.
Stamp = tuple[tuple[str, int, int], ...]


class Adapters(Protocol):
    """What a watched folder changes: a fleet."""

    @property
    def names(self) -> list[str]:
        """The names that are taken."""
        ...

    @property
    def full(self) -> bool:
        """Whether another one in memory means that one is unloaded."""
        ...

    def add(self, name: str, path: Path, /) -> None:
        """Makes a run known, which is loaded when it is asked."""
        ...

    def load(self, name: str, path: Path, /) -> object:
        """Loads a run, or replaces it."""
        ...

    def drop(self, name: str, /) -> None:
        """Forgets a run."""
        ...


class Watch:
    """Looks at a folder once in a while, on a thread of its own.

    A subfolder that is a run, an export or an adapter is served under its name. A broken one is logged, and an older
    version of it stays. It is tried again when its files change. Names that were taken before are left out.
    A run is dropped once it was missing in two looks: who replaces one by two renames takes it away for a moment.

    Args:
        adapters: the fleet.
        folder: the folder. It is read once before this returns; what does not fit into memory then is not loaded.
        every_s: seconds between two looks, or more for very many runs.

    Raises:
        InputError: it is not a folder.
    """

    def __init__(self, adapters: Adapters, folder: Path, every_s: float = 1.0) -> None:
        if not folder.is_dir():
            raise InputError(f"--watch {folder}: is not a folder; make it, or name another")
        self._adapters, self._folder, self._every_s = adapters, folder, every_s
        self._seen: dict[str, Stamp] = {}
        self._served: set[str] = set()
        self._missing: set[str] = set()  # in the last look
        self._pause = every_s
        self._end = Event()
        self.look(first=True)
        self._thread = Thread(target=self._watch, name="bertlora-watch", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Ends the watching."""
        self._end.set()
        self._thread.join()

    def look(self, first: bool = False) -> None:
        """Loads what is new, replaces what changed, drops what is gone.

        Args:
            first: do not unload one to load another.
        """
        began = time.monotonic()
        found = stamps(self._folder)
        self._pause = max(self._every_s, PAUSES * (time.monotonic() - began))
        missing = self._seen.keys() - found.keys()
        for name in missing & self._missing:
            self._drop(name)
        self._missing = missing
        for name, stamp in found.items():
            if self._end.is_set():
                return
            if self._seen.get(name) != stamp:
                self._seen[name] = stamp
                self._take(name, load=not (first and self._adapters.full))

    def _watch(self) -> None:
        while not self._end.wait(self._pause):
            try:
                self.look()
            except BaseException as error:  # the next look may succeed
                LOG.error("watching %s failed: %s", self._folder, error)

    def _take(self, name: str, load: bool) -> None:
        if name not in self._served and name in self._adapters.names:
            LOG.error("%s: the name is taken by an adapter from elsewhere; rename the folder", self._folder / name)
            return
        try:
            (self._adapters.load if load else self._adapters.add)(name, self._folder / name)
        except Exception as error:  # whatever it is, the other runs are served
            kept = "; the older version stays" if name in self._served else ""
            LOG.error("%s: is not served (%s)%s", self._folder / name, error, kept)
        else:
            self._served.add(name)
            LOG.info("adapter %s is served from %s", name, self._folder / name)

    def _drop(self, name: str) -> None:
        del self._seen[name]
        if name in self._served:
            self._served.discard(name)
            if name in self._adapters.names:
                self._adapters.drop(name)
            LOG.info("adapter %s is gone from %s", name, self._folder)


def stamps(folder: Path) -> dict[str, Stamp]:
    """Returns the runs in a folder by name, each with what changes when its files change."""
    found = {}
    for run in sorted(folder.iterdir()):
        try:
            if (run / MANIFEST).is_file() or is_adapter(run):
                found[run.name] = _stamp(run)
        except FileNotFoundError:  # it goes at this moment; the next look sees how it ended
            continue
    return found


def _stamp(run: Path) -> Stamp:
    files = sorted(path for part in (run, run / "adapter") if part.is_dir() for path in part.iterdir())
    facts = [(path.name, path.stat()) for path in files if path.is_file()]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in facts)
