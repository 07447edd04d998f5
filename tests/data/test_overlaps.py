"""Texts that are part of others, and short texts that differ in one word: against a comparison of every pair."""

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import Row, fresh_texts, phrase, quoted, replaced, rows_of, sentences_shuffled, write_rows

from bertlora.data.checks import merged
from bertlora.data.checks.overlaps import COMMON, Samples
from bertlora.data.checks.trigrams import OneChanged
from bertlora.data.checks.word_file import WordFile, Words
from bertlora.data.prepared import Prepared, prepare
from bertlora.data.words import words_of

Pairs = set[tuple[int, int]]


def batches_of(texts: list[str]) -> list[Words]:
    with WordFile() as words:
        for text in texts:
            words.add(words_of(text))
        return list(words.batches(np.ones(len(texts), np.bool_)))


def overlaps_of(texts: list[str]) -> Pairs:
    batches = batches_of(texts)
    found = Samples.of(batches).overlaps(batches)
    return set(zip(found.parts.tolist(), found.wholes.tolist(), strict=True))


@pytest.fixture(autouse=True, params=[100, 1 << 16])
def words_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertlora.data.checks.word_file.WORDS_AT_ONCE", request.param)


def trigrams(text: str) -> set[object]:
    words = words_of(text)
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)} if len(words) > 2 else {text}


def test_pairs_are_those_that_comparing_every_pair_finds() -> None:
    draw = random.Random(1)
    base = fresh_texts(30, seed=1, words=34)  # 32 trigrams: all of them are in the sample
    texts = [phrase(draw.choice(base), draw.randint(2, 33), draw) for _ in range(300)]
    texts += [f"{phrase(texts[i], 2, draw)} {texts[i + 1]}" for i in range(0, 100, 2)]
    texts = sorted({text for text in [*base, *texts] if len(text.split()) <= 34}, key=lambda _: draw.random())
    expected: Pairs = set()
    for part, one in enumerate(map(trigrams, texts)):
        for whole, other in enumerate(map(trigrams, texts)):
            shared = len(one & other)
            if part != whole and len(texts[part].split()) <= len(texts[whole].split()):
                most = 4 if len(texts[part].split()) >= 0.9 * len(texts[whole].split()) else 8
                enough = shared == len(one) or (2 * (shared + 2) >= len(one) + 2 and shared >= most)
                expected |= {(part, whole)} if enough else set()
    assert len(expected) > 500
    assert overlaps_of(texts) == expected


