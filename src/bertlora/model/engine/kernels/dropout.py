"""Dropout masks by dropout.cpp."""

import ctypes

import torch
from torch import Tensor

from bertlora.model.engine.kernels.library import Call


class _Draw(ctypes.Structure):
    """`Draw` in dropout.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("count", "threads")),
        ("seed", ctypes.c_uint32 * 2),
        ("rate", ctypes.c_double),
    )


def drawn_mask(like: Tensor, p: float) -> Tensor:
    """Returns a mask shaped like `like`, of at most 2^32 numbers: 0 with probability p, else 1 / (1 - p).

    torch's generator draws its seed.
    """
    mask, seed = torch.empty(like.shape, dtype=like.dtype), torch.randint(1 << 32, (2,)).tolist()
    draw = _Draw(mask.numel(), torch.get_num_threads(), (ctypes.c_uint32 * 2)(*seed), p)
    Call(mask.dtype)("dropout_draw", draw, 0, mask)
    return mask
