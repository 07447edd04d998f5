"""The native kernels, in addition to what tests/model/engine/test_attention.py checks of both ways."""

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bertlora.model.engine import kernels
from bertlora.model.engine.attention import Given, NativeAttention, attend
from bertlora.model.engine.kernels.library import native_half
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

# What `native_half` may give. A processor with fp16 has bf16 too.
HALVES = pytest.mark.parametrize(
    "half",
    [
        pytest.param(kind, marks=pytest.mark.skipif(native_half() < kind, reason="not on this processor"), id=name)
        for kind, name in ((1, "bf16"), (2, "fp16"))
    ],
)

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


def in_float64(q: Tensor, k: Tensor, v: Tensor, g: Tensor, packing: Packing) -> list[Tensor]:
    """Returns each text's softmax attention with scale 0.2, and the gradients of q, k and v."""
    leaves, parts, first = [x.double().requires_grad_() for x in (q, k, v)], [], 0
    for length in packing.lengths:
        own = [x[first : first + length].transpose(0, 1) for x in leaves]
        parts.append(((own[0] @ own[1].mT * 0.2).softmax(-1) @ own[2]).transpose(0, 1))
        first += length
    y = torch.cat(parts)
    return [y.detach(), *torch.autograd.grad(y, leaves, g[:first].double())]


def with_gradients(q: Tensor, k: Tensor, v: Tensor, g: Tensor, packing: Packing, half: int) -> list[Tensor]:
    """Returns the output and the gradients in these 16-bit numbers, or 0 for float."""
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    y = NativeAttention.apply(*leaves, Given(packing, 0.2, half=half))
    return [x[: packing.tokens] for x in (y.detach(), *torch.autograd.grad(y, leaves, g))]


def farthest(found: list[Tensor], expected: list[Tensor]) -> float:
    return max(float((a.double() - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))


@HALVES
@given(
    lengths=st.lists(st.integers(1, 140), min_size=1, max_size=6),
    heads=st.integers(1, 3),
    dim=st.sampled_from([32, 64, 96]),
    dtype=st.sampled_from([torch.bfloat16, torch.float32]),
    small=st.sampled_from([1e-9, 1.0]),
)
@settings(deadline=None, max_examples=40)
def test_16_bits_are_near_float64_however_small_the_gradient(
    half: int, lengths: list[int], heads: int, dim: int, dtype: torch.dtype, small: float
) -> None:
    packing = Packing((*sorted(lengths, reverse=True),), CPU)
    q, k, v = joint(packing, heads, dim, dtype)
    g = (torch.randn(q.shape, generator=torch.Generator().manual_seed(1)) * small).to(dtype)
    expected = in_float64(*(x[: packing.tokens] for x in (q, k, v)), g, packing)
    found = with_gradients(q, k, v, g, packing, half)
    assert farthest(found, expected) < (1e-2 if half == 1 or dtype == torch.bfloat16 else 6e-3)
    if dtype == torch.float32:
        exact = farthest(with_gradients(q, k, v, g, packing, 0), expected)
        assert exact < 1e-5
        assert max(lengths) <= 16 or exact < farthest(found, expected), "16 bits were in use"


@HALVES
def test_keys_and_values_far_from_0_lose_nothing_in_16_bits(half: int) -> None:
    packing = Packing((200, 61), CPU)
    q, k, v = joint(packing, 2, 32, torch.float32)
    g = torch.randn(q.shape, generator=torch.Generator().manual_seed(1))
    k, v = k + 30, v - 50
    expected = in_float64(*(x[: packing.tokens] for x in (q, k, v)), g, packing)
    assert farthest(with_gradients(q, k, v, g, packing, half), expected) < (1e-2 if half == 1 else 6e-3)


@HALVES
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_16_bits_cannot_hold_is_computed_in_float(half: int, place: int) -> None:
    """The first text is too large for them, the second is not."""
    packing = Packing((100, 90), CPU)
    inputs = [x.clone() for x in joint(packing, 2, 32, torch.float32)]
    inputs[place][50] *= 1e6
    g = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1))
    exact, found = (with_gradients(*inputs, g, packing, kind) for kind in (0, half))
    for one, other in zip(exact, found, strict=True):
        assert torch.equal(one[:100], other[:100])
        assert not torch.equal(one[100:], other[100:])


@HALVES
def test_in_16_bits_threads_and_other_texts_change_no_bit_and_what_is_not_a_number_stays_so(half: int) -> None:
    packing, threads, found = Packing(LENGTHS, CPU), torch.get_num_threads(), []
    q, k, v = joint(packing, 3, 32, torch.float32)
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(with_gradients(q, k, v, torch.ones_like(q), packing, half))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    for x in (q, k, v):
        kept, x[75] = x[75].clone(), torch.nan
        changed = with_gradients(q, k, v, torch.ones_like(q), packing, half)
        assert changed[0][70:103].isnan().any(), "the second text has it"
        for one, other in zip(found[0], changed, strict=True):
            assert torch.equal(one[:70], other[:70]), "no other text sees it"
            assert torch.equal(one[103:], other[103:]), "no other text sees it"
        x[75] = kept


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
    assert (done.returncode, done.stdout) == (0, "1294 calls\n"), done.stderr
