"""What this machine has and does fast: precision, device, memory and threads."""

import ctypes
import mmap
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from bertlora.errors import RecipeError

# The measured matrix product has the size of a small encoder's layer: tokens, hidden size, feed-forward size.
TOKENS, HIDDEN, WIDE = 1024, 384, 1536
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# A GPU without bf16, older than Ampere (T4, V100), has this instead.
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
ROUNDS = 15
# A format that is slower than the fastest by more than this is not measured again: without instructions for bf16, one
# product takes a second.
CLEAR = 4.0
WORTH_IT = 1.5
# DeBERTa v1 fills its attention mask with the least fp32 number.
FP32_ALONE = ("deberta",)
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
# Seconds between two times that freed memory is given back. One takes some milliseconds.
GIVE_BACK_S = 1.0
# At most this many bytes a second are given back on average: fresh pages for them take a hundredth of the time.
GIVE_BACK_RATE = 100e6
# What is said if even one text does not fit.
ONE_TEXT = "memory ran out with a single text; use a smaller model or shorter texts"
# glibc's options for mallopt. It keeps this many freed bytes in between, and takes blocks of up to 32 MiB from them.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES, MAPPED_BYTES = 2**28, 2**25
# Linux's advice to madvise; Python's mmap does not name it.
MADV_PAGEOUT = 21


def choose_precision(wanted: str, architecture: str = "") -> str:
    """Returns `fp32`, `bf16`, `fp16` or `int8`; `auto` gives bf16 if its products are 1.5 times as fast as fp32's.

    On a GPU without bf16 that is fp16. `int8` is never chosen here: what it costs depends on the model; see
    `execution.training_precision`.

    Args:
        wanted: `auto`, `fp32`, `bf16` or `int8`; or `fp16`, as an earlier call chose it.
        architecture: transformers' model type; one that cannot run in bf16 gets fp32.

    Raises:
        RecipeError: `wanted` is bf16, and the architecture or the GPU cannot run in it; or int8 on a GPU; or fp16 on a
            CPU.
    """
    if wanted == "bf16" and architecture in FP32_ALONE:
        raise RecipeError(f"precision: got bf16, which transformers' {architecture} cannot run in; give fp32")
    gpu = default_device().type != "cpu"
    if wanted == "bf16" and gpu and not has_bf16():
        raise RecipeError("precision: got bf16, which this GPU does not have; give auto, which takes fp16, or fp32")
    if wanted == "fp16" and not gpu:
        raise RecipeError("precision: got fp16, which runs on a GPU only; give auto or fp32")
    if wanted == "int8" and gpu:
        other = "fp32" if architecture in FP32_ALONE else "auto"
        raise RecipeError(f"precision: got int8, which runs on a CPU only; give {other}")
    if wanted != "auto":
        return wanted
    if architecture in FP32_ALONE:
        return "fp32"
    half = "bf16" if has_bf16() else "fp16"
    if half == "fp16" and not gpu:
        return "fp32"
    return half if speed(half) >= WORTH_IT * speed("fp32") else "fp32"


def has_bf16() -> bool:
    """Returns whether the device in use multiplies bf16 at all. On a CPU without it, one product takes a second."""
    if default_device().type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # not documented
    return known is None or bool(known())


def sent(x: Tensor, device: torch.device) -> Tensor:
    """Returns x on a device. The program does not wait while it is copied to a GPU."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def speed(precision: str) -> float:
    """Returns the FLOP/s of a matrix product in this precision on the device in use."""
    return _speeds()[precision]


@cache
def _speeds() -> dict[str, float]:
    """Returns the FLOP/s of each precision."""
    a, b = drawn_factors()
    formats = DTYPES if has_bf16() or default_device().type == "cpu" else DTYPES | HALF
    return product_rates({name: partial(torch.mm, a.to(dtype), b.to(dtype)) for name, dtype in formats.items()})


def drawn_factors() -> tuple[Tensor, Tensor]:
    """Returns the factors of the measured product, (TOKENS, HIDDEN) and (HIDDEN, WIDE), on the device in use."""
    device = default_device()
    draws = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(*shape, device=device, generator=draws) for shape in ((TOKENS, HIDDEN), (HIDDEN, WIDE)))
    return a, b


def product_rates(products: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Returns the FLOP/s of ways to compute the product of `drawn_factors`, each at the best of many measurements.

    They alternate, so other programs disturb all of them.
    """
    best = dict.fromkeys(products, float("inf"))
    for _ in range(ROUNDS):
        for name in [name for name in products if best[name] <= CLEAR * min(best.values())]:
            began = time.perf_counter()
            products[name]()
            if default_device().type == "cuda":
                torch.cuda.synchronize()
            best[name] = min(best[name], time.perf_counter() - began)
    return {name: 2 * TOKENS * HIDDEN * WIDE / seconds for name, seconds in best.items()}


