"""Attention for first tokens without keys and values, against attention with them, in value and gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from torch import Tensor, nn

from bertlora.model.engine.attention import attend
from bertlora.model.engine.first_token import as_matrix, attend_without_keys
from bertlora.model.engine.lora_linear import LoraLinear
from bertlora.model.engine.packing import Packing

CPU = torch.device("cpu")
HEADS, D, WIDTH = 2, 4, 6
LENGTHS = st.lists(st.one_of(st.integers(1, 64), st.integers(1, 200)), min_size=1, max_size=20).map(
    lambda lengths: tuple(sorted(lengths, reverse=True))
)


def with_keys(
    q: Tensor, x: Tensor, key: Tensor, value: Tensor, key_bias: Tensor, bias: Tensor, packing: Packing
) -> Tensor:
    """Returns the same as `attend_without_keys`, from keys and values that are made."""
    k, v = x @ key.T + key_bias, x @ value.T + bias
    return attend(q, k.unflatten(-1, (HEADS, D)), v.unflatten(-1, (HEADS, D)), packing, 0.5).flatten(1)


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(0, 99))
def test_equals_attention_with_keys_and_values_made(lengths: tuple[int, ...], seed: int) -> None:
    packing = Packing(lengths, CPU)
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float32)

    q, x = drawn(len(packing), HEADS, D), drawn(packing.row, WIDTH)
    weights = [drawn(HEADS * D, WIDTH) for _ in range(2)]
    key_bias, bias, given_back = drawn(HEADS * D), drawn(HEADS * D), drawn(len(packing), HEADS * D)
    found, expected = ([t.clone().requires_grad_() for t in (q, x, *weights, bias)] for _ in range(2))
    ours = attend_without_keys(*found, packing, 0.5)  # type: ignore[call-arg, arg-type]
    theirs = with_keys(*expected[:4], key_bias, expected[4], packing)  # type: ignore[arg-type]
    assert torch.allclose(ours, theirs, atol=2e-5)
    (ours * given_back).sum().backward()
    (theirs * given_back).sum().backward()
    for one, other in zip(found, expected, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert float((one.grad - other.grad).norm()) <= 2e-5 * (1 + float(other.grad.norm()))


def adapted(dropout: float) -> LoraLinear:
    """Returns a LoRA layer whose update is not 0."""
    config = LoraConfig(r=2, lora_alpha=4, lora_dropout=dropout)
    layer = LoraLinear(nn.Linear(WIDTH, 8), "default", config=config, r=2, lora_alpha=4, lora_dropout=dropout)
    nn.init.normal_(layer.lora_B["default"].weight)
    return layer


def test_the_matrix_of_a_layer_has_its_update_in_it() -> None:
    layer, x = adapted(0.1).eval(), torch.randn(5, WIDTH)
    layer.base_layer.requires_grad_(False)
    found = as_matrix(layer)
    assert found is not None
    weight, bias = found
    assert bias is layer.base_layer.bias
    assert torch.allclose(x @ weight.T + bias, layer(x), atol=1e-6)


@pytest.mark.parametrize("case", ["dropout", "a bias that learns", "another layer"])
def test_what_is_more_than_a_matrix_is_recognised(case: str) -> None:
    layer: nn.Module = adapted(0.1 if case == "dropout" else 0.0).train()
    if case != "a bias that learns":
        layer.base_layer.requires_grad_(False)
    assert as_matrix(nn.Identity() if case == "another layer" else layer) is None
