"""Linear layers in 8 bits: near the plain ones, the same by the kernel and by torch, and each row by itself."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import INT8, adapted_of
from torch import Tensor
from torch.nn.functional import gelu, linear

from bertlora.errors import RecipeError
from bertlora.model import adapted as adapted_module
from bertlora.model import machine
from bertlora.model.engine import execution, frozen
from bertlora.model.engine.kernels.int8 import Int8Weight, Layer, feed_forward, feed_gradient
from bertlora.model.engine.kernels.library import native_int8
from bertlora.model.machine import choose_precision, default_device

Tiny = Callable[[str], Path]

native = pytest.mark.skipif(not native_int8(), reason="no processor with VNNI, or no native kernels")
# The third is not in whole vectors, so torch's operators compute it everywhere.
SHAPES = [(64, 48), (384, 1536), (33, 20)]
ROWS = (1, 2, 7, 47, 48, 150)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layer(out: int, inner: int, native: bool = True) -> Layer:
    return Int8Weight(drawn(out, inner, seed=out) / inner**0.5, native), drawn(out, seed=1)


def far(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm().detach() / expected.norm().detach())


@pytest.mark.parametrize("shape", SHAPES)
def test_products_are_near_the_plain_ones(shape: tuple[int, int]) -> None:
    weight, bias = drawn(*shape, seed=shape[0]) / shape[1] ** 0.5, drawn(shape[0], seed=1)
    held = Int8Weight(weight)
    for rows in ROWS:
        x = drawn(rows, shape[1])
        assert 1e-4 < far(held.product(x, None), linear(x, weight)) < 0.015
        # Numbers of one sign use all 8 bits.
        assert far(held.product(x.abs() + 3, bias), linear(x.abs() + 3, weight, bias)) < 0.015


@pytest.mark.parametrize("own", [True, False])
def test_a_feed_forward_and_its_gradient_are_near_the_plain_ones(own: bool) -> None:
    up, down = drawn(1536, 384, seed=1) / 20, drawn(384, 1536, seed=2) / 40
    biases, x, g = (drawn(1536, seed=3), drawn(384, seed=4)), drawn(100, 384).requires_grad_(), drawn(100, 384, seed=5)
    expected = linear(gelu(linear(x, up, biases[0])), down, biases[1])
    slopes = torch.autograd.grad(expected, x, g)
    layers = (Int8Weight(up, own), biases[0]), (Int8Weight(down, own), biases[1])
    y, u = feed_forward(x.detach(), *layers, keep=True)
    assert far(y, expected) < 0.015
    assert torch.equal(y, feed_forward(x.detach(), *layers)[0])
    assert u is not None
    assert far(u, linear(x, up, biases[0])) < 0.015
    found = feed_gradient(g, u, *(Int8Weight(w.T, own) for w in (down, up)))
    assert far(found, slopes[0]) < 0.03


@native
@pytest.mark.parametrize("turned", [False, True])
def test_the_kernel_rounds_weights_as_torch_does(turned: bool) -> None:
    weight = drawn(64, 96)
    weight[3], weight[:, 7] = 0.0, 1e-33
    weight = weight.T if turned else weight
    own, other = Int8Weight(weight), Int8Weight(weight, native=False)
    out, inner = weight.shape
    values = own.values.view(out // 16, inner // 4, 16, 4).transpose(1, 2).reshape(out, inner)
    assert torch.equal(values, other.values)
    assert torch.equal(own.scales, other.scales)
    assert torch.equal(own.sums, other.sums)
    for bad in (torch.nan, torch.inf, -torch.inf):
        broken = weight.clone()
        broken[5, 2] = bad
        y = Int8Weight(broken).product(torch.ones(1, inner), None)[0]
        assert not y[5].isfinite()
        assert y.isfinite().sum() == out - 1


@native
def test_gelu_is_torchs() -> None:
    # With one input that is 1 only what is between the layers is rounded to 8 bits.
    weight = torch.linspace(-6, 6, 1600)[:, None].expand(1600, 16).contiguous() / 16
    x = torch.ones(2, 16)
    x[1] = -1.0
    up, down = Int8Weight(weight), Int8Weight(torch.eye(1600))
    u = feed_forward(x, (up, None), (down, None), keep=True)[1]
    y = feed_forward(x, (up, None), (down, None))[0]
    assert u is not None
    assert float((y - gelu(u)).abs().max()) <= 0.6 * 6.2 / 255
    g, flat = torch.ones(2, 1600), u.clone().requires_grad_()
    slopes = torch.autograd.grad(gelu(flat), flat, g)[0]
    assert float((feed_gradient(g, u, down, down) - slopes).abs().max()) <= 0.01


@native
@pytest.mark.parametrize("shape", SHAPES[:2])
def test_the_kernel_gives_what_torch_gives(shape: tuple[int, int]) -> None:
    (ours, bias), (theirs, _) = layer(*shape), layer(*shape, native=False)
    assert ours.native
    assert not theirs.native
    x = drawn(150, shape[1])
    x[3], x[4], x[5, 7] = 0.0, -2.5, 1e4
    assert far(ours.product(x, bias), theirs.product(x, bias)) < 1e-6


@native
def test_a_row_depends_on_no_other_row_and_on_no_thread() -> None:
    up, down, x = layer(128, 64), layer(64, 128), drawn(150, 64)
    expected = up[0].product(x, up[1]), feed_forward(x, up, down)[0]
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            for rows in ([3], [149, 3], list(range(150))[::-1]):
                assert torch.equal(up[0].product(x[rows], up[1]), expected[0][rows])
                assert torch.equal(feed_forward(x[rows], up, down)[0], expected[1][rows])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("own", [True, False])
def test_what_is_not_finite_stays_so_in_its_row(own: bool) -> None:
    weight, bias = layer(64, 48, own)
    for number in (torch.nan, torch.inf, -torch.inf):
        x = drawn(9, 48)
        x[4, 11] = number
        y = weight.product(x, bias)
        assert not y[4].isfinite().any()
        assert y[[0, 1, 2, 3, 5, 6, 7, 8]].isfinite().all()


@pytest.mark.parametrize(
    "architecture", ["bert", "roberta", "distilbert", "electra", "albert", "mpnet", "deberta-v2", "modernbert"]
)
def test_answers_in_int8_are_near_those_in_fp32(architecture: str, tiny: Tiny) -> None:
    adapted = adapted_of(tiny(architecture), targets=["all-linear"])
    inputs = adapted.reader.read(["A joy.", "It is long, dull and badly acted, and it never ends.", "So so"] * 4)
    exact = adapted.logits(inputs)
    with adapted.ready("int8"):
        rough = adapted.logits(inputs, precision="int8")
    assert 0 < np.abs(rough - exact).max() < 0.1 * np.abs(exact).max() + 0.05
    assert np.array_equal(adapted.logits(inputs), exact)


def test_what_cannot_run_in_int8_is_refused(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    padded = adapted_of(tiny("deberta"))
    with pytest.raises(RecipeError, match=r"got int8, which needs packed rows; deberta .* give fp32"):
        padded.logits(padded.reader.read(["A joy."]), precision="int8")
    monkeypatch.setattr(machine, "default_device", lambda: torch.device("cuda"))
    with pytest.raises(RecipeError, match="got int8, which runs on a CPU only; give auto"):
        choose_precision("int8")


@INT8
def test_auto_trains_in_int8_where_it_pays_and_the_base_bears_it(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted, padded = adapted_of(tiny("bert")), adapted_of(tiny("deberta"))
    inputs = adapted.reader.read(["A joy.", "It is long, dull and badly acted, and it never ends.", "So so"])
    error = adapted._int8_error(inputs)
    assert 0 < error < 0.1
    monkeypatch.setattr(machine, "has_bf16", lambda: True)
    cases = (1.0, False, "fp32"), (1.0, True, "int8"), (1.6, False, "bf16"), (1.6, True, "int8")
    for bf16, pays, expected in cases:
        monkeypatch.setattr(machine, "speed", {"fp32": 1.0, "bf16": bf16}.__getitem__)
        monkeypatch.setattr(execution, "int8_pays", lambda _, pays=pays: pays)
        assert adapted.training_precision("auto", inputs) == expected
        assert adapted.choose_precision("auto") != "int8"
    monkeypatch.setattr(machine, "speed", {"fp32": 1.0, "bf16": 1.0}.__getitem__)
    assert adapted.training_precision("fp32", inputs) == "fp32"
    assert adapted.training_precision("auto", inputs, pack=False) == "fp32"
    assert padded.training_precision("auto", padded.reader.read(["A joy."])) == "fp32"
    assert adapted.training_precision("auto", inputs) == "int8"
    monkeypatch.setattr(adapted_module, "INT8_ERROR", error / 2)
    assert adapted.training_precision("auto", inputs) == "fp32"
    assert adapted.training_precision("int8", inputs) == "int8"
    monkeypatch.setattr(machine, "speed", {"fp32": 1.0, "bf16": 1.6}.__getitem__)
    assert adapted.training_precision("auto", inputs) == "bf16"


def test_int8_pays_where_its_products_are_faster_by_native_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    for native, rate, expected in ((True, 1.6, True), (True, 1.4, False), (False, 1.6, False)):
        monkeypatch.setattr(frozen, "native_int8", lambda native=native: native)
        monkeypatch.setattr(frozen, "product_rates", lambda _, rate=rate: {"bf16": 1.0, "int8": rate})
        frozen.int8_pays.cache_clear()
        assert frozen.int8_pays("bf16") == (expected and default_device().type == "cpu")
    frozen.int8_pays.cache_clear()
