"""Memory and threads: what the machine has, what was used, and settings that a user should not have to know."""

import ctypes
import os
import resource
import sys
from functools import cache
from pathlib import Path

import torch

# glibc's names for them in malloc.h, and the largest threshold it takes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, LARGEST_THRESHOLD = -1, -3, 32 * 2**20
KEPT = 512 * 2**20
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@cache
def settle() -> None:
    """Sets allocator and threads for this process, once.

    glibc hands large arrays back to the system as soon as they are free, and the page faults of the next ones then cost
    more than the arithmetic; so up to 512 MiB are kept. In a container torch counts the machine's cores, not those that
    it may use; so many threads stand in each other's way. OMP_NUM_THREADS overrules that, as ever.
    """
    allocator = ctypes.CDLL(None) if sys.platform == "linux" else None
    if allocator is not None and hasattr(allocator, "mallopt"):
        allocator.mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        allocator.mallopt(M_TRIM_THRESHOLD, KEPT)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), cores_allowed(CPU_QUOTA)))


def cores_allowed(quota: Path) -> int:
    """Returns how many cores a control group's quota comes to, at least one; all of them where there is none."""
    try:
        allowed, period = quota.read_text(encoding="ascii").split()
        return max(1, int(allowed) // int(period))
    except (OSError, ValueError):  # no control group, or "max"
        return os.cpu_count() or 1


def out_of_memory(error: Exception) -> bool:
    """Returns whether memory ran out: a GPU says so by type, the CPU's allocator by its message alone."""
    said = str(error)
    by_type = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return by_type or "not enough memory" in said or "can't allocate" in said


def peak_rss_mib() -> int:
    """Returns the process's peak resident memory in MiB (Linux counts in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024 * 1024) if sys.platform == "darwin" else peak // 1024
