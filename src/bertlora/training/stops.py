"""Signals that ask a training to end: held back until it is at a point from which it can go on."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from bertlora.errors import Terminated

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stops:
    """Inside, Ctrl-C and SIGTERM wait for `obey`. A second Ctrl-C does not wait.

    A signal that has no handler in Python keeps its effect. Outside the main thread Python hears no signals, and this
    does nothing.
    """

    def __init__(self) -> None:
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._asked: int | None = None
        self._at_once = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._before[number] = handler
                    signal.signal(number, self._hear)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is None:
            self.obey()

    @property
    def asked(self) -> bool:
        """Whether a signal waits."""
        return self._asked is not None

    def obey(self) -> None:
        """Does now what the waiting signal does: Ctrl-C raises KeyboardInterrupt, unless the program changed that."""
        if self._asked is not None:
            number, self._asked = self._asked, None
            self._before[number](number, None)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, signals do not wait."""
        self._at_once = True
        try:
            self.obey()
            yield
        finally:
            self._at_once = False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        again = self._asked is not None and number == signal.SIGINT
        if self._at_once or again:
            self._before[number](number, frame)
        else:
            self._asked = self._asked or number


@contextmanager
def termination_raised() -> Iterator[None]:
    """Inside, SIGTERM raises Terminated, so that files are tidied up as after Ctrl-C."""
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated
