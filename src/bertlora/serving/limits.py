"""How much a request may ask for, and a client may hold."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The largest request that is answered. What is larger gets status 413 or 431, and what is too slow 408.

    Attributes:
        body_bytes: bytes of the body.
        body_s: seconds until all of it came.
        head_bytes: bytes of the first line and the headers.
        head_s: seconds until all of them came.
        answer_s: seconds in which the client must read an answer; then the connection is closed.
        connections: open at the same time; more get status 503. Most systems allow a process 1024 files.
        questions: texts times adapters.
        explained: questions with an explanation; one takes as long as hundreds of answers.
    """

    body_bytes: int = 2_000_000
    body_s: float = 60.0
    head_bytes: int = 65_536
    head_s: float = 20.0
    answer_s: float = 60.0
    connections: int = 800
    questions: int = 1024
    explained: int = 16
