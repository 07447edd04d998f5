"""What a request asked and got, for metrics and logs. The service notes it, and `operations` reads it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bertlora.serving.questions import Answer, Question


@dataclass
class Record:
    """The questions and answers of a request of HTTP, and why the server could not answer; empty if it could."""

    questions: "list[Question]" = field(default_factory=list)
    answers: "list[Answer]" = field(default_factory=list)
    error: str = ""

    @property
    def slowest(self) -> "Answer":
        """The answer that took longest; there is one."""
        return max(self.answers, key=lambda one: one.queue_s + one.tokenization_s + one.compute_s)


_RECORD: ContextVar[Record | None] = ContextVar("record", default=None)


@contextmanager
def recording() -> Iterator[Record]:
    """Inside, questions and answers are kept in the record."""
    record = Record()
    token = _RECORD.set(record)
    try:
        yield record
    finally:
        _RECORD.reset(token)


def note(questions: "Sequence[Question]", answers: "Sequence[Answer]" = ()) -> None:
    """Adds questions, which are for adapters that exist, and answers to the record of the request that runs."""
    if (record := _RECORD.get()) is not None:
        record.questions.extend(questions)
        record.answers.extend(answers)


def note_error(reason: str) -> None:
    """Adds why the server could not answer; it must have no words of a client."""
    if (record := _RECORD.get()) is not None:
        record.error = reason
