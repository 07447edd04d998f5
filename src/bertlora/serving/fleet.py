"""The adapters that the server knows, by name: loaded, replaced, dropped, and unloaded past a bound."""

import logging
import re
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any

from bertlora.confidence.probabilities import Array
from bertlora.errors import BertloraError, InputError, suggestion
from bertlora.export.certificate import Certificate
from bertlora.export.exported import Exported, prove
from bertlora.model.adapted import Adapted
from bertlora.model.mixed import MixedAdapter, MixedBase
from bertlora.run.loaded import Run
from bertlora.serving.bases import Bases
from bertlora.serving.computing import Alone, BaseOf
from bertlora.serving.refused import RequestError, Why
from bertlora.serving.texts import Source
from bertlora.serving.watching import Watch

LOG = logging.getLogger("bertlora.serving")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
# Adapters that are loaded whole, with a base of their own: for explanations, and for answers of the base.
WHOLE = 2
# A certificate shows that the base runs rightly on this machine, and then that an adapter does. Once the first has been
# shown by all texts of an adapter's certificate, each fourth text is enough for others on that base.
EVERY = 4


@dataclass(frozen=True)
class Served:
    """An adapter that is loaded. A new version of it is a new object; requests keep the one that answered them.

    Attributes:
        name: by which clients ask for it.
        run: the run or export; `run.manifest` has its labels, and `run.model.reader` reads its texts.
        precision: in which it runs, `fp32`, `bf16` or `int8`.
    """

    name: str
    run: Run
    precision: str = "fp32"

    @property
    def labels(self) -> list[str]:
        """Names in the order of the logits; the name of the number in a regression."""
        return self.run.manifest.labels

    @property
    def task(self) -> str:
        """What it predicts: `classification`, `multilabel` or `regression`."""
        return self.run.manifest.task

    def lines(self, logits: Array, **options: Any) -> list[dict[str, Any]]:
        """Returns what `Run.predict` says of logits (B, K), without the texts. `options` are those of `predictions`."""
        return list(self.run.predictions(**options)(logits))

    def source(self, truncation: str | None = None) -> Source:
        """Returns what answers texts, cut as asked: `left`, `right`, or as the run does."""
        if truncation in (None, "none"):
            return self._source
        return self._cut[str(truncation)]

    def base_source(self, adapted: Adapted, truncation: str | None = None) -> Source:
        """Returns what answers texts without the adapter. `adapted` is the whole adapter."""
        return Source(BaseOf(adapted), self.source(truncation).template)

    @cached_property
    def _source(self) -> Source:
        model = self.run.model
        return Source(model if isinstance(model, MixedAdapter) else Alone(model, self.precision), model.reader.template)

    @cached_property
    def _cut(self) -> dict[str, Source]:
        template = self._source.template
        return {
            side: replace(self._source, template=replace(template, truncation=side, long_texts="truncate"))
            for side in ("left", "right")
        }


@dataclass
class _Entry:
    """Where an adapter comes from; `served` is None while it is unloaded."""

    path: Path
    model: str
    served: Served | None = None


