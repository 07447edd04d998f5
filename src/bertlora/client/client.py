"""The client: texts in Python, answers as `Run.predict` gives them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from bertlora.client.connection import STRANGE, Connection, TooLargeError
from bertlora.errors import BertloraError, InputError, ServerError

if TYPE_CHECKING:
    from bertlora.confidence.probabilities import Array

# The largest request, in texts and about in characters: a slow server answers it within seconds.
CHUNK_TEXTS, CHUNK_CHARACTERS = 128, 500_000
EXPLAINED_TEXTS = 8
# A text, and the second text of a pair.
Item = tuple[str, str | None]


class Client:
    """Asks a server that `bertlora serve` started. Several threads may use one.

    A request that finds the server busy (429), not ready (503) or gone is sent again, after the time that the server
    names in Retry-After, or after pauses that double.

    Args:
        url: such as `http://127.0.0.1:8080`.
        key: the server's API key; empty if it has none.
        timeout_s: seconds for one request with all its repetitions. A long list of texts is several requests.
        retries: how often a request is sent again.

    Raises:
        InputError: the URL or a number cannot be used.

    Example:
        >>> client = Client("http://127.0.0.1:8080")  # doctest: +SKIP
        >>> client.predict(["A joy from start to finish."])  # doctest: +SKIP
    """

    def __init__(self, url: str, key: str = "", *, timeout_s: float = 120.0, retries: int = 5) -> None:
        self._connection = Connection(url, key, timeout_s, retries)
        self.url = self._connection.url
        self._default = ""

    def adapters(self) -> list[str]:
        """Returns the names of the server's adapters."""
        with self._reading():
            return list(self._connection.ask("GET", "/v1/adapters")["adapters"])

    def describe(self, adapter: str | None = None) -> dict[str, Any]:
        """Returns what an adapter predicts: `name`, `task`, `labels`, `pairs` and `max_length`.

        Args:
            adapter: its name; None is the server's default.
        """
        return self._connection.ask("GET", f"/v1/adapters/{self._name(adapter)}")

    def predict(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        adapter: str | None = None,
        *,
        base: bool = False,
        raw: bool = False,
        abstain: str = "",
        sets: float | None = None,
        per_class: bool = False,
        explain: bool = False,
    ) -> list[dict[str, Any]]:
        """Labels texts, or gives each a number.

        Args:
            texts: the texts; none is blank.
            pairs: the second texts, if the adapter reads pairs.
            adapter: its name; None is the server's default.
            base: use the base with its untrained head.
            raw: do not use the temperature.
            abstain: as for `Run.predict`; also the next two.
            sets: the share of label sets that contain the right label.
            per_class: this share holds for the texts of each class.
            explain: also say how much each word counts.

        Returns:
            One object per text, in order, as `Run.predict` returns it; with `explain` also `explanation`.

        Raises:
            InputError: a text is blank or not a string, or the server refuses the request.
            ServerError: the server cannot be reached, does not answer in time, or failed.
        """
        return self.predict_with_notes(
            texts, pairs, adapter, base=base, raw=raw, abstain=abstain, sets=sets, per_class=per_class, explain=explain
        )[0]

    def predict_with_notes(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, adapter: str | None = None, **options: Any
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Returns what `predict` returns, and sentences on how a threshold or a label set was chosen."""
        items = _items(texts, pairs)
        path = f"/v1/adapters/{self._name(adapter)}/predict"
        lines: list[dict[str, Any]] = []
        notes: dict[str, None] = {}
        for chunk in _chunks(items, EXPLAINED_TEXTS if options.get("explain") else CHUNK_TEXTS):
            for found in self._answers(path, chunk, options):
                with self._reading():
                    lines += found["predictions"]
                    notes |= dict.fromkeys(found["notes"])
        keys = ("text",) if pairs is None else ("text", "text_pair")
        with self._reading():
            whole = [dict(zip(keys, item, strict=False)) | line for item, line in zip(items, lines, strict=True)]
        return whole, [*notes]

    def predict_proba(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, adapter: str | None = None
    ) -> "Array":
        """Returns calibrated probabilities, (B, K) float64, in the order of the labels that `describe` gives.

        Raises:
            InputError, ServerError: as for `predict`; or the adapter predicts numbers.
        """
        import numpy as np

        labels, lines = self.describe(adapter), self.predict(texts, pairs, adapter)
        with self._reading():
            if lines and "probabilities" not in lines[0]:
                name = labels["name"]
                raise InputError(f"adapter '{name}': predicts numbers, which have no probabilities; use predict")
            rows = [[line["probabilities"][label] for label in labels["labels"]] for line in lines]
            return np.array(rows, dtype=np.float64).reshape(len(lines), len(labels["labels"]))

    def explain(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, adapter: str | None = None
    ) -> list[dict[str, Any]]:
        """Returns how much each word counts, an object per text, as `predict --explain` prints it.

        Raises:
            InputError, ServerError: as for `predict`.
        """
        lines = self.predict(texts, pairs, adapter, explain=True)
        with self._reading():
            return [line["explanation"] for line in lines]

    def close(self) -> None:
        """Closes the connection of this thread."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _name(self, adapter: str | None) -> str:
        """Returns the name of an adapter for a path; the server's default for None."""
        if adapter is None:
            if not self._default:
                with self._reading():
                    self._default = str(self._connection.ask("GET", "/v1/adapters")["default"] or "")
            adapter = self._default
            if not adapter:
                raise ServerError(f"{self.url}: has no adapter; load one")
        return quote(adapter, safe="")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Inside, an answer that no server of bertlora gives becomes a ServerError."""
        try:
            yield
        except BertloraError:
            raise
        except (LookupError, TypeError, ValueError) as error:
            raise ServerError(f"{self.url}: {STRANGE}") from error

    def _answers(self, path: str, items: "list[Item]", options: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yields the answers to texts. If there are too many for the server, it is asked for each half."""
        texts = {"texts": [text for text, _ in items]} if items[0][1] is None else {"pairs": items}
        try:
            yield self._connection.ask("POST", path, texts | options)
        except TooLargeError:
            if len(items) == 1:
                raise
            half = len(items) // 2
            yield from self._answers(path, items[:half], options)
            yield from self._answers(path, items[half:], options)


def _items(texts: Sequence[str], pairs: Sequence[str] | None) -> list[Item]:
    """Returns texts with their second texts.

    Raises:
        InputError: one is not a string, blank or not UTF-8; or there are not as many second texts.
    """
    if isinstance(texts, str):
        raise InputError("texts: got one string, expected a list of texts")
    if pairs is not None and len(pairs) != len(texts):
        raise InputError(f"pairs: got {len(pairs)} second texts for {len(texts)} texts; expected one for each")
    for name, values in (("texts", texts), ("pairs", pairs or ())):
        for i, text in enumerate(values):
            if not isinstance(text, str):
                raise InputError(f"{name}[{i}]: is of type {type(text).__name__}, expected a string")
            if not text.strip():
                raise InputError(f"{name}[{i}]: is blank, expected a text")
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise InputError(f"{name}[{i}]: has half of a surrogate pair, which is no character; decode it again")
    return [(text, None) for text in texts] if pairs is None else list(zip(texts, pairs, strict=True))


def _chunks(items: Sequence[Item], most: int) -> Iterator[list[Item]]:
    """Yields some items at a time, in order."""
    chunk: list[Item] = []
    size = 0
    for item in items:
        length = len(item[0]) + len(item[1] or "")
        if chunk and (len(chunk) == most or size + length > CHUNK_CHARACTERS):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += length
    if chunk:
        yield chunk
