"""Shift: planted differences between train and test are found and named; random splits have none."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from planted import fresh_texts, rows_of, write_rows
from sklearn.metrics import roc_auc_score

from bertlora.data.checks.drawn import Drawn, drawn_of
from bertlora.data.checks.find import Check
from bertlora.data.checks.shift import auc_error, shift_checks
from bertlora.data.prepared import prepare

LABELS = ["neg", "pos"]


def table(texts: Sequence[str], labels: np.ndarray | None = None, groups: np.ndarray | None = None) -> Drawn:
    rows = np.arange(len(texts))
    labels = (rows % 2).astype(np.int32) if labels is None else labels
    return drawn_of(([text] for text in texts), labels, rows, rows if groups is None else groups)


def shift(every: Drawn, in_test: np.ndarray) -> Check | None:
    parts = {"train": every.take(np.flatnonzero(~in_test)), "test": every.take(np.flatnonzero(in_test))}
    checks = shift_checks({split: Drawn(**(vars(part) | {"split": split})) for split, part in parts.items()}, LABELS)
    return checks[0] if checks else None


LAST = np.arange(600) >= 400


def test_another_label_share() -> None:
    labels = np.where(LAST, np.arange(600) % 10 == 0, np.arange(600) % 2).astype(np.int32)
    check = shift(table(fresh_texts(600, seed=1, words=20), labels), LAST)
    assert check is not None
    assert (check["name"], check["severity"], check["count"]) == ("shift", "warning", 1)
    assert "test differs from train: 90.0 % of its rows are 'neg' (50.0 % of train)" in check["advice"]


def test_other_lengths() -> None:
    texts = fresh_texts(400, seed=2, words=30) + fresh_texts(200, seed=3, words=20)
    draw = random.Random(4)
    texts = [" ".join(text.split()[draw.randrange(12) :]) for text in texts]
    check = shift(table(texts), LAST)
    assert check is not None
    assert "its texts are shorter (median 1" in check["advice"]
    assert "not in train" not in check["advice"]


def test_other_words() -> None:
    texts = fresh_texts(600, seed=5, words=20)
    texts[400:] = [
        text.replace("film", "book").replace("actor", "novel").replace("camera", "page") for text in texts[400:]
    ]
    check = shift(table(texts), LAST)
    assert check is not None
    assert check["severity"] == "warning"
    assert "a classifier separates the two with a ROC AUC of 0.9" in check["advice"]
    assert "most typical of test are 'book', 'novel', 'page'" in check["advice"] or {"book", "novel", "page"} <= set(
        check["advice"].split("most typical of test are ")[1].split(", and of train")[0].replace("'", "").split(", ")
    )
    assert "% of its words are not in train (0.0 % of held-out train)" in check["advice"]


def test_random_splits_have_no_shift() -> None:
    every = table(fresh_texts(700, seed=6, words=25))
    fired = 0
    for seed in range(40):
        draw = np.random.default_rng(seed)
        rows = draw.permutation(700)[: (90, 250, 700)[seed % 3]]
        fired += shift(every.take(rows), draw.random(len(rows)) < 0.3) is not None
    assert fired <= 2  # 5 % of 40


def test_random_splits_by_group_have_no_shift() -> None:
    # Ten texts of each group share most of their words. Without the groups, a classifier knows them again.
    draw = random.Random(7)
    texts = [
        " ".join([*t.split(), *draw.choices(fresh_texts(1, seed=9)[0].split(), k=5)]) for t in fresh_texts(60, 8, 20)
    ]
    texts = [" ".join(draw.sample(text.split(), 22)) for text in texts for _ in range(10)]
    groups = np.repeat(np.arange(60), 10)
    fired = {True: 0, False: 0}
    for seed in range(8):
        in_test = np.random.default_rng(seed).permutation(60)[groups] < 20
        for known in fired:
            check = shift(table(texts, groups=groups if known else None), in_test)
            fired[known] += check is not None and "a classifier" in check["advice"]
    assert fired == {True: 0, False: 8}


def test_few_rows_are_not_compared(tmp_path: Path) -> None:
    specs = [
        f"{split}={write_rows(tmp_path / f'{split}.jsonl', rows_of(fresh_texts(n, seed=n, words=words)))}"
        for split, n, words in (("train", 60, 60), ("test", 29, 20))
    ]
    assert prepare(specs, tmp_path / "few", split="100/0/0").checks == []
    specs[1] = f"test={write_rows(tmp_path / 'more.jsonl', rows_of(fresh_texts(31, seed=1, words=20)))}"
    (check,) = prepare(specs, tmp_path / "more", split="100/0/0").checks
    assert (check["name"], check["rows"], check["places"]) == ("shift", [], [])
    assert "its texts are shorter (median 20 words, 60 in train)" in check["advice"]


def test_the_standard_error_covers_the_true_area() -> None:
    draw = np.random.default_rng(10)
    covered = 0
    for _ in range(300):
        scores = np.concatenate([draw.normal(1.0, 1, 60), draw.normal(0, 1, 60)])
        area = float(roc_auc_score(np.repeat([1, 0], 60), scores))
        # The true area is the normal distribution at 1 / sqrt(2).
        covered += abs(area - 0.7602) <= 1.96 * auc_error(area, 60, 60)
    assert 0.91 <= covered / 300 <= 0.98
