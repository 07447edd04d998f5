"""The LoRA linear and the whole adapted model against PEFT's own, in value and gradient."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import (
    EVERY,
    LABELS,
    PAIRS,
    TEXTS,
    adapted_of,
    logits_of,
    plain_classifier,
    plain_peft,
    randomise,
    tiny_recipe,
)
from peft import LoraConfig
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bertlora.errors import InputError
from bertlora.model.adapted import Adapted
from bertlora.model.base import quiet
from bertlora.model.build import lora_parameters
from bertlora.model.engine.changes import dropout_mask, takes_token_types
from bertlora.model.engine.frozen import FrozenWeight
from bertlora.model.engine.lora_linear import LoraLinear, lora_product
from bertlora.model.engine.padding import padded
from bertlora.model.state import trained_state

Tiny = Callable[[str], Path]
D_IN, D_OUT, R = 7, 5, 3


def layers(kind: Any, **keys: Any) -> Any:
    """Returns PEFT's layer or ours around the same linear layer, in float64, with the same random A and B."""
    torch.manual_seed(0)
    config = LoraConfig(r=R, lora_alpha=6, **keys)
    layer = kind(nn.Linear(D_IN, D_OUT), adapter_name="default", config=config, r=R, lora_alpha=6).double()
    torch.manual_seed(1)
    with torch.no_grad():
        for name in ("lora_A", "lora_B"):
            nn.init.normal_(getattr(layer, name)["default"].weight)
    layer.base_layer.weight.requires_grad_(False)
    return layer


def passed(layer: Any, x: Tensor) -> dict[str, Tensor]:
    """Returns output and gradients of a weighted sum of it."""
    x = x.clone().requires_grad_()
    y = layer(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)
    (y * weights).sum().backward()
    found = {"y": y.detach(), "x": x.grad, "bias": layer.base_layer.bias.grad}
    return found | {name: getattr(layer, name)["default"].weight.grad for name in ("lora_A", "lora_B")}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], within: float) -> None:
    """Each tensor differs by less than `within` of its own size (or of a thousandth of the largest one's).

    The bias of attention's keys changes no score difference: its gradient is 0, and only rounding is compared.
    """
    assert found.keys() == expected.keys()
    largest = max(float(value.norm()) for value in expected.values())
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        if name.endswith(("key.bias", "k_lin.bias", "attn.k.bias")):
            assert max(float(found[name].norm()), float(value.norm())) <= 1e-7
            continue
        difference = float((found[name] - value).norm())
        assert difference <= within * max(float(value.norm()), 1e-3 * largest), (name, difference, float(value.norm()))


@pytest.mark.parametrize("shape", [(D_IN,), (4, D_IN), (2, 3, D_IN)])
@pytest.mark.parametrize("rslora", [False, True])
def test_linear_equals_pefts(shape: tuple[int, ...], rslora: bool) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    ours, theirs = layers(LoraLinear, use_rslora=rslora), layers(PeftLinear, use_rslora=rslora)
    assert_same(passed(ours, x), passed(theirs, x), 1e-12)
    assert ours.scaling["default"] == pytest.approx(6 / R**0.5 if rslora else 2)
    assert not torch.allclose(ours(x), ours.base_layer(x), atol=0.1)


def test_linear_equals_pefts_in_fp32() -> None:
    x = torch.randn(20, D_IN)
    assert_same(passed(layers(LoraLinear).float(), x), passed(layers(PeftLinear).float(), x), 1e-6)


