"""The native kernels, in addition to what tests/model/engine/test_attention.py checks of both ways."""

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bertlora.model.engine import kernels
from bertlora.model.engine.attention import Given, NativeAttention, attend
from bertlora.model.engine.kernels.low_rank import (
    SegmentUpdate,
    add_segments,
    add_updates,
    trains,
    update_gradients,
    widened,
)
from bertlora.model.engine.packing import Packing

SOURCES = Path(kernels.__file__).parent
CPU = torch.device("cpu")
LENGTHS = (70, 33, 17, 16, 15, 5, 1)

pytestmark = pytest.mark.skipif(kernels.in_use() == "none", reason="no native kernels on this machine")


def joint(packing: Packing, heads: int, dim: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Returns q, k and v as a joint product gives them: parts of the same rows."""
    rows = torch.randn(packing.row, 3 * heads * dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return tuple(part.view(packing.row, heads, dim) for part in rows.to(dtype).split(heads * dim, 1))


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("one_query", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_gradients_hold_in_float64(biased: bool, one_query: bool, window: int | None) -> None:
    packing = Packing((19, 3, 1), CPU)
    q, k, v = (x.clone().requires_grad_() for x in joint(packing, 2, 3, torch.float64))
    asked = q[packing.starts] if one_query else q
    bias = torch.linspace(-1, 1, 2 * 37).view(2, 37) if biased else None
    given = Given(packing, 0.6, window, bias)
    assert torch.autograd.gradcheck(lambda *x: NativeAttention.apply(*x, given), (asked, k, v))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_any_number_of_threads_gives_the_same_bits(dtype: torch.dtype) -> None:
    packing, found = Packing(LENGTHS, CPU), []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            q, k, v = (x.requires_grad_() for x in joint(packing, 3, 32, dtype))
            y = attend(q, k, v, packing, 0.2)
            found.append([y.detach(), *torch.autograd.grad(y.float().square().sum(), (q, k, v))])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_what_is_not_a_number_stays_so() -> None:
    packing = Packing(LENGTHS, CPU)
    q, k, v = joint(packing, 1, 32, torch.bfloat16)
    for x, place in ((q, 75), (k, 80), (v, 85)):
        x[place] = torch.nan
        y = attend(q, k, v, packing, 0.2)
        assert y[70:103].isnan().any(), "the second text has it"
        assert not y[:70].isnan().any(), "no other text sees it"
        x[place] = 0.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_each_segment_gets_its_adapters_update(dtype: torch.dtype) -> None:
    widths, ranks, firsts = (32, 64, 32), ((4, 7), (16, 1), (3, 3)), [0, 40, 40, 57, 58]
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(70, n, generator=generator).to(dtype) for n in (48, sum(widths)))
    expected, updates = y.double(), list[SegmentUpdate | None]([None])
    for (first, end), (one, other) in zip(pairwise(firsts[1:]), ranks, strict=True):
        a = torch.randn(one + other, 48, generator=generator)
        ups = [(0, torch.randn(one, 32, generator=generator)), (96, torch.randn(other, 32, generator=generator))]
        updates.append(SegmentUpdate(widened(a.T), ups))
        low = x[first:end].double() @ a.T.double()
        expected[first:end, :32] += low[:, :one] @ ups[0][1].double()
        expected[first:end, 96:] += low[:, one:] @ ups[1][1].double()
    assert SegmentUpdate.serves(updates[1]._kept[0], widths)  # type: ignore[union-attr]
    add_segments(x, y, updates, firsts)
    within = 1e-2 if dtype == torch.bfloat16 else 1e-6
    assert float((y.double() - expected).norm()) <= within * float(expected.norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rows", [1, 17, 150, 1100])
@pytest.mark.parametrize("masked", [False, True])
def test_updates_and_their_gradients_equal_float64s(dtype: torch.dtype, rows: int, masked: bool) -> None:
    widths, ranks, generator = (32, 64, 32), (4, 17, 3), torch.Generator().manual_seed(0)
    x, y, g, g_x = (torch.randn(rows, n, generator=generator).to(dtype) for n in (48, 128, 128, 48))
    mask = (torch.rand(rows, 48, generator=generator) > 0.3).to(dtype) / 0.5 if masked else None
    updates = [
        (torch.randn(r, 48, generator=generator), torch.randn(w, r, generator=generator), 0.7)
        for r, w in zip(ranks, widths, strict=True)
    ]
    assert trains(x, updates)
    exact = [m.double().requires_grad_() for a, b, _ in updates for m in (a, b)]
    entered, from_y, from_x = x.double().requires_grad_(), y.double(), g_x.double()
    dropped = entered if mask is None else entered * mask.double()
    added = [0.7 * dropped @ a.T @ b.T for a, b in zip(exact[::2], exact[1::2], strict=True)]
    change = torch.cat(added, 1)
    expected = [(from_y + change).detach(), *torch.autograd.grad(change, (entered, *exact), g.double())]
    expected[1] += from_x

    low = add_updates(x, mask, y, updates)
    found = [y, g_x, *(m for pair in update_gradients(g, x, mask, low, g_x, updates) for m in pair)]
    within = 1e-2 if dtype == torch.bfloat16 else 1e-6
    for one, other in zip(found, expected, strict=True):
        assert float((one.double() - other).norm()) <= within * float(other.norm())


def test_any_number_of_threads_gives_an_update_the_same_bits() -> None:
    generator, threads, found = torch.Generator().manual_seed(0), torch.get_num_threads(), []
    x, g = (torch.randn(427, n, generator=generator) for n in (64, 96))
    updates = [(torch.randn(8, 64, generator=generator), torch.randn(96, 8, generator=generator), 2.0)]
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            y, g_x = torch.zeros(427, 96), torch.zeros(427, 64)
            low = add_updates(x, None, y, updates)
            found.append([y, g_x, *update_gradients(g, x, None, low, g_x, updates)[0]])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_the_kernels_can_be_turned_off() -> None:
    code = "from bertlora.model.engine import kernels; print(kernels.in_use())"
    said = [
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"BERTLORA_KERNELS": way}, capture_output=True, check=True
        ).stdout.decode()
        for way in ("off", "on")
    ]
    assert said == ["none\n", f"{kernels.in_use()}\n"]


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """Runs every kind of call with lengths around the sizes of blocks and vectors; the program has no torch."""
    driver = Path(__file__).with_name("sanitized.cpp")
    flags = ["-O1", "-g", "-std=c++17", "-fopenmp", "-march=native", "-fsanitize=address,undefined"]
    built = ["g++", *flags, "-fno-sanitize-recover", f"-I{SOURCES}", str(driver), "-o", str(tmp_path / "driver")]
    subprocess.run(built, check=True)
    quiet = os.environ | {"ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "3"}
    done = subprocess.run([tmp_path / "driver"], env=quiet, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1218 calls\n"), done.stderr
