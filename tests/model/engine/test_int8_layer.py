"""A layer of BERT in 8 bits as one function: the same as module by module, whatever is adapted."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import INT8, adapted_of
from torch import Tensor, nn

from bertlora.model.adapted import Adapted
from bertlora.model.engine import changes, int8_layer
from bertlora.model.engine.changes import quick_dropout
from bertlora.model.engine.int8_layer import whole_layers
from bertlora.model.engine.kernels.layer import Spare
from bertlora.model.engine.layers import Route, encoder_layers, packed_layers
from bertlora.model.engine.lora_linear import LoraLinear
from bertlora.model.engine.packing import Packing
from bertlora.model.engine.weights import frozen

Tiny = Callable[[str], Path]
Result = tuple[Tensor, dict[str, Tensor]]

pytestmark = INT8
# Blocks and pieces of rows end near 57, so these texts cross them.
LENGTHS = [3, 90, 12, 61, 5, 64, 33, 70]
TARGETS = (["all-linear"], ["query"], ["query", "value"], ["attention-output"], ["ffn-in"], ["key", "ffn-out"])
ARCHITECTURES = ("bert", "distilbert", "roberta")
# By the last bits; and by 8 bits.
SPREAD, ROUNDED = 1e-4, 0.02


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def adapted_model(folder: Path, **recipe: Any) -> Adapted:
    """Returns a model in training whose updates are not 0."""
    adapted = adapted_of(folder, rank=5, **recipe)
    for name, parameter in adapted.model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(drawn(*parameter.shape, seed=len(name)) / 10)
    adapted.model.train()
    return adapted


@contextmanager
def prepared(adapted: Adapted, whole: bool) -> Iterator[nn.ModuleList]:
    """Inside, the layers run in 8 bits, whole or module by module."""
    runs = whole_layers(adapted.model, training=True) if whole else {}
    assert not whole or set(runs) == set(encoder_layers(adapted.model))
    with packed_layers(adapted.model, runs), frozen(adapted.model, True, True, runs):
        yield encoder_layers(adapted.model)


def passed(adapted: Adapted, layers: nn.ModuleList, number: int, x: Tensor, lengths: Sequence[int]) -> Result:
    """Returns the output of a layer for texts of these lengths, and the gradients of its input and its adapter."""
    given, packing = x.clone().requires_grad_(), Packing(tuple(lengths), x.device)
    adapted.model.zero_grad()
    y = layers[number](given[None], packing=packing, route=Route(begin=number, next=number)).flatten(0, 1)
    (y * drawn(len(x), x.shape[1], seed=7)[: len(y)]).sum().backward()
    found = {n: p.grad.clone() for n, p in adapted.model.named_parameters() if p.grad is not None}
    assert given.grad is not None
    return y.detach(), found | {"x": given.grad}


def far(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def width_of(adapted: Adapted) -> int:
    return int(adapted.model.config.hidden_size)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("targets", TARGETS, ids="+".join)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_whole_layer_is_its_modules(
    architecture: str, targets: list[str], number: int, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few rows, so that hardly any number lies where the last bit decides how it is rounded to 8 bits."""
    adapted = adapted_model(tiny(architecture), targets=targets, lora_dropout=0.5)
    masks = dict[tuple[int, int], Tensor]()

    def mask(layer: LoraLinear, x: Tensor) -> Tensor:
        rows, width = x.numel() // x.shape[-1], x.shape[-1]
        return masks.setdefault((rows, width), 2.0 * (drawn(rows, width, seed=width) > 0)).view(x.shape)

    monkeypatch.setattr(LoraLinear, "dropout_mask", mask)
    results = []
    for whole in (False, True):
        with prepared(adapted, whole) as layers:
            place = number * (len(layers) - 1)
            results.append(passed(adapted, layers, place, drawn(7, width_of(adapted)), [4, 3]))
    (expected, slopes), (y, found) = results
    assert y.shape == expected.shape == ((7, 2)[number], width_of(adapted))
    assert far(y, expected) < SPREAD
    assert found.keys() == slopes.keys()
    assert len(found) > 1
    # GELU's slope is kept in fp16, so some numbers of the gradients below it are rounded to 8 bits the other way.
    for name, slope in found.items():
        assert far(slope, slopes[name]) < ROUNDED, name


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_drops_where_its_modules_do(
    architecture: str, number: int, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted, drawn_masks = adapted_model(tiny(architecture), targets=["all-linear"], hidden_dropout=0.5), list[Tensor]()

    def mask(like: Tensor, p: float) -> Tensor:
        assert p == 0.5
        drawn_masks.append(2.0 * (drawn(*like.shape, seed=len(drawn_masks)) > 0))
        return drawn_masks[-1]

    for module in (changes, int8_layer):
        monkeypatch.setattr(module, "dropout_mask", mask)
    results, counts = [], []
    for whole in (False, True):
        drawn_masks.clear()
        with quick_dropout(adapted.model), prepared(adapted, whole) as layers:
            results.append(passed(adapted, layers, number * (len(layers) - 1), drawn(7, width_of(adapted)), [4, 3]))
        counts.append(len(drawn_masks))
    (expected, slopes), (y, found) = results
    assert counts == [1 if architecture == "distilbert" else 2] * 2
    assert far(y, expected) < SPREAD
    for name, slope in found.items():
        assert far(slope, slopes[name]) < ROUNDED, name


def test_layers_that_are_to_drop_nothing_do_not(tiny: Tiny) -> None:
    adapted = adapted_model(tiny("bert"), targets=["all-linear"], hidden_dropout=0.5)
    x, results = drawn(7, width_of(adapted)), []
    for still in ((), adapted.model.modules()):
        with quick_dropout(adapted.model, still), prepared(adapted, whole=True) as layers:
            results.append([passed(adapted, layers, 0, x, [4, 3])[0] for _ in range(2)])
    assert not torch.equal(*results[0])
    assert torch.equal(*results[1])


@pytest.mark.parametrize("number", [0, 1])
def test_no_text_depends_on_the_others_and_threads_change_nothing(number: int, tiny: Tiny) -> None:
    adapted = adapted_model(tiny("bert"), targets=["all-linear"])
    x, ends = drawn(sum(LENGTHS), width_of(adapted)), torch.tensor(LENGTHS).cumsum(0)
    threads, results = torch.get_num_threads(), list[Result]()
    try:
        with prepared(adapted, whole=True) as layers:
            place = number * (len(layers) - 1)
            for count in (1, 2, 5):
                torch.set_num_threads(count)
                results.append(passed(adapted, layers, place, x, LENGTHS))
            own = [
                layers[place](
                    x[None, end - n : end], packing=Packing((n,), x.device), route=Route(begin=place, next=place)
                )
                for end, n in zip(ends.tolist(), LENGTHS, strict=True)
            ]
    finally:
        torch.set_num_threads(threads)
    y, found = results[0]
    assert torch.equal(y, torch.cat([part.flatten(0, 1) for part in own]))
    for other, slopes in results[1:]:
        assert torch.equal(other, y)
        assert all(torch.equal(slopes[name], slope) for name, slope in found.items())


def test_a_pass_keeps_memory_only_until_its_backward_and_none_without_one(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, taken = list[Tensor](), list[Tensor]()
    take = Spare.take
    monkeypatch.setattr(Spare, "take", lambda own, numbers: (taken.append(take(own, numbers)), taken[-1])[1])
    monkeypatch.setattr(Spare, "give", lambda _, block: given.append(block))
    adapted = adapted_model(tiny("bert"), targets=["all-linear"], lora_dropout=0.0)
    x, packing = drawn(7, width_of(adapted))[None], Packing((4, 3), torch.device("cpu"))
    with prepared(adapted, whole=True) as layers:
        with torch.inference_mode():
            y = layers[0](x, packing=packing, route=Route())
        assert (len(taken), len(given)) == (1, 1)
        again = layers[0](x, packing=packing, route=Route())
        assert (len(taken), len(given)) == (2, 1)
        assert torch.equal(again, y)
        again.sum().backward(retain_graph=True)
        assert sorted(map(id, given)) == sorted(map(id, taken))
        with pytest.raises(AssertionError, match="the backward ran already"):
            again.sum().backward()


def test_spare_memory_is_the_smallest_block_that_is_large_enough() -> None:
    spare = Spare()
    small, large = spare.take(10), spare.take(30)
    for block in (large, small):
        spare.give(block)
    assert spare.take(20) is large
    assert spare.take(5) is small
    spare.give(small)
    assert spare.take(100).numel() == 100
    assert spare.take(5) is not small, "it made room for the larger one"


def test_gradients_of_many_rows_are_the_sums_of_each_texts(tiny: Tiny) -> None:
    adapted = adapted_model(tiny("bert"), targets=["all-linear"])
    x, end, sums = drawn(sum(LENGTHS), width_of(adapted)), 0, dict[str, Tensor]()
    with prepared(adapted, whole=True) as layers:
        _, found = passed(adapted, layers, 0, x, LENGTHS)
        for n in LENGTHS:
            # The weights of the outputs are those of the text's rows.
            own = x[end : end + n].clone().requires_grad_()
            adapted.model.zero_grad()
            y = layers[0](own[None], packing=Packing((n,), x.device), route=Route())[0]
            (y * drawn(len(x), x.shape[1], seed=7)[end : end + n]).sum().backward()
            for name, parameter in adapted.model.named_parameters():
                if parameter.grad is not None:
                    sums[name] = sums.get(name, torch.zeros(())) + parameter.grad
            end += n
    assert sums.keys() == found.keys() - {"x"}
    for name, slope in sums.items():
        assert far(found[name], slope) < 1e-5, name


def test_a_layer_that_is_trained_or_drops_otherwise_runs_module_by_module(tiny: Tiny) -> None:
    assert whole_layers(adapted_model(tiny("bert")).model, training=True)
    assert not whole_layers(adapted_model(tiny("mpnet")).model, training=True)
    assert not whole_layers(adapted_model(tiny("bert"), bias="all").model, training=True)
    assert not whole_layers(adapted_model(tiny("bert"), variant="dora").model, training=True)
    dropping = adapted_model(tiny("bert"), hidden_dropout=0.1).model
    assert whole_layers(dropping, training=True)
    for layer in encoder_layers(dropping):
        layer.attention.self.dropout.p = 0.1
    assert not whole_layers(dropping, training=True)
    assert whole_layers(dropping, training=False)
    other = adapted_model(tiny("bert"))
    other.model.base_model.model.bert.encoder.layer[0].intermediate.intermediate_act_fn = nn.ReLU()
    assert len(whole_layers(other.model, training=True)) == len(encoder_layers(other.model)) - 1
