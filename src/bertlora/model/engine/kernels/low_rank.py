"""Low-rank updates of a row that holds texts of several adapters, by low_rank.cpp. Letters: N rows, R rank."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from bertlora.model.engine.kernels.library import Call, library

# `PARTS` in low_rank.cpp.
_PARTS = 3


class _Part(ctypes.Structure):
    _fields_ = (("up", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("rank", "column", "width")))


class _Update(ctypes.Structure):
    _fields_ = (
        ("down", ctypes.c_void_p),
        ("deep", ctypes.c_int64),
        ("parts", ctypes.c_int64),
        ("part", _Part * _PARTS),
    )


class _Sizes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int64) for name in ("segments", "in_", "out", "deepest", "room", "threads"))


def widened(down: Tensor) -> Tensor:
    """Returns A' (in, R) with columns of 0 up to whole vectors, as `SegmentUpdate` takes it."""
    found = library()
    lanes = found[1].low_rank_lanes() if found else 1
    return torch.nn.functional.pad(down, (0, -down.shape[1] % lanes)).contiguous()


class SegmentUpdate:
    """What one adapter adds to a product, as the kernel reads it.

    Args:
        down: A' of all layers of the product, side by side, (in, R); see `widened`.
        ups: for each of them, the first column of its outputs, and s B' (rank, width).
    """

    def __init__(self, down: Tensor, ups: Sequence[tuple[int, Tensor]]) -> None:
        self._kept = down, ups  # the structure has only their addresses
        parts = [_Part(up.data_ptr(), up.shape[0], column, up.shape[1]) for column, up in ups]
        self.deep = down.shape[1]
        self._structure = _Update(down.data_ptr(), self.deep, len(parts), (_Part * _PARTS)(*parts))
        self.address = ctypes.addressof(self._structure)

    @staticmethod
    def serves(down: Tensor, widths: Sequence[int]) -> bool:
        """Returns whether the kernel takes updates of layers with these numbers of outputs."""
        found = library()
        if found is None or down.device.type != "cpu" or down.dtype != torch.float32 or len(widths) > _PARTS:
            return False
        return all(width % found[1].low_rank_lanes() == 0 for width in widths)


def add_segments(x: Tensor, y: Tensor, updates: Sequence[SegmentUpdate | None], firsts: Sequence[int]) -> None:
    """Adds to y (N, out), in place, what each adapter adds for its rows of x (N, in); both in bf16 or fp32.

    Args:
        x: inputs, without gaps.
        y: outputs, without gaps.
        updates: of each segment; None adds nothing.
        firsts: the first row of each segment, then the end of the last one.
    """
    deepest = max((update.deep for update in updates if update is not None), default=0)
    if not deepest:
        return
    call = Call(x.dtype)
    sizes = _Sizes(len(updates), x.shape[1], y.shape[1], deepest, 0, torch.get_num_threads())
    sizes.room = call.count("low_rank_room", ctypes.byref(sizes))
    addresses = (ctypes.c_void_p * len(updates))(*(None if update is None else update.address for update in updates))
    call("low_rank_add", sizes, sizes.room * sizes.threads, x, y, addresses, (ctypes.c_int64 * len(firsts))(*firsts))
