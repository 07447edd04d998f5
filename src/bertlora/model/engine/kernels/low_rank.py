"""Low-rank updates by low_rank.cpp: in training, or of a row that holds texts of several adapters.

Letters: N rows, R rank.
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from bertlora.model.engine.kernels.library import Call, library

# `PARTS` in low_rank.cpp.
_PARTS = 3
_TAKEN = torch.bfloat16, torch.float32


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


# A (R, in), B (width, R) and the scale s of one layer's update.
Pair = tuple[Tensor, Tensor, float]


class _Trained(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("a", "b", "ga", "gb")),
        *((name, ctypes.c_int64) for name in ("rank", "column", "width")),
        ("scale", ctypes.c_double),
    )


class _Training(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "in_", "out", "parts", "threads")),
        ("part", _Trained * _PARTS),
    )


def trains(x: Tensor, updates: Sequence[Pair]) -> bool:
    """Returns whether the kernel adds updates of layers with the input x, (N, in), and has their gradients."""
    found = library()
    if found is None or len(updates) > _PARTS or x.device.type != "cpu" or x.dtype not in _TAKEN:
        return False
    lanes, matrices = found[1].low_rank_lanes(), [matrix for a, b, _ in updates for matrix in (a, b)]
    whole = all(n % lanes == 0 for n in (x.shape[1], *(b.shape[0] for _, b, _ in updates)))
    return whole and x.shape[0] > 0 and all(m.dtype == torch.float32 and m.is_contiguous() for m in matrices)


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


def _training(
    x: Tensor, out: int, updates: Sequence[Pair], gradients: Sequence[tuple[Tensor, Tensor]] = ()
) -> _Training:
    """Returns the layers as the kernel reads them."""
    parts, column = (_Trained * _PARTS)(), 0
    for number, (a, b, scale) in enumerate(updates):
        g_a, g_b = (m.data_ptr() for m in gradients[number]) if gradients else (None, None)
        (rank, _), (width, _) = a.shape, b.shape
        parts[number] = _Trained(a.data_ptr(), b.data_ptr(), g_a, g_b, rank, column, width, scale)
        column += width
    return _Training(*x.shape, out, len(updates), torch.get_num_threads(), parts)


def _training_room(call: Call, training: _Training) -> int:
    return call.count("low_rank_training_room", ctypes.byref(training))
