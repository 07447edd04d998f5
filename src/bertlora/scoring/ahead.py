"""Stages that overlap: a thread makes the next items while the ones before are used."""

from collections.abc import Generator
from contextlib import closing
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

T = TypeVar("T")
WAIT_S = 0.2  # between two looks whether the other side has stopped


def ahead(items: Generator[T, None, None], size: int = 1) -> Generator[T, None, None]:
    """Yields the items, which a thread of its own makes, up to `size` items ahead.

    An error of `items` is raised here. When this generator is closed, `items` is closed too, in its own thread, after
    the item that is being made.
    """
    waiting: Queue[tuple[str, Any]] = Queue(size)
    stopped = Event()

    def put(kind: str, value: Any = None) -> bool:
        while not stopped.is_set():
            try:
                waiting.put((kind, value), timeout=WAIT_S)
                return True
            except Full:
                continue
        return False

    def work() -> None:
        try:
            with closing(items):
                for item in items:
                    if not put("item", item):
                        return
            put("end")
        except BaseException as error:  # the other thread raises it
            put("error", error)

    thread = Thread(target=work, daemon=True, name="bertlora-ahead")
    thread.start()
    try:
        while True:
            try:
                kind, value = waiting.get(timeout=WAIT_S)
            except Empty:
                continue
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        stopped.set()
        thread.join()
