"""Linear layers in 8 bits: by int8.cpp where the processor has the instruction (VNNI), else by torch's operators.

    x[n] ≈ s[n] q[n] + m[n], q = 0..255, m = min x      W[o] ≈ t[o] w[o], w = -127..127
    y[n, o] = t[o] (s[n] Σ q[n, i] w[o, i] + m[n] Σ w[o, i]) + b[o]

Each row of x and of W has a scale of its own. The sums are of integers, so both ways give the same up to the last bits
of y, and a row's result depends on no other row.
"""

import ctypes

import torch
from torch import Tensor

from bertlora.model.engine.kernels.library import Call, library

# Columns of a vector, and inputs that one instruction sums: `COLUMNS` and `GROUP` in int8.cpp.
_COLUMNS, _GROUP = 16, 4
# A row whose scale is below it counts as constant.
_LEAST = 1e-30


class _Linear(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("values", "scales", "sums", "bias")),
        *((name, ctypes.c_int64) for name in ("in_", "out")),
    )


class _Sizes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int64) for name in ("rows", "linears", "threads"))


class Int8Weight:
    """W (out, in) in 8 bits.

    Args:
        weight: W in fp32, on the CPU.
        native: whether to use the kernel, where it serves.
    """

    def __init__(self, weight: Tensor, native: bool = True) -> None:
        self.out, self.inner = weight.shape
        self.native = native and self.out % _COLUMNS == 0 and self.inner % _COLUMNS == 0 and native_int8()
        self.scales = weight.abs().amax(1) / 127
        self.values = torch.round(weight * _inverse(self.scales)[:, None]).to(torch.int8)
        self.sums = self.values.sum(1, dtype=torch.float32)
        if self.native:
            tiles = self.values.view(self.out // _COLUMNS, _COLUMNS, self.inner // _GROUP, _GROUP)
            self.values = tiles.transpose(1, 2).contiguous()

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Returns W x + b, (N, out) for x (N, in), in fp32."""
        if self.native:
            return _native(x, (self, bias))
        least = x.amin(1)
        scales = (x.amax(1) - least) / 255
        above = torch.round((x - least[:, None]) * _inverse(scales)[:, None])
        sums = torch._int_mm((above - 128).to(torch.int8), self.values.T) + (128 * self.sums).to(torch.int32)
        y = (sums * scales[:, None] + least[:, None] * self.sums) * self.scales
        return y if bias is None else y.add_(bias)

    def structure(self, bias: Tensor | None) -> _Linear:
        """Returns the layer with this bias, as the kernel reads it."""
        held = self.values, self.scales, self.sums, bias
        return _Linear(*(None if x is None else x.data_ptr() for x in held), self.inner, self.out)


# W and b of a layer.
Layer = tuple[Int8Weight, Tensor | None]


def feed_forward(x: Tensor, up: Layer, down: Layer) -> Tensor:
    """Returns W' gelu(W x + b) + b', (N, out) for x (N, in). The rows between stay in the processor's cache."""
    if up[0].native and down[0].native:
        return _native(x, up, down)
    return down[0].product(torch.nn.functional.gelu(up[0].product(x, up[1])), down[1])


def native_int8() -> bool:
    """Returns whether the kernel runs on this processor."""
    found = library()
    return found is not None and bool(found[1].int8_serves())


def _inverse(scales: Tensor) -> Tensor:
    return torch.where(scales > _LEAST, 1 / scales, 0)


def _native(x: Tensor, *layers: Layer) -> Tensor:
    x, y, call = x.contiguous(), x.new_empty(len(x), layers[-1][0].out), Call(x.dtype)
    structures = (_Linear * len(layers))(*(weight.structure(bias) for weight, bias in layers))
    sizes = _Sizes(len(x), len(layers), torch.get_num_threads())
    room = call.count("int8_room", ctypes.byref(sizes), structures) * sizes.threads
    call("int8_linears", sizes, room, x, y, structures)
    return y
