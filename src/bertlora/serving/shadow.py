"""Shadows: candidates that read an adapter's questions in its batches, and whose answers nobody gets."""

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

from bertlora.errors import InputError, OutputError
from bertlora.files import json_line, writing
from bertlora.pipeline.shadow_log import COUNTS
from bertlora.serving.fleet import Served
from bertlora.serving.service import Answer, Question
from bertlora.task import MULTILABEL, REGRESSION

AGREED, DISAGREED, FAILED, DROPPED = OUTCOMES = ("agreed", "disagreed", "failed", "dropped")
# A log does not grow past this; it is then counted on, and no text is added.
LOG_BYTES = 64 * 2**20
COUNTS_BYTES = 2**20  # for lines of counts, also in a full log
# A crash loses at most the agreements of so long.
COUNTS_EVERY_S = 5.0
DIGITS = 12  # of a count in a line of counts, which is written over in place

# Called with adapter and outcome.
Count = Callable[[str, str], None]


class Shadows:
    """The candidates of a server. Its methods are called by the thread that computes, and never raise.

    Args:
        candidates: by the name of the adapter whose questions they read.
        log: keeps disagreements; None keeps none.
        count: is called with adapter and outcome, one of `OUTCOMES`, for each question.

    Raises:
        InputError: a candidate is a regression.
    """

    def __init__(
        self, candidates: Mapping[str, Served], log: "ShadowLog | None" = None, count: Count = lambda *_: None
    ) -> None:
        self._candidates, self._log, self.count = dict(candidates), log, count
        for adapter, served in candidates.items():
            if served.task == REGRESSION:
                raise InputError(f"--shadow {adapter}={served.run.path}: predicts numbers, which never quite agree")
            if log is not None:
                log.begin(adapter, served)

    def candidate(self, question: Question) -> Served | None:
        """Returns the candidate that reads a question too; None if there is none."""
        return None if question.base else self._candidates.get(question.adapter)

    def dropped(self, question: Question) -> None:
        """Says that a candidate did not read a question, because the server is busy."""
        self.count(question.adapter, DROPPED)

    def seen(self, question: Question, answer: Answer, candidate: Answer | None) -> None:
        """Compares what adapter and candidate say.

        Args:
            question: the question.
            answer: the adapter's, which the client gets.
            candidate: the candidate's; None if it failed.
        """
        try:
            outcome = self._outcome(question, answer, candidate)
        except Exception:  # nothing that a candidate does may reach the answer
            outcome = FAILED
        self.count(question.adapter, outcome)

    def close(self) -> None:
        """Writes the counts of the log."""
        if self._log is not None:
            self._log.close()

    def _outcome(self, question: Question, answer: Answer, candidate: Answer | None) -> str:
        # The adapter may have been replaced by one with other labels.
        if candidate is None or sorted(candidate.served.labels) != sorted(answer.served.labels):
            return FAILED
        first, second = _line(answer), _line(candidate)
        key = "labels" if answer.served.task == MULTILABEL else "label"
        agreed = bool(first[key] == second[key] if key == "label" else set(first[key]) == set(second[key]))
        if self._log is not None:
            self._log.add(question, None if agreed else _kept(question, first, second, key))
        return AGREED if agreed else DISAGREED


def _line(answer: Answer) -> dict[str, Any]:
    return answer.served.lines(answer.logits[None])[0]


def _kept(question: Question, first: dict[str, Any], second: dict[str, Any], key: str) -> dict[str, Any]:
    """Returns the line of a disagreement."""
    texts = {"text": question.text} | ({} if question.pair is None else {"text_pair": question.pair})
    answers = {"adapter_label": first[key], "candidate_label": second[key]}
    confidences = {"adapter_confidence": first.get("confidence"), "candidate_confidence": second.get("confidence")}
    return texts | answers | confidences | {"label": None}


class ShadowLog:
    """A local file of disagreements, which only its owner may read; `pipeline.shadow_log` has its form.

    It holds texts of users. A distinct text is kept once. If the file cannot be written any more, it only counts.

    Args:
        path: the file; what it holds stays, and new lines come after it.
        limit: bytes that it may have.

    Raises:
        OutputError: it cannot be written.
        InputError: it is something else than a log of shadows.
    """

    def __init__(self, path: Path, limit: int = LOG_BYTES) -> None:
        self.path, self._limit, self._lock = path, limit, threading.Lock()
        self._counts: dict[str, tuple[int, dict[str, Any]]] = {}  # adapter → the place of its line, and the line
        self._known: set[int] = set()
        self._written = time.monotonic()
        with writing(path):
            self._file, self._size = _opened(path)

    def begin(self, adapter: str, candidate: Served) -> None:
        """Adds the line of counts of a candidate."""
        names = {"adapter": adapter, "candidate": str(candidate.run.path), "labels": candidate.labels}
        with self._lock:
            self._counts[adapter] = self._size, names | {"agreed": 0, "disagreed": 0}
            self._append(_counts_line(self._counts[adapter][1]), COUNTS_BYTES)

    def add(self, question: Question, line: dict[str, Any] | None) -> None:
        """Counts a text, and keeps the line of a disagreement; None is an agreement."""
        with self._lock:
            _, counts = self._counts[question.adapter]
            counts["agreed" if line is None else "disagreed"] += 1
            known = hash((question.adapter, question.text, question.pair))
            if line is not None and known not in self._known and self._size < self._limit:
                self._known.add(known)
                names = {"adapter": question.adapter, "candidate": counts["candidate"]}
                self._append(json_line(names | line))
            if time.monotonic() - self._written > COUNTS_EVERY_S:
                self._write_counts()

    def close(self) -> None:
        """Writes the counts, and closes the file."""
        with self._lock:
            self._write_counts()
            self._file.close()

    def _append(self, line: str, more: int = 0) -> None:
        data = f"{line}\n".encode(errors="replace")
        if self._size + len(data) <= self._limit + more and self._put(data, self._size):
            self._size += len(data)
            return
        self._limit = 0  # it is full, or the disk is: half a line must not stay
        with suppress(OSError, ValueError):
            os.ftruncate(self._file.fileno(), self._size)

    def _write_counts(self) -> None:
        """Writes the counts over the old ones, in the same number of bytes."""
        for place, counts in self._counts.values():
            self._put(_counts_line(counts).encode(), place)
        self._written = time.monotonic()

    def _put(self, data: bytes, place: int) -> bool:
        try:
            return os.pwrite(self._file.fileno(), data, place) == len(data)
        except (OSError, ValueError):
            return False


def _opened(path: Path) -> tuple[BinaryIO, int]:
    """Returns the file, which no other process may write, and its size in bytes."""
    with ExitStack() as on_error:
        # Not os.O_APPEND, with which Linux would write the counts at the end.
        file = on_error.enter_context(open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0))
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"--shadow-log {path}: another server writes it; name another file") from None
        start = file.read(len(COUNTS) + 3)
        if start and start != f'{{"{COUNTS}"'.encode():
            raise InputError(f"--shadow-log {path}: is there already, and is no log of shadows; name another file")
        os.fchmod(file.fileno(), 0o600)
        size = file.seek(0, os.SEEK_END)
        if start and os.pread(file.fileno(), 1, size - 1) != b"\n":  # an editor may leave it out
            size += file.write(b"\n")
        on_error.pop_all()
    return file, size


def _counts_line(counts: dict[str, Any]) -> str:
    """Returns a line of counts, as long for any counts: spaces fill it."""
    spaces = 2 * DIGITS - len(f"{counts['agreed']}{counts['disagreed']}")
    return json.dumps({COUNTS: counts}) + " " * spaces
