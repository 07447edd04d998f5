"""An adapter of a server in place of a run: what `predict http://HOST:PORT/ADAPTER` asks."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from bertlora.cli.serving import KEY
from bertlora.client.client import Client
from bertlora.errors import InputError
from bertlora.task import CLASSIFICATION, MULTILABEL

if TYPE_CHECKING:
    from bertlora.model.explain import Explanation, Word

# Files have blank texts, which a server refuses. Their answers are left out afterwards.
NOT_BLANK = "-"


@dataclass(frozen=True)
class Described:
    """What a server says of an adapter, as `Manifest` has it."""

    labels: list[str]
    task: str
    pairs: bool


class RemoteRun:
    """An adapter of a server, with the part of `Run` that predict uses.

    Args:
        url: of the server, with the adapter's name as the last part of the path; without it the default.
        notes: gets what the server says about thresholds and label sets.

    Raises:
        InputError: it is no such URL, or the server has no such adapter.
        ServerError: the server cannot be reached.
    """

    def __init__(self, url: str, notes: list[str]) -> None:
        server, self._adapter = split_url(url)
        self._client, self._notes = Client(server, os.environ.get(KEY, "")), notes
        found = self._client.describe(self._adapter)
        self.manifest = Described(found["labels"], found["task"], found["pairs"])

    def predict(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, precision: str = "auto", **options: Any
    ) -> list[dict[str, Any]]:
        """Returns what `Run.predict` returns. The server chooses the precision."""
        sent = [text or NOT_BLANK for text in texts], pairs and [text or NOT_BLANK for text in pairs]
        lines, notes = self._client.predict_with_notes(*sent, self._adapter, **options)
        self._notes += notes
        given = [{"text": text} for text in texts]
        if pairs is not None:
            given = [{"text": text, "text_pair": pair} for text, pair in zip(texts, pairs, strict=True)]
        return [line | own for line, own in zip(lines, given, strict=True)]

    def explain(self, text: str, pair: str | None, base: bool) -> "Explanation":
        """Returns how much each word counts."""
        pairs = None if pair is None else [pair]
        (line,) = self._client.predict([text], pairs, self._adapter, base=base, explain=True)
        return explanation_of(line["explanation"], self.manifest, text, pair)

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    @contextmanager
    def ready(self, precision: str = "auto") -> Iterator[None]:
        """Does nothing: the server is ready."""
        yield


def is_url(run: str) -> bool:
    """Returns whether the words for a run are the URL of a server."""
    return run.startswith(("http://", "https://"))


def split_url(url: str) -> tuple[str, str | None]:
    """Returns the server's URL and the adapter's name, the last part of the path; None if there is none."""
    parts = urlsplit(url)
    path, _, adapter = parts.path.rpartition("/")
    return urlunsplit(parts._replace(path=path)), unquote(adapter) or None


def check_remote(form: str, model: str, precision: str) -> None:
    """Raises InputError for options that only a run can follow."""
    if model:
        raise InputError("--model: is for a run; a server has its base already; leave it out")
    if precision != "auto":
        raise InputError("--precision: the server chooses it; give --precision to 'bertlora serve'")
    if form == "glue":
        raise InputError("--format glue: needs the labels as the data has them; name the run instead of a server")


def explanation_of(found: dict[str, Any], manifest: Described, text: str, pair: str | None) -> "Explanation":
    """Returns an explanation from its JSON."""
    from bertlora.model.explain import Explanation

    ends = {CLASSIFICATION: ("logit_difference", "baseline_difference"), MULTILABEL: ("logit", "baseline_logit")}
    difference, baseline = ends.get(manifest.task, ("value", "baseline_value"))
    return Explanation(
        label=found.get("label", manifest.labels[0]),
        rival=found.get("rival", ""),
        words=_words(found["words"], text),
        pair_words=None if pair is None else _words(found["pair_words"], pair),
        logit_difference=found[difference],
        baseline_difference=found[baseline],
        gap=found["gap"],
        task=manifest.task,
    )


def _words(found: Sequence[dict[str, Any]], text: str) -> "list[Word]":
    """Returns words with their places: they come in order, and nothing but white space is between them."""
    from bertlora.model.explain import Word

    words, end = [], 0
    for one in found:
        start = text.index(one["word"], end)
        end = start + len(one["word"])
        words.append(Word(one["word"], start, end, one["attribution"]))
    return words
