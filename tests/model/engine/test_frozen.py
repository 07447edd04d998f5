"""Frozen weights: the same product whatever order they are held in."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from bertlora.model.engine.frozen import FrozenWeight, Reordered, frozen_product

SHAPES = [(5, 7), (64, 32), (33, 100), (384, 384)]
reordered = pytest.mark.skipif(
    not Reordered.serves(torch.zeros(8, 8, dtype=torch.bfloat16)), reason="oneDNN's bf16 is not on this machine"
)


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(dtype)


def assert_near(found: Tensor, expected: Tensor, within: float) -> None:
    assert found.shape == expected.shape
    assert float((found.double() - expected).norm()) <= within * float(expected.norm())


def check(frozen: FrozenWeight, weight: Tensor, dtype: torch.dtype, within: float) -> None:
    """Fails unless product and transposed are those of the plain weight in float64, for one row and for many."""
    bias, exact = drawn(len(weight), dtype=dtype), weight.double()
    for rows in (1, 3, 40):
        x, g = drawn(rows, weight.shape[1], dtype=dtype), drawn(rows, weight.shape[0], dtype=dtype)
        for shift in (bias, None):
            expected = linear(x.double(), exact, None if shift is None else shift.double())
            found = frozen.product(x, shift)
            assert found.dtype == dtype
            assert_near(found, expected, within)
        transposed = frozen.transposed(g)
        assert transposed.dtype == dtype
        assert_near(transposed, g.double() @ exact, within)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 5e-3)])
def test_frozen_is_the_plain_product(dtype: torch.dtype, within: float, shape: tuple[int, int]) -> None:
    weight = drawn(*shape, dtype=dtype)
    check(FrozenWeight(weight), weight, dtype, within)


def test_frozen_takes_the_type_of_its_input() -> None:
    weight, bias = drawn(6, 4), drawn(6)
    rough = FrozenWeight(weight).product(drawn(3, 4, dtype=torch.bfloat16), bias)
    assert rough.dtype == torch.bfloat16
    assert FrozenWeight(weight).transposed(drawn(3, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16


@reordered
@pytest.mark.parametrize("shape", SHAPES)
def test_reordered_is_the_plain_product(shape: tuple[int, int]) -> None:
    weight = drawn(*shape, dtype=torch.bfloat16)
    kept = weight.clone()
    check(Reordered(weight, training=True), weight, torch.bfloat16, 5e-3)
    assert torch.equal(weight, kept)


@reordered
def test_reordered_for_prediction_has_no_transposed() -> None:
    frozen = Reordered(drawn(8, 4, dtype=torch.bfloat16), training=False)
    assert frozen.product(drawn(2, 4, dtype=torch.bfloat16), None).shape == (2, 8)
    with pytest.raises(AssertionError, match="made without training"):
        frozen.transposed(drawn(2, 8, dtype=torch.bfloat16))


def test_reordered_serves_only_bf16_on_a_cpu() -> None:
    assert not Reordered.serves(drawn(8, 8))
    assert not Reordered.serves(torch.empty(8, 8, dtype=torch.bfloat16, device="meta"))


@pytest.mark.parametrize("shape", [(7,), (4, 7), (2, 3, 7)])
@pytest.mark.parametrize("biased", [False, True])
def test_gradients_are_those_of_the_formula(biased: bool, shape: tuple[int, ...]) -> None:
    weight = drawn(5, 7, dtype=torch.float64)
    bias = drawn(5, dtype=torch.float64) if biased else None
    x = drawn(*shape, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: frozen_product(x, FrozenWeight(weight), bias), (x,))
    assert torch.allclose(frozen_product(x, FrozenWeight(weight), bias), linear(x, weight, bias))


@reordered
def test_gradients_in_bf16_are_near_float64() -> None:
    weight, bias = drawn(24, 16, dtype=torch.bfloat16), drawn(24, dtype=torch.bfloat16)
    x = drawn(2, 9, 16, dtype=torch.bfloat16).requires_grad_()
    weights = drawn(2, 9, 24, dtype=torch.bfloat16)
    y = frozen_product(x, Reordered(weight, training=True), bias)
    (y * weights).sum().backward()
    assert x.grad is not None
    assert_near(y.detach(), linear(x.detach().double(), weight.double(), bias.double()), 5e-3)
    assert_near(x.grad, weights.double() @ weight.double(), 5e-3)


def test_only_the_input_learns_and_nothing_is_kept_for_it() -> None:
    weight, bias = drawn(5, 7).requires_grad_(), drawn(5).requires_grad_()
    x = drawn(4, 7).requires_grad_()
    y = frozen_product(x, FrozenWeight(weight), bias)
    assert y.grad_fn is not None
    node = y.grad_fn.next_functions[0][0]  # below the view
    assert node is not None
    assert node.name() == "FrozenProductBackward"
    assert not node.saved_tensors  # type: ignore[attr-defined]
    y.sum().backward()
    assert x.grad is not None
    assert weight.grad is None
    assert bias.grad is None
