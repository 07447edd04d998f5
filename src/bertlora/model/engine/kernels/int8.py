"""Linear layers and feed-forwards in 8 bits: by int8.cpp on a processor with VNNI, else by torch's operators.

    x[n] ≈ s[n] q[n] + m[n], q = 0..255, m = min x      W[o] ≈ t[o] w[o], w = -127..127
    y[n, o] = t[o] (s[n] Σ q[n, i] w[o, i] + m[n] Σ w[o, i]) + b[o]

Each row of x and of W has a scale of its own. The sums are of integers, so both ways give the same up to the last bits
of y, and a row's result depends on no other row.
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import gelu

from bertlora.model.engine.kernels.library import Call, native_int8

# Columns of a vector: `COLUMNS` in int8.h.
_COLUMNS = 16
# A row whose scale is below it counts as constant.
_LEAST = 1e-30


class LinearLayer(ctypes.Structure):
    """`Linear` in int8.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("values", "scales", "sums", "bias")),
        *((name, ctypes.c_int64) for name in ("in_", "out")),
    )


class Work(ctypes.Structure):
    """`Work` in int8.h."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("rows", "threads"))


class _Given(ctypes.Structure):
    """`Given` in int8.cpp."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("out", "in_", "across", "along", "threads"))


class Int8Weight:
    """W (out, in) in 8 bits.

    Args:
        weight: W in fp32, on the CPU; a transposed view will do.
        native: whether to use the kernel, where it serves.
    """

    def __init__(self, weight: Tensor, native: bool = True) -> None:
        weight, (self.out, self.inner) = weight.detach().float(), weight.shape
        self.native = native and self.out % _COLUMNS == 0 and self.inner % _COLUMNS == 0 and native_int8()
        if self.native:
            # In the order of the kernel's tiles: (out / 16, in / 4, 16, 4).
            self.values = torch.empty(weight.numel(), dtype=torch.int8)
            self.scales, self.sums = (torch.empty(self.out, dtype=torch.float32) for _ in range(2))
            given = _Given(self.out, self.inner, *weight.stride(), torch.get_num_threads())
            Call(weight.dtype)("int8_pack", given, 0, weight, self.values, self.scales, self.sums)
        else:
            self.scales = weight.abs().amax(1) / 127
            self.values = torch.round(weight * _inverse(self.scales)[:, None]).to(torch.int8)
            self.sums = self.values.sum(1, dtype=torch.float32)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Returns W x + b, (N, out) for x (N, in), in fp32."""
        if self.native:
            x, y = x.contiguous(), x.new_empty(x.shape[0], self.out)
            _call("int8_linear", ((self, bias),), x, y)
            return y
        least = x.amin(1)
        scales = (x.amax(1) - least) / 255
        above = torch.round((x - least[:, None]) * _inverse(scales)[:, None])
        sums = torch._int_mm((above - 128).to(torch.int8), self.values.T) + (128 * self.sums).to(torch.int32)
        y = (sums * scales[:, None] + least[:, None] * self.sums) * self.scales
        return y if bias is None else y.add_(bias)

    def structure(self, bias: Tensor | None) -> LinearLayer:
        """Returns the layer with this bias, as the kernel reads it."""
        held = self.values, self.scales, self.sums, bias
        return LinearLayer(*(None if x is None else x.data_ptr() for x in held), self.inner, self.out)


# W and b of a layer.
Layer = tuple[Int8Weight, Tensor | None]


def feed_forward(x: Tensor, up: Layer, down: Layer, keep: bool = False) -> tuple[Tensor, Tensor | None]:
    """Returns y = V gelu(u) + c, (N, out) for x (N, in), and with `keep` u = W x + b, (N, wide).

    The rows between the two products stay in the processor's cache.

    Args:
        x: inputs.
        up: W and b.
        down: V and c.
        keep: u is wanted, for the gradient.
    """
    wide, narrow = up[0], down[0]
    if not (wide.native and narrow.native):
        u = wide.product(x, up[1])
        return narrow.product(gelu(u), down[1]), u if keep else None
    kept = x.new_empty(len(x), wide.out) if keep else None
    x, y = x.contiguous(), x.new_empty(len(x), narrow.out)
    _call("int8_feed", (up, down), x, kept, y)
    return y, kept


def feed_gradient(g: Tensor, u: Tensor, down: Int8Weight, up: Int8Weight) -> Tensor:
    """Returns W' (gelu'(u) ⊙ V' g), (N, in) for g (N, out) and u (N, wide).

    Args:
        g: the gradient of y.
        u: what `feed_forward` kept.
        down: V', (wide, out).
        up: W', (in, wide).
    """
    if not (down.native and up.native):
        slopes: Tensor = torch.ops.aten.gelu_backward(down.product(g, None), u)
        return up.product(slopes, None)
    g, gx = g.contiguous(), g.new_empty(len(g), up.out)
    _call("int8_feed_back", ((down, None), (up, None)), g, u, gx)
    return gx


def _inverse(scales: Tensor) -> Tensor:
    return torch.where(scales > _LEAST, 1 / scales, 0)


def _call(name: str, layers: Sequence[Layer], *tensors: Tensor | None) -> None:
    """Calls a function of the library on rows, (N, ...), with its layers."""
    structures = (LinearLayer * len(layers))(*(weight.structure(bias) for weight, bias in layers))
    given = [x for x in (*tensors, *(bias for _, bias in layers)) if x is not None]
    first = given[0]
    assert all(x.dtype == torch.float32 and x.device.type == "cpu" for x in given), "the kernel reads fp32 on the CPU"
    assert first.shape[1] == layers[0][0].inner, "rows of another width"
    call, threads = Call(first.dtype), torch.get_num_threads()
    room = call.count("int8_room", ctypes.c_int64(len(layers)), structures)
    call(name, Work(first.shape[0], threads), threads * room, *tensors, structures)
