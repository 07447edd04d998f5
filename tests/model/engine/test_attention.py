"""Attention over packed rows against a plain softmax text by text, in value and gradient."""

import inspect
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bertlora.model.engine import blocks as blocks_module
from bertlora.model.engine.attention import attend, packed_attention
from bertlora.model.engine.gpu_attention import serves_windows, varlen_attn
from bertlora.model.engine.kernels import library
from bertlora.model.engine.packing import Packing

CPU = torch.device("cpu")
HEADS, D = 2, 4
MOST_TOKENS = 1500
Triple = tuple[Tensor, Tensor, Tensor]
# Long texts in buckets of their own, short ones in shared matrices, padding and filler.
MIXED = (200, 199, 130, 72, 65, 64, 40, 30, 12, 5, 1, 1)


@pytest.fixture(scope="module", params=["the native kernel", "torch's operators"], autouse=True)
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Takes each of the two ways, if this machine has both."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch's operators":
            patch.setattr(library, "library", lambda: None)
        elif library.in_use() == "none":
            pytest.skip("no native kernels")
        yield request.param


def as_row(lengths: list[int]) -> tuple[int, ...]:
    """Returns the lengths longest first, as many as stay fast."""
    kept = [length for i, length in enumerate(lengths) if sum(lengths[: i + 1]) <= MOST_TOKENS]
    return tuple(sorted(kept, reverse=True))


LENGTHS = st.lists(st.one_of(st.integers(1, 64), st.integers(1, 600)), min_size=1, max_size=14).map(as_row)
WINDOWS = st.one_of(st.none(), st.integers(1, 100))


def drawn(packing: Packing, one_query: bool, seed: int = 0, spread: float = 1.0) -> Triple:
    """Returns random q, k and v in float64, filler included, that float32 can hold."""
    generator = torch.Generator().manual_seed(seed)
    rows = (len(packing) if one_query else packing.row, packing.row, packing.row)
    q, k, v = (torch.randn(n, HEADS, D, generator=generator).double() for n in rows)
    return q * spread, k, v


def drawn_bias(packing: Packing) -> Tensor:
    """Returns a random bias by distance, (HEADS, 2 N - 1), in float64, that float32 can hold; N is one too many."""
    distances = 2 * max(packing.lengths) + 1
    return torch.randn(HEADS, distances, generator=torch.Generator().manual_seed(2)).double()


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    packing: Packing,
    scale: float,
    window: int | None,
    bias: Tensor | None = None,
) -> Tensor:
    """Returns each text's softmax attention over itself, 0 at filler."""
    out, first = [], 0
    for text, length in enumerate(packing.lengths):
        own = slice(first, first + length)
        asking = q[own] if len(q) == len(k) else q[text : text + 1]
        scores = torch.einsum("qhd,khd->hqk", asking, k[own]) * scale
        distance = torch.arange(length) - torch.arange(len(asking))[:, None]
        if bias is not None:
            scores = scores + bias[:, distance + bias.shape[1] // 2]
        if window is not None:
            scores = scores.masked_fill(distance.abs() >= window, -torch.inf)
        out.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[own]))
        first += length
    filler = torch.zeros(len(q) - sum(map(len, out)), *q.shape[1:], dtype=q.dtype)
    return torch.cat([*out, filler])