class Fleet:
    """Adapters by name. Its methods are safe for threads; those that load an adapter take a while.

    Args:
        most_loaded: adapters in memory. Beyond, the one that was asked least recently is unloaded; the next question
            loads it again. None keeps all.
        model: where the base model is, if it has moved.
        precision: `fp32`, `bf16`, `int8` or `auto`, which chooses for each adapter.
    """

    def __init__(self, most_loaded: int | None = None, model: str = "", precision: str = "fp32") -> None:
        self._most, self._model, self._precision = most_loaded, model, precision
        self._bases = Bases(precision)
        self._proven: set[MixedBase] = set()  # those on which all of a certificate held
        self._entries: dict[str, _Entry] = {}
        self._used: OrderedDict[str, None] = OrderedDict()  # the loaded ones, least recently asked first
        self._whole: OrderedDict[Path, tuple[Served, Adapted]] = OrderedDict()
        self._lock = RLock()  # of these tables
        self._loading = RLock()  # one is loaded at a time
        self._loading_whole = RLock()  # so that a new adapter does not wait for explanations
        self._watches: list[Watch] = []

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    @property
    def names(self) -> list[str]:
        """The names that clients may ask for, in the order in which they came; the first is the default."""
        return list(self._entries)

    @property
    def loaded(self) -> list[str]:
        """The names of those in memory, least recently asked first."""
        with self._lock:
            return list(self._used)

    @property
    def full(self) -> bool:
        """Whether another one in memory means that one is unloaded."""
        return self._most is not None and len(self._used) >= self._most

    def check(self, name: str) -> None:
        """Raises RequestError if there is no adapter of this name."""
        if name not in self._entries:
            near = suggestion(name, self._entries)
            raise RequestError(Why.UNKNOWN, f"no adapter is called {name!r}; /v1/adapters lists them{near}")

    def get_loaded(self, name: str) -> Served | None:
        """Returns an adapter if it is in memory, at once.

        Raises:
            RequestError: there is none of this name.
        """
        with self._lock:
            self.check(name)
            served = self._entries[name].served
            if served is not None:
                self._used.move_to_end(name)
            return served

    def get(self, name: str) -> Served:
        """Returns an adapter. If it was unloaded, it is loaded again.

        Raises:
            RequestError: there is none of this name, or its files cannot be read any more.
        """
        served = self.get_loaded(name)
        if served is not None:
            return served
        with self._loading:
            if (served := self.get_loaded(name)) is not None:
                return served
            entry = self._entries.get(name)
            self.check(name)
            assert entry is not None
            try:
                served = self._read(name, entry.path, entry.model)
            except (BertloraError, OSError) as error:
                raise _not_loaded(name, "again", error) from None
            self._put(name, entry, served)
            return served

    def load(self, name: str, path: Path, model: str = "") -> Served:
        """Loads a run or export under a name. If there is one of this name, it answers until the new one is ready.

        Raises:
            InputError, RunError: the name or the run cannot be used, or the answers are not those of its certificate.
                The old one stays.
        """
        check_name(name)
        entry = _Entry(Path(path), model or self._model)
        with self._loading:
            served = self._read(name, entry.path, entry.model)
            with self._lock:
                self._entries[name] = entry
                self._put(name, entry, served)
        return served

    def load_apart(self, name: str, path: Path) -> Served:
        """Returns an adapter that no client can ask for, after its certificate held; errors are those of `load`."""
        with self._loading:
            return self._read(name, Path(path), self._model)

    def add(self, name: str, path: Path, model: str = "") -> None:
        """Makes an adapter known, which the first question loads."""
        check_name(name)
        with self._lock:
            self._entries[name] = _Entry(Path(path), model or self._model)
            self._used.pop(name, None)

    def drop(self, name: str) -> None:
        """Forgets an adapter. Requests that were accepted are still answered by it.

        Raises:
            RequestError: there is none of this name.
        """
        with self._lock:
            self.check(name)
            del self._entries[name]
            self._used.pop(name, None)

    def watch(self, folder: Path, every_s: float = 1.0) -> None:
        """Keeps the runs in a folder served, each under its folder's name; see `Watch`.

        Raises:
            InputError: it is not a folder.
        """
        self._watches.append(Watch(self, folder, every_s))

    def close(self) -> None:
        """Ends the watching of folders."""
        for watch in self._watches:
            watch.end()

    def whole(self, served: Served) -> Adapted:
        """Returns an adapter with a base of its own. The last few are kept.

        Raises:
            RequestError: it is an export, or its files cannot be read any more.
        """
        run = served.run
        if isinstance(run.model, Adapted):
            return run.model
        if isinstance(run.model, Exported):
            reason = f"adapter {served.name!r} is an export ({run.model.format}), without adapter and base"
            raise RequestError(Why.INVALID, f"{reason}; serve the run itself for explanations and answers of the base")
        with self._loading_whole:
            kept = self._whole.get(run.path)
            if kept is None or kept[0].run is not run:
                try:
                    kept = served, Run.load(run.path, self._model_of(served.name)).adapted
                except (BertloraError, OSError) as error:
                    raise _not_loaded(served.name, "whole", error) from None
                self._whole[run.path] = kept
            self._whole.move_to_end(run.path)
            if len(self._whole) > WHOLE:
                self._whole.popitem(last=False)
            return kept[1]

    def _model_of(self, name: str) -> str:
        entry = self._entries.get(name)
        return entry.model if entry else self._model

    def _read(self, name: str, path: Path, model: str) -> Served:
        """Returns an adapter, on a base that it shares if it can, after its certificate held."""
        run = self._bases.load(path, model)
        precision = run.choose_precision(self._precision)
        certificate = Certificate.load(path)
        if certificate is not None:
            shared = run.model.shared if isinstance(run.model, MixedAdapter) else None
            prove(path, certificate, run.model, precision, EVERY if shared in self._proven else 1)
            if shared is not None:
                self._proven.add(shared)
        return Served(name, run, precision)

    def _put(self, name: str, entry: _Entry, served: Served) -> None:
        """Keeps an adapter in memory, unless the entry was dropped or replaced meanwhile; unloads others if needed."""
        with self._lock:
            if self._entries.get(name) is not entry:
                return
            entry.served = served
            self._used[name] = None
            self._used.move_to_end(name)
            while self._most is not None and len(self._used) > self._most:
                oldest, _ = self._used.popitem(last=False)
                self._entries[oldest].served = None


def _not_loaded(name: str, how: str, error: Exception) -> RequestError:
    """Logs why an adapter cannot be loaded, and returns what its clients get."""
    LOG.error("adapter %s cannot be loaded %s: %s", name, how, error)
    return RequestError(Why.BACKEND, f"adapter {name!r} cannot be loaded {how}; the server's log says why")


def check_name(name: str) -> None:
    """Raises InputError if a name cannot be an adapter's: it stands in URLs, logs and metrics."""
    if not NAME.fullmatch(name):
        raise InputError(
            f"{name[:40]!r}: is not a name for an adapter; take up to 128 letters, digits, '-', '_' and '.', and "
            "start with a letter or digit"
        )
