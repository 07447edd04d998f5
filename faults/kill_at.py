"""Imported by a fork server: its processes kill themselves at the file operation with the number KILL_AT.

Operations are Python's writes of whole files, syncs, renames and removals. What torch and Rust write is not counted.
The file COUNT_TO has the number of those that were done.
"""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

OPERATIONS = (
    (Path, ("write_bytes", "write_text", "rename", "replace", "unlink", "touch")),
    (os, ("fsync",)),
    (shutil, ("rmtree",)),
)
_done = 0


def counted(real: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the operation; the process may die before it."""

    def call(*args: Any, **keys: Any) -> Any:
        global _done
        _done += 1
        if str(_done) == os.environ.get("KILL_AT"):
            os.kill(os.getpid(), signal.SIGKILL)
        with open(os.environ.get("COUNT_TO", os.devnull), "w", encoding="ascii") as file:
            file.write(str(_done))
        return real(*args, **keys)

    return call


for _owner, _names in OPERATIONS:
    for _name in _names:
        setattr(_owner, _name, counted(getattr(_owner, _name)))
