"""Near duplicates: estimates against exact overlaps, groups against a comparison of every pair."""

import random

import numpy as np
import pytest
from planted import WORDS, fresh_texts, nearly

from bertlora.data.checks.near import HASHES, Signer, near_groups, shingles
from bertlora.data.checks.texts import Examiner
from bertlora.data.words import words_of


def groups_of(texts: list[str], pairs: list[str] | None = None) -> list[int]:
    examiner = Examiner(pairs=pairs is not None)
    for i, text in enumerate(texts):
        examiner.add(text, None if pairs is None else pairs[i])
    facts = examiner.facts()
    return near_groups(facts.hashes, facts.signatures).tolist()


def overlap(one: str, other: str) -> float:
    """The exact Jaccard index."""
    a, b = (set(shingles(words_of(text))) for text in (one, other))
    return len(a & b) / len(a | b)


def test_words_and_shingles() -> None:
    assert words_of("It's a JOY, isn't it?") == ["it's", "a", "joy", "isn't", "it"]
    assert words_of("很好 film") == ["很", "好", "film"]
    assert shingles(["a", "joy"]) == [" a", "a joy", "joy "]
    assert shingles(["joy"]) == [" joy", "joy "]


def test_signatures_estimate_the_overlap() -> None:
    errors = []
    for seed, text in enumerate(fresh_texts(200, seed=1, words=80)):
        words = text.split()
        changed = [*words[: 80 - seed % 40], *random.Random(seed).choices(WORDS, k=seed % 40)]
        signer = Signer()
        signer.add(words)
        signer.add(changed)
        one, other = signer.signatures()
        errors.append(float((one == other).mean()) - overlap(text, " ".join(changed)))
    # Of 126 independent hashes, the standard error is at most sqrt(1/4 / 126) = 0.045, and no bias.
    assert abs(np.mean(errors)) < 3 * 0.045 / np.sqrt(len(errors))
    assert 0.015 < np.std(errors) < 0.045


def test_a_text_longer_than_the_table_of_hashes_has_one_signature() -> None:
    words = fresh_texts(1, seed=3, words=6000)[0].split()
    signer = Signer()
    signer.add(words)
    signer.add([*words, *words])
    one, other = signer.signatures()
    assert one.shape == (HASHES,)
    assert (one == other).mean() > 0.99


def test_groups_are_those_that_comparing_every_pair_finds() -> None:
    texts = fresh_texts(150, seed=5)
    for i in range(0, 60, 2):
        texts.append(nearly(texts[i], seed=i))
    texts += [nearly(nearly(texts[1], seed=7), seed=8), texts[3], texts[3].upper()]
    random.Random(0).shuffle(texts)
    found, expected = groups_of(texts), list(range(len(texts)))
    for i, one in enumerate(texts):
        for j in range(i):
            like = overlap(one, texts[j])
            assert not 0.6 < like < 0.85, "the test's own texts are either near or far"
            if like > 0.8:
                expected = [expected[i] if group == expected[j] else group for group in expected]
    assert len(set(found)) == len(set(expected)) == len(set(zip(found, expected, strict=True))) == 150


def test_a_chain_of_near_texts_is_one_group() -> None:
    words = fresh_texts(1, seed=9, words=140)[0].split()
    texts = [" ".join(words[start : start + 100]) for start in range(0, 40, 5)]
    assert overlap(texts[0], texts[-1]) < 0.6
    assert set(groups_of(texts)) == {0}


def test_short_phrases_are_near_if_only_case_and_punctuation_differ() -> None:
    texts = [
        "a good film",
        "a bad film",
        "A good film!",
        "not a good film",
        "good film",
        "good",
        "bad",
        "...",
        "!!!",
        "",
    ]
    found = groups_of(texts)
    assert found[0] == found[2]
    assert len(set(found)) == len(texts) - 1


def test_many_copies_are_one_group() -> None:
    text = fresh_texts(1, seed=11, words=200)[0]
    copies = [nearly(text, seed) for seed in range(300)]
    assert len(set(groups_of([*copies, *fresh_texts(5, seed=12)]))) == 6


@pytest.mark.parametrize(("same_second", "groups"), [(True, 1), (False, 2)])
def test_pairs_are_near_only_where_both_texts_are(same_second: bool, groups: int) -> None:
    first, second = fresh_texts(2, seed=13)
    other = nearly(second) if same_second else fresh_texts(1, seed=14)[0]
    assert len(set(groups_of([first, first], [second, other]))) == groups
