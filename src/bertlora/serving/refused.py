"""A request that the server does not answer, and why."""

from enum import Enum

from bertlora.errors import BertloraError


class Why(Enum):
    """Why a request is refused, with the status of HTTP that says so."""

    EMPTY = 400
    NO_KEY = 401
    FORBIDDEN = 403
    UNKNOWN = 404
    TOO_LARGE = 413
    INVALID = 422
    BACKEND = 424
    OVERLOADED = 429
    NOT_READY = 503


class RequestError(BertloraError):
    """A request that is refused. The message says what, where and what was expected; it has no text of a user.

    Attributes:
        why: the kind of reason; each contract has its own shape for it.
        retry_after_s: seconds after which it may be tried again; None if that would not help.
    """

    def __init__(self, why: Why, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.why, self.retry_after_s = why, retry_after_s
