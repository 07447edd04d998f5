"""Finds the library for this processor, and calls it."""

import ctypes
import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# What torch calls the processor's abilities → the libraries that run on it, the fastest first.
_LIBRARIES = {"AVX512": ("avx512", "avx2"), "AVX2": ("avx2",), "DEFAULT": ("neon",)}
_KINDS = {torch.bfloat16: 0, torch.float32: 1, torch.float64: 2}
# Functions that return a number.
_COUNTS = (
    *("attention_room", "half_serves", "low_rank_room", "low_rank_lanes", "low_rank_deep", "low_rank_training_room"),
    *("int8_room", "int8_serves", "layer_room"),
)
# Working memory up to this many numbers is kept for the next call: fresh pages cost more than the arithmetic on them.
_KEPT = 1 << 23
_OWN = threading.local()


def in_use() -> str:
    """Returns the name of the library that serves this processor, such as `avx512`; `none` if none does."""
    found = library()
    return "none" if found is None else found[0]


def serves(*tensors: Tensor) -> bool:
    """Returns whether the kernels take these tensors: on the CPU, of one type that they know."""
    kind = tensors[0].dtype
    alike = all(x.dtype == kind and x.device.type == "cpu" for x in tensors)
    return alike and kind in _KINDS and library() is not None


def native_int8() -> bool:
    """Returns whether the processor multiplies 8 bits fast, and there is a kernel for it."""
    return _ability("int8_serves") > 0


def native_half() -> int:
    """Returns what attention is multiplied in if 16 bits will do: 2 is fp16, 1 is bf16, 0 is neither."""
    return _ability("half_serves")


def _ability(name: str) -> int:
    found = library()
    return 0 if found is None else int(getattr(found[1], name)())


def computed(dtype: torch.dtype) -> torch.dtype:
    """Returns what the kernels compute in, for tensors of this type."""
    return torch.promote_types(dtype, torch.float32)


class Call:
    """A call of the library, for tensors of this type: its kind, the sizes, then pointers."""

    def __init__(self, dtype: torch.dtype) -> None:
        found = library()
        assert found is not None
        self._library, self._dtype = found[1], dtype
        self._kind = ctypes.c_int64(_KINDS[dtype])

    def count(self, name: str, *arguments: object) -> int:
        """Returns what a function of the kind and these arguments counts."""
        return int(getattr(self._library, name)(self._kind, *arguments))

    def __call__(self, name: str, sizes: ctypes.Structure, room: int | Tensor, *given: Any) -> None:
        """Calls a function with the kind, the sizes, these tensors or pointers, and working memory.

        Args:
            name: of the function.
            sizes: a structure.
            room: the working memory, or how many numbers it must hold.
            given: tensors or pointers.
        """
        given = (*given, room if isinstance(room, Tensor) else _rooms(room, computed(self._dtype)))
        pointers = [ctypes.c_void_p(x.data_ptr()) if isinstance(x, Tensor) else x for x in given]
        getattr(self._library, name)(self._kind, ctypes.byref(sizes), *pointers)


def _rooms(numbers: int, dtype: torch.dtype) -> Tensor:
    """Returns working memory of this thread."""
    kept: Tensor | None = getattr(_OWN, "rooms", None)
    if kept is None or kept.dtype != dtype or kept.numel() < numbers:
        kept = torch.empty(numbers, dtype=dtype)
        if numbers <= _KEPT:
            _OWN.rooms = kept
    return kept


@cache
def library() -> tuple[str, ctypes.CDLL] | None:
    """Returns the fastest library that this processor runs, with its name."""
    if os.environ.get("BERTLORA_KERNELS") == "off":
        return None
    for name in _LIBRARIES.get(torch.backends.cpu.get_cpu_capability(), ()):
        for path in sorted(Path(__file__).parent.glob(f"{name}.*so")):
            try:
                found = ctypes.CDLL(str(path), mode=os.RTLD_NOW)
                for counts in _COUNTS:
                    getattr(found, counts).restype = ctypes.c_int64
            except (OSError, AttributeError):  # for another system, or an older one; or torch has no OpenMP
                continue
            return name, found
    return None
