"""Dropout: the statistics of a mask, drawn natively or by its gaps, and where in a model it acts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SWITCHES, TEXTS, adapted_of
from torch import Tensor, nn

from bertlora.data.inputs import Inputs
from bertlora.model.engine import changes
from bertlora.model.engine.changes import dropout_mask, quick_dropout
from bertlora.model.engine.execution import Execution, executing
from bertlora.model.engine.kernels import library
from bertlora.model.engine.layers import Route
from bertlora.model.engine.prefix import frozen_depth

FROZEN = ["bert", "deberta-v2", "distilbert", "electra", "mpnet", "roberta", *(["modernbert"] if SWITCHES else [])]
EACH = pytest.mark.parametrize("architecture", ["albert", *FROZEN])
Tiny = Callable[[str], Path]


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("p", [0.01, 0.1, 0.5])
def test_a_mask_drops_place_by_place_and_keeps_the_mean(
    p: float, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        monkeypatch.setattr(library, "library", lambda: None)
    torch.manual_seed(3)
    dropped = (dropout_mask(torch.zeros(1000, 384), p) == 0).double()
    # Five standard deviations, of the share and of the correlation between neighbours.
    assert abs(float(dropped.mean()) - p) < 5 * (p * (1 - p) / dropped.numel()) ** 0.5
    flat = dropped.flatten() - p
    assert abs(float((flat[1:] * flat[:-1]).mean()) / (p * (1 - p))) < 5 / dropped.numel() ** 0.5
    # As often at the end as at the beginning.
    assert abs(float(dropped[:100].mean() - dropped[-100:].mean())) < 5 * (2 * p * (1 - p) / 38_400) ** 0.5
    other = dropout_mask(torch.zeros(1000, 384), p)
    assert float(other.max()) == pytest.approx(1 / (1 - p))
    # Another mask drops other places, and so does another row.
    for one, two in ((dropped, (other == 0).double()), (dropped[:-1], dropped[1:])):
        assert abs(float(((one - p) * (two - p)).mean()) / (p * (1 - p))) < 5 / one.numel() ** 0.5


def test_any_number_of_threads_draws_the_same_mask_and_another_seed_another() -> None:
    threads, found = torch.get_num_threads(), []
    try:
        for count, seed in ((1, 5), (2, 5), (5, 5), (2, 6)):
            torch.set_num_threads(count)
            torch.manual_seed(seed)
            found.append(dropout_mask(torch.zeros(77, 99), 0.3))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], mask) for mask in found[1:3])
    assert not torch.equal(found[0], found[3])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_type_changes_no_place(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    mask = dropout_mask(torch.zeros(33, 5), 0.2)
    torch.manual_seed(0)
    other = dropout_mask(torch.zeros(33, 5, dtype=dtype), 0.2)
    assert other.dtype == dtype
    assert torch.equal(mask.to(torch.bfloat16), other.to(torch.bfloat16))


def test_inside_dropout_layers_drop_their_share_and_afterwards_are_torchs_own() -> None:
    model = nn.Sequential(nn.Dropout(0.2), nn.Dropout(0.0), nn.Sequential(nn.Dropout(0.5)))
    x = torch.ones(200, 384)
    with quick_dropout(model, still=model[2].modules()):
        torch.manual_seed(1)
        y = model(x)
        assert torch.equal(model.eval()(x), x)
    assert set(y.unique().tolist()) == {0.0, 1.25}
    assert float(y.mean()) == pytest.approx(1, abs=0.01)
    assert not any("forward" in vars(m) for m in model.modules())


def test_the_gradient_goes_where_nothing_was_dropped() -> None:
    x = torch.ones(50, 50, requires_grad=True)
    with quick_dropout(layer := nn.Dropout(0.4)):
        y = layer(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


@contextmanager
def training(folder: Path, pack: bool = True, **keys: Any) -> Iterator[tuple[Execution, Inputs]]:
    """Gives an execution in training mode, of an adapter drawn at random."""
    adapted = adapted_of(folder, targets=["all-linear"], **keys)
    adapted.model.train()
    with executing(adapted.model, adapted.reader.pad_id, "fp32", training=True, pack=pack) as execution:
        assert execution.packs == pack
        yield execution, adapted.reader.read(TEXTS)


def scores(execution: Execution, inputs: Inputs, **keys: Any) -> Tensor:
    return execution.logits(inputs, range(len(inputs)), **keys).detach()


@EACH
def test_packed_rows_drop_where_padded_ones_do(architecture: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def scaled(packed: bool, rate: float) -> Tensor:
        with training(tiny(architecture), packed, hidden_dropout=rate) as (execution, inputs):
            return scores(execution, inputs)

    # In place of a mask, one factor everywhere: what is drawn for other shapes could not be compared.
    monkeypatch.setattr(changes, "dropout_mask", lambda like, p: torch.full_like(like, 0.7))
    assert torch.allclose(scaled(True, 0.3), scaled(False, 0.3), atol=1e-5)
    assert not torch.allclose(scaled(True, 0.3), scaled(True, 0.0), atol=1e-2)


@EACH
def test_evaluation_drops_nothing(architecture: str, tiny: Tiny) -> None:
    with training(tiny(architecture), hidden_dropout=0.3) as (execution, inputs):
        assert not torch.allclose(scores(execution, inputs), scores(execution, inputs))
        execution.model.eval()
        assert torch.equal(scores(execution, inputs), scores(execution, inputs))


@pytest.mark.parametrize("architecture", FROZEN)
def test_frozen_layers_drop_nothing(architecture: str, tiny: Tiny) -> None:
    """So that texts whose frozen layers run once and texts for which they always run learn the same recipe."""
    with training(tiny(architecture), hidden_dropout=0.3, adapt_last_layers=1) as (execution, inputs):
        depth = frozen_depth(execution.model)
        assert depth > 0
        below = [Route(end=depth, keep=True) for _ in range(2)]
        for route in below:
            scores(execution, inputs, route=route)
        kept, again = (route.hidden for route in below)
        assert kept is not None
        assert again is not None
        assert torch.equal(kept, again)
        assert not torch.allclose(scores(execution, inputs), scores(execution, inputs))
