"""Memory: whether it ran out, and how much was used."""

import resource
import sys

import torch


def out_of_memory(error: Exception) -> bool:
    """Returns whether memory ran out: a GPU says so by type, the CPU's allocator by its message alone."""
    said = str(error)
    by_type = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return by_type or "not enough memory" in said or "can't allocate" in said


def peak_rss_mib() -> int:
    """Returns the process's peak resident memory in MiB (Linux counts in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024 * 1024) if sys.platform == "darwin" else peak // 1024
