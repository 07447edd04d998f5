"""The adapters that the server knows, by name."""

from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from bertlora.confidence.probabilities import Array
from bertlora.errors import suggestion
from bertlora.run.loaded import Run
from bertlora.serving.refused import RequestError, Why


@dataclass(frozen=True)
class Served:
    """An adapter that is loaded. A new version of it is a new object; requests keep the one that answered them.

    Attributes:
        name: by which clients ask for it.
        run: the run or export; `run.manifest` has its labels, and `run.model.reader` reads its texts.
    """

    name: str
    run: Run

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


class Fleet:
    """Adapters by name. Its methods may take a while and are safe for threads."""

    def __init__(self) -> None:
        self._served: dict[str, Served] = {}
        self._lock = Lock()

    @property
    def names(self) -> list[str]:
        """The names that clients may ask for, in the order in which they came; the first is the default."""
        return list(self._served)

    def get(self, name: str) -> Served:
        """Returns an adapter.

        Raises:
            RequestError: there is none of this name.
        """
        try:
            return self._served[name]
        except KeyError:
            near = suggestion(name, self._served)
            raise RequestError(Why.UNKNOWN, f"no adapter is called {name!r}; /v1/adapters lists them{near}") from None

    def load(self, name: str, path: Path, model: str = "") -> Served:
        """Loads a run or export under a name. If there is one of this name, it answers until the new one is ready."""
        served = Served(name, Run.load(path, model))
        with self._lock:
            self._served[name] = served
        return served

    def drop(self, name: str) -> None:
        """Forgets an adapter. Requests that were accepted are still answered by it."""
        self.get(name)
        with self._lock:
            self._served.pop(name, None)
