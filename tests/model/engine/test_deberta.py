"""Attention by distance over packed rows, against a softmax text by text; whole models are in test_packed_models."""

import pytest
import torch
from torch import Tensor

from bertlora.model.engine import blocks as blocks_module
from bertlora.model.engine.deberta import Disentangled
from bertlora.model.engine.packing import Packing

HEADS, D, SCALE = 5, 8, 0.4
# One band and several, with and without padding; short texts that share matrices; in no order.
ROWS = [(3, 150, 64, 65, 7, 150, 200, 2, 16), (128, 128), (9, 30, 2), (5,)]


def reference(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, queries: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Returns the attention of each text, with K and Q looked up for each pair of its tokens; 0 at the filler."""
    outs, middle = [], len(keys) // 2
    for own_q, own_k, own_v in zip(*(torch.split(x[: sum(lengths)], list(lengths)) for x in (q, k, v)), strict=True):
        places = torch.arange(len(own_q))
        distances = places[None, :] - places[:, None]  # from query to key
        scores = torch.einsum("ihd,jhd->hij", own_q, own_k)
        scores = scores + torch.einsum("ihd,ijhd->hij", own_q, keys[middle + distances])
        scores = scores + torch.einsum("jhd,ijhd->hij", own_k, queries[middle - distances])
        outs.append(torch.einsum("hij,jhd->ihd", (SCALE * scores).softmax(-1), own_v))
    return torch.cat([*outs, q.new_zeros(len(q) - sum(lengths), *q.shape[1:])])


@pytest.mark.parametrize("most", [1 << 22, 1])
@pytest.mark.parametrize("lengths", ROWS, ids=str)
def test_equals_a_softmax_text_by_text(lengths: tuple[int, ...], most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "BLOCK_SCORES", most)  # all heads in a block, or one
    packing = Packing(lengths, torch.device("cpu"))
    # Further than any text reaches.
    distances = 2 * max(bucket.longest for bucket in packing.buckets) + 5
    draw = torch.Generator().manual_seed(0)
    rows = (packing.row,) * 3 + (distances,) * 2
    leaves = [torch.randn(n, HEADS, D, generator=draw, dtype=torch.float64).requires_grad_() for n in rows]
    g = torch.randn(packing.row, HEADS, D, generator=draw, dtype=torch.float64)
    q, k, v, keys, queries = leaves
    expected = reference(q, k, v, keys, queries, lengths)
    found: Tensor = Disentangled.apply(*leaves, packing, SCALE)  # type: ignore[no-untyped-call]
    assert torch.allclose(found, expected, atol=1e-10)
    for ours, theirs in zip(
        torch.autograd.grad(found, leaves, g), torch.autograd.grad(expected, leaves, g), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-10)
        assert float(theirs.abs().max()) > 1e-2