FAULTS: dict[str, Callable[[str, str, random.Random], str]] = {
    "case": lambda text, other, draw: text.upper(),
    "10 % replaced": lambda text, other, draw: replaced(text, 0.1, draw),
    "half": lambda text, other, draw: phrase(text, len(text.split()) // 2, draw),
    "quoted": quoted,
    "sentences shuffled": lambda text, other, draw: sentences_shuffled(text, draw),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("length", [20, 200])
def test_planted_overlaps_are_found_and_no_others(fault: str, length: int) -> None:
    draw = random.Random(2)
    texts = [
        " ".join(f"{words[i]}{'.' if i % 10 == 9 else ''}" for i in range(length))
        for words in (text.split() for text in fresh_texts(100, seed=3, words=length))
    ]
    strange = [" ".join(f"x{word}" for word in text.split()) for text in texts]
    faulty = [FAULTS[fault](text, other, draw) for text, other in zip(texts, strange, strict=True)]
    found = {(min(pair), max(pair)) for pair in overlaps_of([*texts, *faulty])}
    assert found <= {(i, i + 100) for i in range(100)}
    assert len(found) >= 97


def test_what_very_many_texts_share_connects_none() -> None:
    shared = "one of the best films of the year"
    texts = [f"{text} {shared} {other}" for text, other in zip(fresh_texts(120, 4), fresh_texts(120, 5), strict=True)]
    assert len(overlaps_of([shared, *texts[: COMMON - 20]])) == COMMON - 20
    assert overlaps_of([shared, *texts]) == set()


def test_one_word_changed() -> None:
    draw = random.Random(6)
    texts = [" ".join(draw.choices("abc", k=draw.choice([4, 5, 6]))) for _ in range(300)]
    texts += [replaced(text, 0.01, draw) for text in fresh_texts(20, seed=7, words=20)] + fresh_texts(20, 7, 20)
    texts = list(dict.fromkeys(texts))
    changed = OneChanged()
    assert sum(len(words.counts) for words in changed.watched(batches_of(texts))) == len(texts)
    pairs = changed.pairs()

    def differ_in_one(one: list[str], other: list[str]) -> bool:
        return len(one) == len(other) >= 5 and sum(a != b for a, b in zip(one, other, strict=True)) == 1

    words = [text.split() for text in texts]
    assert all(differ_in_one(words[one], words[other]) for one, other in pairs.tolist())
    expected = [(i, j) for i in range(len(texts)) for j in range(i) if differ_in_one(words[i], words[j])]
    assert len(expected) > 100
    # The pairs found are a chain through each set of texts that differ in one place: they connect the same texts.
    groups = np.arange(len(texts))
    for one, other in pairs.tolist():
        groups[groups == groups[one]] = groups[other]
    assert all(groups[one] == groups[other] for one, other in expected)


def test_merged_groups_connect_what_either_connects() -> None:
    found = merged(np.array([7, 7, 2, 3, 4]), np.array([-1, 5, 5, 9, 9]))
    assert len(set(found[:3])) == len(set(found[3:])) == 1
    assert found[0] != found[3]


def check(data: Prepared, name: str) -> dict[str, Any]:
    return next((one for one in data.checks if one["name"] == name), {})


def parts_across(data: Prepared) -> int:
    """How many pairs of texts in two splits have one text in the other, word for word."""
    texts = [(split, f" {text} ") for split in data.rows for text in data.split(split).texts]
    return sum(one in other for split, one in texts for where, other in texts if split != where)


def test_parts_are_counted_and_fix_keeps_them_with_their_texts(tmp_path: Path) -> None:
    draw = random.Random(8)
    texts = fresh_texts(60, seed=9, words=30)
    texts += [phrase(draw.choice(texts), draw.randint(4, 20), draw) for _ in range(60)]
    draw.shuffle(texts)
    source = write_rows(tmp_path / "r.jsonl", rows_of(texts))
    plain = prepare([source], tmp_path / "plain")
    assert parts_across(plain) > 20
    named = {row for name in ("contained", "near_duplicates") for row in check(plain, name)["rows"]}
    assert len(named) > 50
    leaking = check(plain, "leakage")
    assert leaking["count"] == sum(map(int, re.findall(r"\((\d+)", leaking["advice"]))) > 20
    fixed = prepare([source], tmp_path / "fixed", fix=True)
    assert parts_across(fixed) == 0
    assert sum(fixed.rows.values()) == 120
    assert abs(fixed.rows["train"] - 84) <= 2
    assert check(fixed, "leakage") == {}


def test_of_named_splits_the_earlier_one_loses_parts_and_wholes(tmp_path: Path) -> None:
    texts = fresh_texts(80, seed=10)
    train, test = rows_of(texts[:50]), rows_of(texts[50:])
    train[3] = (phrase(test[2][0], 6, random.Random(0)), "neg")
    train[5] = (quoted(test[4][0], fresh_texts(1, seed=11)[0], random.Random(0)), "pos")
    train[7] = (phrase(texts[0], 30, random.Random(0)), "pos")
    specs = [
        f"{name}={write_rows(tmp_path / f'{name}.jsonl', rows)}" for name, rows in (("train", train), ("test", test))
    ]
    data = prepare(specs, tmp_path / "plain", split="100/0/0")
    assert check(data, "leakage")["rows"] == [2, 4]
    kinds = "(0 word for word), a near duplicate (0), or a text that contains it or is part of it (2)"
    assert kinds in check(data, "leakage")["advice"]
    assert check(data, "contained")["rows"] == [7, 2, 4]
    data = prepare(specs, tmp_path / "fixed", split="100/0/0", fix=True)
    assert data.notes == [
        "removed 2 rows of train: with a text that is part of a text of a later split, or contains one "
        "(train.jsonl lines 4, 6)"
    ]
    assert data.rows == {"train": 48, "test": 30}
    assert check(data, "leakage") == {}


@pytest.mark.parametrize(("second", "leaks"), [("part", True), ("other", False)])
def test_of_pairs_both_texts_must_overlap(tmp_path: Path, second: str, leaks: bool) -> None:
    first, other = fresh_texts(20, seed=11), fresh_texts(20, seed=12)
    lines = [f"{a},{b},{'yes' if i % 2 else 'no'}" for i, (a, b) in enumerate(zip(first, other, strict=True))]
    (tmp_path / "train.csv").write_text("premise,hypothesis,label\n" + "\n".join(lines) + "\n")
    hypothesis = phrase(other[5], 20, random.Random(0)) if second == "part" else fresh_texts(1, seed=13)[0]
    row = f"{phrase(first[5], 30, random.Random(0))},{hypothesis},yes"
    (tmp_path / "test.csv").write_text(f"premise,hypothesis,label\n{row}\n")
    specs = [f"{name}={tmp_path / name}.csv" for name in ("train", "test")]
    assert bool(check(prepare(specs, tmp_path / "out", split="100/0/0"), "leakage")) == leaks


def test_a_common_phrase_does_not_join_all_texts(tmp_path: Path) -> None:
    shared = "one of the best films of the year"
    rows: list[Row] = rows_of([shared, *(f"{text} {shared}" for text in fresh_texts(40, seed=14, words=20))])
    data = prepare([write_rows(tmp_path / "r.jsonl", rows)], tmp_path / "out", fix=True)
    assert list(data.rows.values()) == [29, 6, 6]
    assert check(data, "contained") == {}
