"""A lock next to an output: two processes never write the same one, on this machine or on a shared disk.

.NAME.lock has the machine and the process that write NAME, and the process locks it (`flock`). The system frees that
lock when the process ends, in whatever way, so a crash on this machine is no obstacle. A disk may not pass it on to
other machines. So a file that names another machine counts as held.
"""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bertlora.errors import OutputError
from bertlora.files import writing

try:
    import fcntl
except ImportError:  # Windows: there only the file counts
    fcntl = None  # type: ignore[assignment]

# It changes when the machine starts again, and containers of one machine share it.
BOOT = Path("/proc/sys/kernel/random/boot_id")


def lock_of(out: Path) -> Path:
    """Returns the lock of an output, or of the target of that link."""
    real = out.resolve()
    return real.parent / f".{real.name}.lock"


@contextmanager
def locked(out: Path) -> Iterator[bool]:
    """Inside, no other process writes `out`. Yields whether one was killed while it did.

    Raises:
        OutputError: another one does, or did on another machine; or the lock cannot be written.
    """
    path = lock_of(out)
    made = [parent for parent in path.parents if not parent.exists()]
    with writing(out):
        path.parent.mkdir(parents=True, exist_ok=True)
        file, new = _taken(path, out)
    try:
        yield not new
    finally:
        path.unlink(missing_ok=True)
        os.close(file)
        with suppress(OSError):  # what holds the output now stays
            for parent in made:
                parent.rmdir()


def _taken(path: Path, out: Path) -> tuple[int, bool]:
    """Returns the lock's open file, which is ours now, and whether it is new."""
    while True:
        file, new = _opened(path)
        try:
            mine = _flocked(file)
            holder = {} if new else _holder(file)
            # A process that ended has removed the file that we opened.
            if not path.exists() or os.fstat(file).st_ino != path.stat().st_ino:
                os.close(file)
                continue
            if mine is False or (holder and _counts(holder, mine is None)):
                raise OutputError(_refusal(path, out, holder or _holder(file)))
            os.truncate(file, 0)
            os.pwrite(file, json.dumps(_me()).encode(), 0)
            os.fsync(file)
        except BaseException:
            with suppress(OSError):
                os.close(file)
            raise
        return file, new


def _opened(path: Path) -> tuple[int, bool]:
    """Returns the lock's file, and whether this process made it."""
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            with suppress(FileNotFoundError):
                return os.open(path, os.O_RDWR), False


def _flocked(file: int) -> bool | None:
    """Locks the file. Returns False if another process has it, None if this system or disk has no such locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _me() -> dict[str, Any]:
    boot = BOOT.read_text(encoding="ascii").strip() if BOOT.is_file() else ""
    return {"machine": platform.node(), "boot": boot, "process": os.getpid()}


def _holder(file: int) -> dict[str, Any]:
    """Returns what the lock says; empty if its process ended before it wrote anything."""
    try:
        found = json.loads(os.pread(file, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _counts(holder: dict[str, Any], without_flock: bool) -> bool:
    """Returns whether the process that the lock names may still write."""
    me = _me()
    here = holder.get("machine") == me["machine"] or (me["boot"] and holder.get("boot") == me["boot"])
    if not here:
        return True
    return without_flock and holder.get("boot") == me["boot"] and _lives(holder.get("process"))


def _lives(process: Any) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, TypeError):
        return False
    return True


def _refusal(path: Path, out: Path, holder: dict[str, Any]) -> str:
    machine, process = holder.get("machine", "?"), holder.get("process", "?")
    if machine == platform.node():
        return f"{out}: process {process} writes it already; wait until it ends, or name another output"
    return (
        f"{out}: process {process} on {machine} writes it, or was stopped while it did; wait until it ends, or delete "
        f"{path} if it is gone"
    )