def passed(function: object, inputs: Triple, *args: object, seed: int = 1) -> dict[str, Tensor]:
    """Returns the output, and the gradients of a weighted sum of all of it, filler too."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    y = function(*leaves, *args)  # type: ignore[operator]
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)).to(y)
    (y * weights).sum().backward()
    grads = [x.grad for x in leaves]
    return {"out": y.detach()} | dict(zip(("q", "k", "v"), grads, strict=True))


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor], within: float) -> None:
    """Each tensor differs by less than `within` of its own size (or of a twentieth of the largest one's).

    A text of one token gives q and k only a gradient of rounding errors: the difference of two equal numbers of the
    size of v's gradient. A twentieth of that size makes of 1e-5 four units of fp32's rounding.
    """
    assert found.keys() == expected.keys()
    largest = max(float(value.norm()) for value in expected.values())
    for name, value in expected.items():
        assert bool(found[name].isfinite().all()), name
        difference = float((found[name].double() - value).norm())
        assert difference <= within * max(float(value.norm()), 0.05 * largest), (name, difference, float(value.norm()))


def check(
    packing: Packing,
    inputs: Triple,
    window: int | None,
    dtype: torch.dtype,
    within: float,
    bias: Tensor | None = None,
) -> None:
    """Fails unless `attend` in `dtype` is near the reference in float64 on the same numbers."""
    rounded = tuple(x.to(dtype) for x in inputs)
    exact = tuple(x.double() for x in rounded)
    q, k, v = rounded
    ours = passed(attend, (q, k, v), packing, D**-0.5, window, None if bias is None else bias.float())
    assert all(value.dtype == dtype for value in ours.values())
    q, k, v = exact
    assert_near(ours, passed(reference, (q, k, v), packing, D**-0.5, window, bias), within)


@settings(max_examples=30, deadline=None)
@given(lengths=LENGTHS, window=WINDOWS, one_query=st.booleans(), biased=st.booleans(), seed=st.integers(0, 99))
def test_equals_a_softmax_text_by_text(
    lengths: tuple[int, ...], window: int | None, one_query: bool, biased: bool, seed: int
) -> None:
    # In any order, and longest first.
    for order in (lengths, lengths[::-1], lengths[::2] + lengths[1::2]):
        packing = Packing(order, CPU)
        bias = drawn_bias(packing) if biased else None
        check(packing, drawn(packing, one_query, seed), window, torch.float32, 1e-5, bias)


@pytest.mark.parametrize("window", [None, 1, 7, 70])
@pytest.mark.parametrize("one_query", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_is_exact_in_float64_except_for_a_sum_in_float32(biased: bool, one_query: bool, window: int | None) -> None:
    packing = Packing(MIXED, CPU)
    inputs, bias = drawn(packing, one_query), drawn_bias(packing) if biased else None
    ours = passed(attend, inputs, packing, 0.7, window, bias)
    theirs = passed(reference, inputs, packing, 0.7, window, bias)
    assert_near({"out": ours["out"]}, {"out": theirs["out"]}, 1e-12)
    assert_near({"v": ours["v"]}, {"v": theirs["v"]}, 1e-12)
    assert_near(ours, theirs, 1e-5)


@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("one_query", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_bf16_is_near_float64(biased: bool, one_query: bool, window: int | None) -> None:
    packing = Packing(MIXED, CPU)
    bias = drawn_bias(packing) if biased else None
    check(packing, drawn(packing, one_query), window, torch.bfloat16, 1e-2, bias)


@pytest.mark.parametrize("asked", ["q", "k", "v", "qk", "kv", "qv"])
@pytest.mark.parametrize("one_query", [False, True])
def test_gradients_are_computed_only_for_what_requires_them(one_query: bool, asked: str) -> None:
    packing = Packing(MIXED, CPU)
    inputs = drawn(packing, one_query)
    whole = passed(attend, inputs, packing, 0.5, 20)
    leaves = {name: x.clone().requires_grad_(name in asked) for name, x in zip("qkv", inputs, strict=True)}
    y = attend(leaves["q"], leaves["k"], leaves["v"], packing, 0.5, 20)
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)).sum().backward()
    for name, leaf in leaves.items():
        assert (leaf.grad is None) == (name not in asked)
        assert leaf.grad is None or torch.equal(leaf.grad, whole[name])


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("one_query", [False, True])
@pytest.mark.parametrize("lengths", [(70, 3), (130, 125), (9, 9, 2), (67,)], ids=str)
def test_filler_gives_and_gets_nothing(lengths: tuple[int, ...], one_query: bool, window: int | None) -> None:
    packing = Packing(lengths, CPU)
    assert packing.row > packing.tokens
    inputs = tuple(x.float() for x in drawn(packing, one_query))
    q, k, v = inputs
    found = passed(attend, (q, k, v), packing, 0.5, window)
    changed = tuple(x.clone() for x in inputs)
    for x in changed:
        if len(x) == packing.row:
            x[packing.tokens :] = 1e4
    q, k, v = changed
    other = passed(attend, (q, k, v), packing, 0.5, window)
    for name, value in found.items():
        assert torch.equal(value, other[name]), name
        assert bool(value[: len(packing)].any()), name
        if len(value) == packing.row:
            assert not value[packing.tokens :].any(), name


@pytest.mark.parametrize("window", [None, 30])
@pytest.mark.parametrize("one_query", [False, True])
@pytest.mark.parametrize("lengths", [(200, 190), (200, 72, 65, 64, 30, 30, 1), (600,)], ids=str)
def test_very_large_scores_stay_finite_and_exact(lengths: tuple[int, ...], one_query: bool, window: int | None) -> None:
    packing = Packing(lengths, CPU)
    q, k, v = drawn(packing, one_query, spread=40.0)
    scores = torch.einsum("qhd,khd->hqk", q[:1], k[: lengths[0]]) * D**-0.5
    assert float(scores.abs().max()) > 100
    factor = 300 / float(torch.einsum("qhd,khd->hqk", q, k).abs().max() * D**-0.5)
    # float32 has steps of 2e-5 at scores of 300, and an exponential is no more exact than that. Gradients are small
    # differences of exponentials.
    check(packing, (q * factor, k, v), window, torch.float32, 1e-3)


@pytest.mark.parametrize("ahead", [20.0, 60.0, 80.0, 86.0, 88.0, 88.5, 89.0, 200.0])
@pytest.mark.parametrize("place", [0, 1])
def test_one_key_may_be_ahead_of_all_others(place: int, ahead: float) -> None:
    # Of the keys every eighth is asked for the maximum first: place 0 is among them, place 1 is not.
    packing = Packing((72,), CPU)
    q, k, v = drawn(packing, one_query=False)
    q, k = torch.ones_like(q), k * 0.1
    k[place] = ahead / D
    v[place] = 10.0
    rounded = tuple(x.float() for x in (q, k, v))
    generator = torch.Generator().manual_seed(0)
    # Of the size of a loss that is a mean over many texts.
    weights = 1e-6 * torch.randn(packing.row, HEADS, D, generator=generator)

    def gradients(function: object, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        y = function(*leaves, packing, 1.0, None)  # type: ignore[operator]
        (y * weights.to(y)).sum().backward()
        return {"out": y.detach()} | {name: x.grad * 1e6 for name, x in zip("qkv", leaves, strict=True)}

    found, expected = gradients(attend, rounded), gradients(reference, tuple(x.double() for x in rounded))
    for names, within in ((("out", "v"), 1e-5), (("out", "q", "k", "v"), 1e-3)):  # q's and k's all but cancel out
        assert_near({name: found[name] for name in names}, {name: expected[name] for name in names}, within)


@pytest.mark.parametrize("most", [1, 5_000, 40_000])
@pytest.mark.parametrize("one_query", [False, True])
def test_heads_taken_in_parts_give_the_same(one_query: bool, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    packing = Packing((90, 89, 70, 30, 20, 5), CPU)
    inputs, bias = drawn(packing, one_query), drawn_bias(packing)
    blocks = len(list(blocks_module.blocks_of(packing.buckets, *inputs[:2], 11, bias)))
    whole = passed(attend, inputs, packing, 0.5, 11, bias)
    monkeypatch.setattr(blocks_module, "BLOCK_SCORES", most)
    parts = len(list(blocks_module.blocks_of(packing.buckets, *inputs[:2], 11, bias)))
    assert parts == HEADS * blocks if most == 1 else (parts > blocks) == (most == 5_000 and not one_query)
    in_parts = passed(attend, inputs, packing, 0.5, 11, bias)
    for name, value in whole.items():
        assert torch.allclose(in_parts[name], value, rtol=0, atol=1e-12), name


def test_what_transformers_calls_is_attend_with_axes_swapped() -> None:
    packing = Packing((70, 20, 3), CPU)
    q, k, v = drawn(packing, one_query=False)
    swapped = (x.transpose(0, 1)[None] for x in (q, k, v))
    out, weights = packed_attention(torch.nn.Module(), *swapped, None, packing=packing, sliding_window=6, dropout=0.5)
    assert weights is None
    assert torch.equal(out[0], attend(q, k, v, packing, D**-0.5, 6))
    swapped = (x.transpose(0, 1)[None] for x in (q, k, v))
    out, _ = packed_attention(torch.nn.Module(), *swapped, None, scaling=0.3, packing=packing)
    assert torch.equal(out[0], attend(q, k, v, packing, 0.3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("one_query", [False, True])
def test_a_gpu_gives_what_the_cpu_gives(one_query: bool, window: int | None) -> None:
    gpu = torch.device("cuda")
    generator = torch.Generator().manual_seed(0)
    on_cpu, on_gpu = Packing(MIXED, CPU), Packing(MIXED, gpu)
    rows = (len(on_cpu) if one_query else on_cpu.row, on_cpu.row, on_cpu.row)
    # Kernels want heads of at least 8 numbers. A GPU's row has no filler.
    q, k, v = (torch.randn(n, HEADS, 32, generator=generator).bfloat16() for n in rows)
    expected = passed(attend, (q, k, v), on_cpu, 32**-0.5, window)
    cut = len(q) if one_query else on_gpu.row
    moved = (q[:cut].to(gpu), k[: on_gpu.row].to(gpu), v[: on_gpu.row].to(gpu))
    leaves = [x.clone().requires_grad_() for x in moved]
    y = attend(*leaves, on_gpu, 32**-0.5, window)
    weights = torch.randn(expected["out"].shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    (y * weights[:cut].to(gpu)).sum().backward()
    found = {"out": y.detach()} | {name: x.grad for name, x in zip("qkv", leaves, strict=True)}
    for name, value in found.items():
        assert value.dtype == torch.bfloat16
        exact = expected[name][: len(value)].double()
        assert float((value.cpu().double() - exact).norm()) <= 2e-2 * float(exact.norm()), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_bits_each_time_for_long_texts_too() -> None:
    gpu, lengths = torch.device("cuda"), (600, 513, 130, 900)
    packing, shape = Packing(lengths, gpu), (sum(lengths), 4, 64)
    draws = torch.Generator(gpu).manual_seed(0)
    q, k, v, g = (torch.randn(shape, device=gpu, generator=draws).bfloat16() for _ in range(4))

    def gradients() -> tuple[Tensor, ...]:
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        return torch.autograd.grad(attend(*inputs, packing, 0.125), inputs, g)

    first = gradients()
    for _ in range(9):
        assert all(map(torch.equal, gradients(), first))
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_older_torchs_variable_length_attention_is_not_used() -> None:
    """torch 2.10's takes neither a scale nor a window; torch before has none."""

    def of_torch_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):  # type: ignore[no-untyped-def]
        raise AssertionError

    assert not serves_windows(None)
    assert not serves_windows(of_torch_2_10)
    newest = pytest.importorskip("torch.nn.attention.varlen").varlen_attn
    assert serves_windows(newest) == (newest is varlen_attn and "window_size" in inspect.signature(newest).parameters)
