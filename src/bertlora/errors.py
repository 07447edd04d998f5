"""Every error that bertlora raises on purpose.

Each also inherits the standard type that fits, so that `except ValueError` and `except OSError` work as one expects:

    BertloraError            anything below
    ├── InputError           (ValueError)    a text, label, file or flag that cannot be used
    │   ├── DataError                        a data source or a prepared folder
    │   ├── RecipeError                      an unknown key, a value out of range
    │   ├── ModelError                       a base model that is missing or cannot serve
    │   └── FullMemoryError                  a single text that needs more memory than there is
    ├── RunError             (ValueError)    a run folder that is unfinished, foreign, or of another base
    │   └── NotMixableError                  an adapter that cannot share a base in memory with others
    ├── OutputError          (OSError)       an output that cannot be written, or is in the way
    ├── HubError             (OSError)       a hub that cannot be reached
    ├── ServerError          (OSError)       a server that cannot be reached, is busy, or failed
    ├── HealthError          (RuntimeError)  training that cannot succeed, stopped with its cause
    └── InUseError           (RuntimeError)  a model that this thread already uses

The command line prints the message as one line and leaves with status 2.

Messages are written with the flags of the command line. In Python they name the parameters: `--text-column` becomes
`text_column`, and `--overwrite` becomes `overwrite=True`.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_SWITCHES = frozenset(["overwrite", "resume", "strict", "fix", "train-missing", "per-class", "raw", "base", "safe-csv"])
# A whole command in quotes stays; a flag is a word of its own, not a part of a path.
_FLAG = re.compile(r"'bertlora [^']*'|`bertlora [^`]*`|(?<![\w./-])--([a-z][a-z0-9-]*)")
_FLAGS_SHOWN: ContextVar[bool] = ContextVar("flags_shown", default=False)


class BertloraError(Exception):
    """Anything that bertlora raises on purpose."""

    def __str__(self) -> str:
        """Returns the message on one line, with flags for the command line and with parameters in Python."""
        message = " ".join(super().__str__().splitlines())  # a name from a file may hold line breaks
        return message if _FLAGS_SHOWN.get() else _FLAG.sub(_parameter, message)


class InputError(BertloraError, ValueError):
    """A text, label, file or flag that cannot be used."""


class DataError(InputError):
    """A data source or a prepared folder that cannot be used."""


class RecipeError(InputError):
    """An unknown recipe or key, or a value out of its range."""


class ModelError(InputError):
    """A base model that is missing, or that cannot serve as a classifier."""


class RunError(BertloraError, ValueError):
    """A run folder that is unfinished, foreign, or trained on another base."""


class NotMixableError(RunError):
    """An adapter that cannot share a base in memory with others, such as DoRA; it needs a base of its own."""


class OutputError(BertloraError, OSError):
    """An output that cannot be written, or a folder that is in the way."""


class HubError(BertloraError, OSError):
    """A hub that cannot be reached, or that does not have what was asked for."""


class ServerError(BertloraError, OSError):
    """A server of bertlora that cannot be reached, does not answer in time, or failed."""


class HealthError(BertloraError, RuntimeError):
    """Training that cannot succeed; the message names the cause."""


class InUseError(BertloraError, RuntimeError):
    """A model that this thread already trains or holds ready."""


class FullMemoryError(InputError):
    """A single text needs more memory than the machine has now."""


class Terminated(SystemExit):  # not an error: the system asked for it
    """The program was asked to end by SIGTERM. It leaves with status 143, as shells report the signal."""

    def __init__(self) -> None:
        super().__init__(143)


@contextmanager
def flags_shown() -> Iterator[None]:
    """Inside, messages name flags: the user sits at a command line."""
    token = _FLAGS_SHOWN.set(True)
    try:
        yield
    finally:
        _FLAGS_SHOWN.reset(token)


def _parameter(found: re.Match[str]) -> str:
    """Returns the parameter that a flag is in Python; a command in quotes as it is."""
    flag = found[1]
    if not flag:
        return found[0]
    return flag.replace("-", "_") + ("=True" if flag in _SWITCHES else "")


def suggestion(word: str, known: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?` for the known word nearest to `word`, or an empty string."""
    import difflib  # takes a while, and only errors need it

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def is_panic(error: BaseException) -> bool:
    """Returns whether a library in Rust failed. Its error has a type that no module exports, and is no Exception."""
    return type(error).__name__ == "PanicException"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text, or its type if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
