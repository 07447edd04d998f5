"""How much a request may ask for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The largest request that is answered. What is larger gets status 413, and what is too slow 408.

    Attributes:
        body_bytes: bytes of the body.
        body_s: seconds until all of it came.
        questions: texts times adapters.
        explained: questions with an explanation; one takes as long as hundreds of answers.
    """

    body_bytes: int = 2_000_000
    body_s: float = 60.0
    questions: int = 1024
    explained: int = 16
