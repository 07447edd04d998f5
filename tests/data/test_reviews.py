"""The embedded reviews keep what docs/datasheet.md says of them."""

import json
import re
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from bertlora.data.reviews import LABELS, SAMPLE_TEXTS, SPLITS, embedded_specs

SIZES = {"train": 740, "validation": 150, "test": 220}
SHINGLE_WORDS = 6
NEAR_JACCARD = 0.05  # of word 5-grams; docs/datasheet.md gives the closest pair


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def shingles(text: str, size: int) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[i : i + size]) for i in range(len(found) - size + 1)}


@pytest.fixture(scope="module")
def splits() -> dict[str, list[dict[str, str]]]:
    paths = dict(spec.split("=", 1) for spec in embedded_specs())
    return {
        name: [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
        for name, path in paths.items()
    }


@pytest.fixture(scope="module")
def rows(splits: dict[str, list[dict[str, str]]]) -> list[tuple[str, str]]:
    """Every review as (split, text)."""
    return [(name, row["text"]) for name, table in splits.items() for row in table]


def test_specs_name_the_splits_in_order_with_files_that_exist() -> None:
    names, paths = zip(*(spec.split("=", 1) for spec in embedded_specs()), strict=True)
    assert names == SPLITS
    assert all(Path(path).is_absolute() and Path(path).is_file() for path in paths)


def test_counts(splits: dict[str, list[dict[str, str]]]) -> None:
    assert {name: len(table) for name, table in splits.items()} == SIZES
    assert sum(SIZES.values()) == 1110


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_balanced_and_not_in_blocks(split: str, splits: dict[str, list[dict[str, str]]]) -> None:
    labels = [row["label"] for row in splits[split]]
    assert Counter(labels) == dict.fromkeys(LABELS, len(labels) // 2)
    changes = sum(a != b for a, b in pairwise(labels))
    assert changes > len(labels) / 3


def test_each_row_is_a_text_and_a_label_and_nothing_else(splits: dict[str, list[dict[str, str]]]) -> None:
    assert all(set(row) == {"text", "label"} for table in splits.values() for row in table)


def test_texts_are_plain_ascii_of_5_to_120_words(rows: list[tuple[str, str]]) -> None:
    for _, text in rows:
        assert text.isascii(), text
        assert text.isprintable(), text
        assert text == text.strip(), text
        assert 5 <= len(text.split()) <= 120, text


def test_no_exact_duplicates(rows: list[tuple[str, str]]) -> None:
    counts = Counter(" ".join(words(text)) for _, text in rows)
    assert [text for text, count in counts.items() if count > 1] == []


def test_no_six_words_in_a_row_are_shared_by_two_reviews(rows: list[tuple[str, str]]) -> None:
    homes = defaultdict(list)
    for number, (_, text) in enumerate(rows):
        for shingle in shingles(text, SHINGLE_WORDS):
            homes[shingle].append(number)
    assert {" ".join(s): found for s, found in homes.items() if len(found) > 1} == {}


def test_no_near_duplicates_across_splits(rows: list[tuple[str, str]]) -> None:
    grams = [(split, shingles(text, 5)) for split, text in rows]
    near = [
        (i, j)
        for i, (split, a) in enumerate(grams)
        for j, (other, b) in enumerate(grams[:i])
        if split != other and len(a & b) > NEAR_JACCARD * len(a | b)
    ]
    assert near == []


def test_the_samples_are_six_and_not_in_the_data(rows: list[tuple[str, str]]) -> None:
    assert len(set(SAMPLE_TEXTS)) == 6
    known = set().union(*(shingles(text, SHINGLE_WORDS) for _, text in rows))
    assert not [text for text in SAMPLE_TEXTS if shingles(text, SHINGLE_WORDS) & known]
