"""Low-rank updates by low_rank.cpp: in training, or of a row that holds texts of several adapters.

Letters: N rows, R rank.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from itertools import accumulate

import torch
from torch import Tensor

from bertlora.model.engine.kernels.library import Call, library

# `PARTS` in low_rank.h.
PARTS = 3
_TAKEN = torch.bfloat16, torch.float32


class _Part(ctypes.Structure):
    _fields_ = (("up", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("rank", "column", "width")))


class _Update(ctypes.Structure):
    _fields_ = (
        ("down", ctypes.c_void_p),
        ("deep", ctypes.c_int64),
        ("parts", ctypes.c_int64),
        ("part", _Part * PARTS),
    )


class _Sizes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int64) for name in ("segments", "in_", "out", "deepest", "room", "threads"))


@cache
def lanes() -> int:
    """Returns how many numbers a vector of the library has; 1 without a library."""
    found = library()
    return int(found[1].low_rank_lanes()) if found else 1


def widened(down: Tensor) -> Tensor:
    """Returns A' (in, R) with columns of 0 up to whole vectors, as `SegmentUpdate` takes it."""
    return torch.nn.functional.pad(down, (0, -down.shape[1] % lanes())).contiguous()


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
        self._structure = _Update(down.data_ptr(), self.deep, len(parts), (_Part * PARTS)(*parts))
        self.address = ctypes.addressof(self._structure)

    @staticmethod
    def serves(down: Tensor, widths: Sequence[int]) -> bool:
        """Returns whether the kernel takes updates of layers with these numbers of outputs."""
        if library() is None or down.device.type != "cpu" or down.dtype != torch.float32 or len(widths) > PARTS:
            return False
        return all(width % lanes() == 0 for width in widths)


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


# A (R, in), B (width, R) and the scale s of one layer's update.
Pair = tuple[Tensor, Tensor, float]
# The same, and the first column of its outputs.
Placed = tuple[Tensor, Tensor, float, int]


class _Trained(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("a", "b", "ga", "gb")),
        *((name, ctypes.c_int64) for name in ("rank", "column", "width")),
        ("scale", ctypes.c_double),
    )


class Updates(ctypes.Structure):
    """`Updates` in low_rank.h."""

    _fields_ = (*((name, ctypes.c_int64) for name in ("in_", "out", "parts")), ("part", _Trained * PARTS))


class _Training(ctypes.Structure):
    _fields_ = (*((name, ctypes.c_int64) for name in ("rows", "threads")), ("updates", Updates))


def trains(x: Tensor, updates: Sequence[Pair]) -> bool:
    """Returns whether the kernel adds updates of layers with the input x, (N, in), and has their gradients."""
    known = library() is not None and x.device.type == "cpu" and x.dtype in _TAKEN
    return known and x.shape[0] > 0 and takes(x.shape[1], [(a, b) for a, b, _ in updates])


def takes(inner: int, matrices: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Returns whether the kernel takes A and B of layers whose input rows have this many numbers."""
    whole = all(n % lanes() == 0 for n in (inner, *(len(b) for _, b in matrices)))
    plain = all(m.dtype == torch.float32 and m.is_contiguous() for pair in matrices for m in pair)
    return whole and plain and len(matrices) <= PARTS


def add_updates(x: Tensor, mask: Tensor | None, y: Tensor, updates: Sequence[Pair]) -> Tensor:
    """Adds s B A (m ⊙ x) of each layer to its columns of y, (N, out), in place.

    Returns A (m ⊙ x) in fp32, (N, R of all or more), for `update_gradients`. See `trains` for what it takes.
    """
    x, mask = x.contiguous(), None if mask is None else mask.contiguous()
    call, training = Call(x.dtype), _training(x, y.shape[1], updates)
    low = x.new_empty(x.shape[0], call.count("low_rank_deep", ctypes.byref(training)), dtype=torch.float32)
    call("low_rank_forward", training, _training_room(call, training), x, mask, y, low)
    return low


def update_gradients(
    g: Tensor, x: Tensor, mask: Tensor | None, low: Tensor, g_x: Tensor | None, updates: Sequence[Pair]
) -> list[tuple[Tensor, Tensor]]:
    """Returns the gradients of each layer's A and B, and adds x's own to g_x, (N, in), in place.

    Args:
        g: the gradient of y, (N, out), in x's dtype.
        x: inputs.
        mask: m, or None.
        low: what `add_updates` returned.
        g_x: in x's dtype; None if it is not wanted.
        updates: A, B and s of each layer.
    """
    g, x, mask = g.contiguous(), x.contiguous(), None if mask is None else mask.contiguous()
    gradients = [(torch.empty_like(a), torch.empty_like(b)) for a, b, _ in updates]
    call, training = Call(x.dtype), _training(x, g.shape[1], updates, gradients)
    call("low_rank_backward", training, _training_room(call, training), g, x, mask, low, g_x)
    return gradients


def updates_structure(
    inner: int, out: int, updates: Sequence[Placed], gradients: Sequence[tuple[Tensor, Tensor]] | None = None
) -> Updates:
    """Returns the updates as the kernel reads them.

    Args:
        inner: numbers of a row of the input.
        out: numbers of a row of the output.
        updates: at most `PARTS`.
        gradients: where those of each A and B are written to.
    """
    parts = (_Trained * PARTS)()
    for number, (a, b, scale, column) in enumerate(updates):
        g_a, g_b = (None, None) if gradients is None else (m.data_ptr() for m in gradients[number])
        parts[number] = _Trained(a.data_ptr(), b.data_ptr(), g_a, g_b, a.shape[0], column, b.shape[0], scale)
    return Updates(inner, out, len(updates), parts)


def _training(
    x: Tensor, out: int, updates: Sequence[Pair], gradients: Sequence[tuple[Tensor, Tensor]] | None = None
) -> _Training:
    """Returns the layers, whose outputs stand side by side, as the kernel reads them."""
    columns = accumulate((b.shape[0] for _, b, _ in updates), initial=0)
    placed = [(*update, column) for update, column in zip(updates, columns, strict=False)]
    structure = updates_structure(x.shape[1], out, placed, gradients)
    return _Training(x.shape[0], torch.get_num_threads(), structure)


def _training_room(call: Call, training: _Training) -> int:
    return call.count("low_rank_training_room", ctypes.byref(training))
