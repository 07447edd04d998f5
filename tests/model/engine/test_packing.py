"""Packed rows: every token has one place, every text one matrix, and sizes are few."""

from itertools import pairwise
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bertlora.model.engine.blocks import Places
from bertlora.model.engine.packing import (
    BUCKET_OVERHEAD,
    FULL_ROW,
    FULL_ROW_FINENESS,
    ROOMS,
    ROW_FINENESS,
    ROW_LEAST,
    SHORT,
    TEXT_FINENESS,
    TEXT_LEAST,
    Packing,
    filled,
    rounded,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")
MANY = settings(max_examples=60, deadline=None)
# As many short texts as long ones: each have buckets of their own kind.
LENGTHS = st.lists(st.one_of(st.integers(1, SHORT), st.integers(1, 600)), min_size=1, max_size=40).map(
    lambda lengths: tuple(sorted(lengths, reverse=True))
)
SHORT_ALONE = st.lists(st.integers(1, SHORT), min_size=1, max_size=60).map(
    lambda lengths: sorted(lengths, reverse=True)
)


def check_places(places: Places, shape: tuple[int, int], first: int, lengths: list[int]) -> None:
    """Fails unless the rows of these texts, from `first` on, stand each in one place, each text unbroken."""
    count = sum(lengths)
    real = places.real.tolist()
    assert len(set(real)) == len(real) == count
    assert places.rows[places.real].tolist() == list(range(first, first + count))
    empty = torch.ones(shape[0] * shape[1], dtype=torch.bool)
    empty[places.real] = False
    assert bool((places.rows[empty] == first).all())
    assert torch.equal(places.idle.flatten(), empty)
    assert places.owners.shape == places.positions.shape == shape
    assert bool((places.owners.flatten()[empty] < 0).all())
    texts = [text for text, length in enumerate(lengths) for _ in range(length)]
    assert places.owners.flatten()[places.real].tolist() == texts
    assert places.positions.flatten()[places.real].tolist() == [i for length in lengths for i in range(length)]
    starts = [place - position for place, position in zip(real, places.positions.flatten()[real].tolist(), strict=True)]
    assert len(set(zip(texts, starts, strict=True))) == len(lengths)
    assert all(place // shape[1] == start // shape[1] for place, start in zip(real, starts, strict=True))


@MANY
@given(LENGTHS)
def test_buckets_cover_the_row_in_order(lengths: tuple[int, ...]) -> None:
    packing = Packing(lengths, CPU)
    texts = tokens = 0
    for bucket in packing.buckets:
        assert (bucket.texts.start, bucket.tokens.start) == (texts, tokens)
        assert bucket.texts.stop > texts
        texts, tokens = bucket.texts.stop, tokens + sum(lengths[bucket.texts])
        assert bucket.tokens.stop == tokens
    assert (texts, tokens) == (len(packing), packing.tokens) == (len(lengths), sum(lengths))


@MANY
@given(LENGTHS)
def test_every_token_has_exactly_one_place(lengths: tuple[int, ...]) -> None:
    packing = Packing(lengths, CPU)
    for bucket in packing.buckets:
        own, shape = list(lengths[bucket.texts]), (bucket.count, bucket.longest)
        if bucket.keys is None:
            assert own == [bucket.longest] * bucket.count
            assert bucket.asked is None
            continue
        check_places(bucket.keys, shape, bucket.tokens.start, own)
        if bucket.asked is None:
            assert bucket.count == len(own)
            continue
        assert bucket.longest == min(room for room in ROOMS if room >= own[0])
        asked = bucket.asked.owners.shape
        assert asked[0] == bucket.count
        check_places(bucket.asked, (asked[0], asked[1]), bucket.texts.start, [1] * len(own))
        # A text asks in the matrix in which it stands.
        for found, asking in zip(bucket.keys.owners.tolist(), bucket.asked.owners.tolist(), strict=True):
            assert set(asking) | {-1} == set(found) | {-1}


@MANY
@given(LENGTHS)
def test_long_texts_share_a_bucket_only_where_little_is_wasted(lengths: tuple[int, ...]) -> None:
    packing = Packing(lengths, CPU)
    for bucket in packing.buckets:
        own = lengths[bucket.texts]
        if own[0] > SHORT:
            assert own[-1] > SHORT
            assert sum(own[0] ** 2 - length**2 for length in own) <= BUCKET_OVERHEAD
            assert bucket.longest == rounded(own[0], CPU, TEXT_FINENESS, TEXT_LEAST)


@MANY
@given(SHORT_ALONE)
def test_short_texts_share_a_bucket_unless_smaller_matrices_save_more_than_they_cost(lengths: list[int]) -> None:
    for repeats in (1, 40):
        texts = sorted(lengths * repeats, reverse=True)
        buckets = Packing(tuple(texts), CPU).buckets
        for bucket, following in pairwise(buckets):
            assert following.longest < bucket.longest
            rest = texts[following.texts.start :]
            assert texts[following.texts.start - 1] > bucket.longest // 2 >= rest[0]
            assert sum(rest) * (bucket.longest // 2) > BUCKET_OVERHEAD


@MANY
@given(SHORT_ALONE, st.integers(SHORT, 2 * SHORT))
def test_filled_shares_every_text_out_once_and_keeps_to_the_room(lengths: list[int], room: int) -> None:
    matrices = filled(lengths, room)
    assert sorted(text for members in matrices for text in members) == list(range(len(lengths)))
    sums = [sum(lengths[text] for text in members) for members in matrices]
    assert max(sums) <= room
    # A matrix is left only when nothing that remains fits into it.
    for number, total in enumerate(sums[:-1]):
        assert total + min(lengths[text] for members in matrices[number + 1 :] for text in members) > room


def test_filled_by_hand() -> None:
    assert filled([60, 40, 30, 20, 4, 2], 64) == [[0, 5], [1, 4, 3], [2]]
    assert filled([64, 64], 64) == [[0], [1]]
    assert filled([1] * 5, 4) == [[0, 4, 3, 2], [1]]
    assert filled([], 64) == []


@pytest.mark.parametrize(("fineness", "least"), [(ROW_FINENESS, ROW_LEAST), (TEXT_FINENESS, TEXT_LEAST)])
def test_sizes_are_few_and_little_is_added(fineness: int, least: int) -> None:
    sizes = range(1, 8193)
    found = [rounded(size, CPU, fineness, least) for size in sizes]
    assert all(0 <= up - size <= max(least - 1, size / fineness) for size, up in zip(sizes, found, strict=True))
    assert all(rounded(size, CPU, fineness, least) == size for size in found)
    assert all(size % least == 0 for size in found)
    # Steps of the least size up to twice the fineness; then, for each doubling, as many steps as the fineness.
    even = 2 * fineness * least
    assert len(set(found)) <= 2 * fineness + fineness * (8192 // even).bit_length()


def test_a_gpu_needs_no_rounding() -> None:
    assert [rounded(size, GPU, ROW_FINENESS, ROW_LEAST) for size in range(1, 300)] == list(range(1, 300))


@MANY
@given(LENGTHS, st.randoms(use_true_random=False))
def test_buckets_take_the_texts_of_any_order_longest_first(lengths: tuple[int, ...], draws: Random) -> None:
    shuffled = list(lengths)
    draws.shuffle(shuffled)
    packing, texts, tokens = Packing(tuple(shuffled), CPU), list[int](), list[int]()
    for bucket in packing.buckets:
        texts += torch.arange(len(packing))[bucket.texts].tolist()
        tokens += torch.arange(packing.tokens)[bucket.tokens].tolist()
    assert sorted(texts) == list(range(len(lengths)))
    assert [shuffled[text] for text in texts] == list(lengths)
    starts = packing.starts.tolist()
    assert tokens == [starts[text] + i for text in texts for i in range(shuffled[text])]


@MANY
@given(LENGTHS)
def test_the_row_ends_in_filler_and_offsets_do_not_count_it(lengths: tuple[int, ...]) -> None:
    packing = Packing(lengths, CPU)
    fineness = ROW_FINENESS if packing.tokens < FULL_ROW else FULL_ROW_FINENESS
    assert packing.row == rounded(packing.tokens, CPU, fineness, ROW_LEAST) >= packing.tokens
    assert packing.offsets.dtype == torch.int32
    assert packing.offsets.diff().tolist() == list(lengths)
    assert packing.offsets[0] == 0
    assert packing.starts.tolist() == packing.offsets[:-1].tolist()


def shown(mask: Tensor | None) -> list[list[list[int]]]:
    """Returns 1 where a mask lets a query see a key, and fails where it is anything but all or nothing."""
    assert mask is not None
    assert set(mask.unique().tolist()) <= {0.0, -30_000.0}
    return (mask == 0).int().tolist()


def test_in_a_shared_matrix_a_text_sees_only_itself() -> None:
    (bucket,) = Packing((3, 2), CPU).buckets
    whole = shown(bucket.mask(False, None, torch.zeros(1)))
    assert [row[:5] for row in whole[0][:5]] == [[1, 1, 1, 0, 0]] * 3 + [[0, 0, 0, 1, 1]] * 2
    assert all(not any(row[5:]) for row in whole[0][:5])
    narrow = shown(bucket.mask(False, 2, torch.zeros(1)))
    assert [row[:5] for row in narrow[0][:3]] == [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 0, 0]]
    asked = shown(bucket.mask(True, 2, torch.zeros(1)))
    assert [row[:5] for row in asked[0][:2]] == [[1, 1, 0, 0, 0], [0, 0, 0, 1, 1]]


@pytest.mark.parametrize("lengths", [(100, 98), (96, 96), (40,)], ids=["padded", "full", "alone"])
def test_long_texts_need_a_mask_only_for_a_window(lengths: tuple[int, ...]) -> None:
    (bucket,) = Packing(lengths, CPU).buckets
    like, places = torch.zeros(1), range(bucket.longest)
    for one_query in (False, True):
        assert bucket.mask(one_query, None, like) is None
        assert bucket.mask(one_query, bucket.longest, like) is None
        band = [[int(abs(key - query) < 5) for key in places] for query in (places[:1] if one_query else places)]
        assert shown(bucket.mask(one_query, 5, like)) == [band]


def test_a_mask_is_made_once_a_window_and_type() -> None:
    (bucket,) = Packing((100, 90), CPU).buckets
    made: list[Tensor | None] = [bucket.mask(False, 9, torch.zeros(1)) for _ in range(2)]
    assert made[0] is made[1]
    rough = bucket.mask(False, 9, torch.zeros(1, dtype=torch.bfloat16))
    assert rough is not None
    assert rough.dtype == torch.bfloat16
    assert len(bucket.masks) == 2


def test_rows_have_few_sizes() -> None:
    """Each size of a row costs the memory of generated code, for every product of the model."""
    sizes = {Packing((tokens,), torch.device("cpu")).row for tokens in range(3, 6145)}
    assert len([size for size in sizes if size <= 2048]) <= 50
    assert len(sizes) <= 100
    for tokens in (5, 100, 700, 1500, 2047, 2048, 6000):
        row = Packing((tokens,), torch.device("cpu")).row
        assert tokens <= row <= max(tokens + 16, 1.125 * tokens)