def default_device() -> torch.device:
    """Returns the first GPU that torch can use, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@cache
def limit_threads() -> None:
    """Limits torch's threads to the cores that this process may use, once.

    In a container torch counts the machine's cores, and too many threads slow each other down. OMP_NUM_THREADS still
    overrules the number of threads.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), cores_allowed(CPU_QUOTA)))


# A forked process has none of OpenMP's threads, and the first product would wait for them for ever. torch's own data
# loaders do the same in theirs.
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


@contextmanager
def threads_kept() -> Iterator[None]:
    """Restores torch's threads at the end, and lets `limit_threads` limit them again."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
            limit_threads.cache_clear()


def cores_allowed(quota: Path) -> int:
    """Returns the number of cores that a control group's quota allows, at least 1. Without a quota it is all cores."""
    try:
        allowed, period = quota.read_text(encoding="ascii").split()
        return max(1, int(allowed) // int(period))
    except (OSError, ValueError):  # no control group, or "max"
        return os.cpu_count() or 1


def out_of_memory(error: Exception) -> bool:
    """Returns whether memory ran out. A GPU reports it by the error's type, the CPU's allocator only by its message."""
    said = str(error)
    by_type = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return by_type or "not enough memory" in said or "can't allocate" in said


def give_back_memory(at_once: bool = False) -> None:
    """Gives freed memory back to the system: `at_once`, or else at most every `GIVE_BACK_S` seconds.

    glibc keeps freed blocks, and mostly does not use them again for aligned blocks, as torch's are (its bug 14581).
    With texts of ever new lengths the process grows on and on. Other C libraries than glibc need nothing. Arrow has an
    allocator of its own, and keeps some 15 MiB of what reading took.
    """
    now = time.monotonic()
    if at_once or now > _GIVE_BACK_NEXT[0]:
        before = _held_bytes()
        if (trim := _malloc_trim()) is not None:
            trim(0)
        # Another thread may import it just now.
        if (pool := getattr(sys.modules.get("pyarrow"), "default_memory_pool", None)) is not None:
            pool().release_unused()
        _GIVE_BACK_NEXT[0] = now + max(GIVE_BACK_S, (before - _held_bytes()) / GIVE_BACK_RATE)


_GIVE_BACK_NEXT = [0.0]  # not before


def _held_bytes() -> int:
    """Returns the memory that the process holds; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return 0


@cache
def keep_freed_memory() -> None:
    """Lets glibc keep freed blocks for the next ones, once: fresh pages cost up to a quarter of a pass.

    It changes the whole process. Settings of the environment overrule it.
    """
    said = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if not said and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for option, size in ((M_TRIM_THRESHOLD, KEPT_BYTES), (M_MMAP_THRESHOLD, MAPPED_BYTES)):
            libc.mallopt(option, size)


def page_out(x: Tensor) -> None:
    """Lets the system take a tensor's memory, if it is mapped from a file, until somebody reads it again.

    Pages that were written stay. Nothing happens on systems other than Linux.
    """
    page, libc = mmap.PAGESIZE, ctypes.CDLL(None)
    first, end = -(-x.data_ptr() // page), (x.data_ptr() + x.nbytes) // page
    if sys.platform == "linux" and x.device.type == "cpu" and first < end:
        libc.madvise(ctypes.c_void_p(first * page), ctypes.c_size_t((end - first) * page), MADV_PAGEOUT)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Returns glibc's function; None with another C library."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def peak_rss_mib() -> int:
    """Returns the process's peak resident memory in MiB (Linux counts in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024 * 1024) if sys.platform == "darwin" else peak // 1024