class FixedMask(nn.Module):
    """Dropout with a given mask, for PEFT's layer."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask


def test_dropout_equals_pefts_under_the_same_mask() -> None:
    x = torch.randn(6, D_IN, dtype=torch.float64)
    ours, theirs = layers(LoraLinear, lora_dropout=0.4).train(), layers(PeftLinear, lora_dropout=0.4).train()
    torch.manual_seed(7)
    mask = dropout_mask(x, 0.4)
    assert 0 < int((mask == 0).sum()) < mask.numel()
    theirs.lora_dropout["default"] = FixedMask(mask)
    torch.manual_seed(7)
    assert_same(passed(ours, x), passed(theirs, x), 1e-12)


def test_dropout_is_off_outside_training_and_keeps_the_mean() -> None:
    x = torch.randn(1, D_IN, dtype=torch.float64)
    layer = layers(LoraLinear, lora_dropout=0.4)
    exact = layer.eval()(x)
    assert torch.equal(exact, layer(x))
    torch.manual_seed(0)
    drawn = layer.train()(x.expand(40_000, D_IN)).detach()
    assert float(drawn.std(dim=0).min()) > 0.1
    assert torch.allclose(drawn.mean(dim=0), exact[0], atol=0.1)


def test_an_adapter_for_each_text_is_refused(tiny: Tiny) -> None:
    """PEFT's layers take `adapter_names`; ours would run the active adapter for all texts."""
    model = adapted_of(tiny("bert")).model
    ids = torch.full((2, 5), 2000)
    with pytest.raises(InputError, match=r"adapter_names: .* one adapter for all texts"):
        model(input_ids=ids, adapter_names=["default", "__base__"])
    assert torch.isfinite(model(input_ids=ids).logits).all()
    layer = next(m for m in model.modules() if isinstance(m, LoraLinear))
    with pytest.raises(InputError, match=r"adapter_names: .* one adapter for all texts"):
        layer(torch.zeros(2, layer.in_features), adapter_names=["default", "__base__"])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_are_those_of_the_formula(masked: bool, bias: bool) -> None:
    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, requires_grad=True)

    x, a, b = drawn(2, 3, D_IN), drawn(R, D_IN), drawn(D_OUT, R)
    weight = drawn(D_OUT, D_IN).detach()
    mask = (torch.rand(2, 3, D_IN) > 0.3).double() / 0.7 if masked else None
    shift = drawn(D_OUT) if bias else None

    def product(x: Tensor, shift: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
        return lora_product(x, FrozenWeight(weight), shift, [(a, b, 0.7)], mask)

    assert torch.autograd.gradcheck(product, (x, shift, a, b))
    dropped = x if mask is None else x * mask
    expected = x @ weight.T + 0.7 * dropped @ a.T @ b.T + (0 if shift is None else shift)
    assert torch.allclose(product(x, shift, a, b), expected)


def test_no_gradient_is_made_that_none_asks_for() -> None:
    layer = layers(LoraLinear)
    layer.base_layer.bias.requires_grad_(False)
    layer(torch.randn(3, D_IN, dtype=torch.float64)).sum().backward()
    assert layer.base_layer.weight.grad is None
    assert layer.base_layer.bias.grad is None
    assert layer.lora_A["default"].weight.grad is not None


def test_autocast_computes_in_bf16_and_keeps_gradients_in_fp32() -> None:
    layer = layers(LoraLinear).float()
    x = torch.randn(50, D_IN)
    exact = passed(layer, x)
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert torch.allclose(y.float(), exact["y"], atol=0.3)
    y.float().sum().backward()
    assert layer.lora_A["default"].weight.grad.dtype == torch.float32
    assert layer.base_layer.bias.grad.dtype == torch.float32


def test_merge_and_unmerge() -> None:
    x = torch.randn(4, D_IN, dtype=torch.float64)
    layer = layers(LoraLinear)
    adapted, base = layer(x).detach(), layer.base_layer(x).detach()
    layer.merge()
    assert torch.allclose(layer.base_layer(x), adapted)
    assert torch.allclose(layer(x), adapted)
    layer.merge()
    assert torch.allclose(layer(x), adapted)
    layer.unmerge()
    assert torch.allclose(layer.base_layer(x), base)
    assert torch.allclose(layer(x), adapted)


def test_a_merged_layer_can_be_switched_off() -> None:
    x = torch.randn(4, D_IN, dtype=torch.float64)
    layer = layers(LoraLinear)
    base = layer.base_layer(x).detach()
    layer.merge()
    layer.enable_adapters(False)
    assert torch.allclose(layer(x), base)


def copy_parameters(source: nn.Module, to: nn.Module) -> None:
    """Copies every parameter by name; ours and PEFT's models must have the same ones."""
    values = dict(source.named_parameters())
    target = dict(to.named_parameters())
    assert values.keys() == target.keys()
    with torch.no_grad():
        for name, value in target.items():
            value.copy_(values[name])


def trainable(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def backward(model: Any, batch: dict[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
    """Returns loss and the gradients of what is trained."""
    model.zero_grad()
    loss = cross_entropy(model(**batch).logits, torch.tensor([0, 1, 2, 1]))
    loss.backward()
    return float(loss.detach()), {
        n: p.grad for n, p in model.named_parameters() if p.requires_grad and p.grad is not None
    }


@pytest.mark.parametrize("architecture", EVERY)
@pytest.mark.parametrize(
    "keys", [{}, {"bias": "all"}, {"bias": "lora_only"}, {"use_rslora": True}, {"use_dora": True}], ids=str
)
def test_whole_model_has_pefts_parameters_loss_and_gradients(
    keys: dict[str, Any], architecture: str, tiny: Tiny
) -> None:
    folder = tiny(architecture)
    own = {"variant": "rslora"} if "use_rslora" in keys else {"variant": "dora"} if "use_dora" in keys else keys
    adapted = adapted_of(folder, alpha=8, targets=["query", "value"], **own)
    theirs = plain_peft(architecture, folder, lora_alpha=8, **keys)
    assert not any(isinstance(m, LoraLinear) for m in theirs.modules())
    assert any(isinstance(m, LoraLinear) for m in adapted.model.modules()) != ("use_dora" in keys)
    assert trainable(adapted.model) == trainable(theirs)
    assert adapted.model.get_nb_trainable_parameters() == theirs.get_nb_trainable_parameters()
    copy_parameters(adapted.model, theirs)
    inputs = adapted.reader.read(TEXTS, PAIRS)
    batch = padded(inputs, range(4), adapted.reader.pad_id, takes_token_types(adapted.model))
    loss, gradients = backward(adapted.model, batch)
    expected_loss, expected = backward(theirs, batch)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert expected
    assert_same(gradients, expected, 1e-5)


@pytest.mark.parametrize("architecture", EVERY)
def test_merged_equals_unmerged_and_switched_off_equals_the_base(architecture: str, tiny: Tiny) -> None:
    adapted = adapted_of(tiny(architecture), targets=["all-linear"])
    with_adapter = logits_of(adapted, TEXTS)
    merged = adapted.merged()
    assert not any("lora" in name for name, _ in merged.named_modules())
    adapted_again = logits_of(adapted, TEXTS)
    assert np.array_equal(with_adapter, adapted_again)
    inputs = padded(adapted.reader.read(TEXTS), range(4), adapted.reader.pad_id, takes_types=False)
    with torch.inference_mode():
        assert np.allclose(merged.eval()(**inputs).logits.numpy(), with_adapter, atol=1e-4)
        expected = plain_classifier(tiny(architecture), seed=42)(**inputs).logits.numpy()
    base = logits_of(adapted, TEXTS, base=True)
    assert np.allclose(base, expected, atol=1e-5)
    assert np.abs(with_adapter - base).max() > 1e-2


@pytest.mark.parametrize(
    "keys", [{"bias": "all"}, {"bias": "lora_only"}, {"variant": "pissa"}, {"variant": "dora"}], ids=str
)
def test_without_the_adapter_it_is_the_base_whatever_was_trained(keys: dict[str, Any], tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"), **keys)
    trained = logits_of(adapted, TEXTS)
    batch = padded(adapted.reader.read(TEXTS), range(4), adapted.reader.pad_id, takes_types=False)
    with torch.inference_mode():
        plain = plain_classifier(tiny("bert"), seed=42)
        expected = plain(**batch).logits.numpy()
        first = plain.bert(**batch).last_hidden_state[:, 0].numpy()
    assert np.allclose(logits_of(adapted, TEXTS, base=True), expected, atol=1e-5)
    assert np.allclose(adapted.base_features(adapted.reader.read(TEXTS))[1][:, :32], first, atol=1e-5)
    assert np.array_equal(logits_of(adapted, TEXTS), trained)


def test_a_fresh_adapter_changes_nothing_and_a_moved_one_does(tiny: Tiny) -> None:
    adapted = Adapted.fresh(tiny_recipe(tiny("bert")), LABELS)
    assert np.array_equal(logits_of(adapted, TEXTS), logits_of(adapted, TEXTS, base=True))
    randomise(adapted.model)
    assert np.abs(logits_of(adapted, TEXTS) - logits_of(adapted, TEXTS, base=True)).max() > 1e-2


def test_a_step_leaves_the_frozen_weights_bit_identical(tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"), targets=["all-linear"])
    batch = padded(adapted.reader.read(TEXTS), range(4), adapted.reader.pad_id, takes_types=False)
    before = {n: p.detach().clone() for n, p in adapted.model.named_parameters()}
    optimiser = torch.optim.AdamW(adapted.model.parameters(), lr=0.1)
    _, gradients = backward(adapted.model, batch)
    optimiser.step()
    assert gradients.keys() == trained_state(adapted.model).keys()
    for name, value in adapted.model.named_parameters():
        assert torch.equal(value, before[name]) != (name in gradients), name


def test_rank_and_alpha_patterns(tiny: Tiny) -> None:
    adapted = adapted_of(
        tiny("bert"),
        targets=["query", "value", "ffn-in"],
        rank=4,
        alpha=8,
        rank_pattern={"value": 2, r".*layer\.1\..*value": 6},
        alpha_pattern={"ffn-in": 20},
    )
    found = {n: m for n, m in adapted.model.named_modules() if isinstance(m, LoraLinear)}
    shapes = {n.partition("encoder.layer.")[2]: (m.r["default"], m.scaling["default"]) for n, m in found.items()}
    assert shapes == {
        "0.attention.self.query": (4, 2.0),
        "0.attention.self.value": (2, 4.0),
        "0.intermediate.dense": (4, 5.0),
        "1.attention.self.query": (4, 2.0),
        "1.attention.self.value": (6, 8 / 6),
        "1.intermediate.dense": (4, 5.0),
    }
    assert lora_parameters(adapted.model) == 64 * (4 + 2 + 4 + 6) + 96 * (4 + 4)


def test_the_adapter_is_drawn_from_the_seed(tiny: Tiny) -> None:
    states = [trained_state(Adapted.fresh(tiny_recipe(tiny("bert"), seed=s), LABELS).model) for s in (1, 1, 2)]
    drawn = [
        name for name in states[0] if "lora_A" in name or name.endswith("classifier.modules_to_save.default.weight")
    ]
    assert len(drawn) == 5
    for name in drawn:
        assert torch.equal(states[0][name], states[1][name])
        assert not torch.equal(states[0][name], states[2][name])


def test_two_adapters_are_swapped(tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"))
    first = logits_of(adapted, TEXTS)
    config = adapted.model.peft_config["default"]
    with quiet():
        adapted.model.add_adapter("other", config)
    adapted.model.set_adapter("other")
    randomise(adapted.model, seed=5)
    assert np.abs(logits_of(adapted, TEXTS) - first).max() > 1e-2
    adapted.model.set_adapter("default")
    assert np.array_equal(logits_of(adapted, TEXTS), first)
