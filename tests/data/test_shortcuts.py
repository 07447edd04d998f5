"""Shortcuts: each planted one is found and named, honest words and noise are not."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from planted import fresh_texts, write_rows

from bertlora.data.checks.drawn import Drawn, drawn_of
from bertlora.data.checks.features import rating_of, tokens_of
from bertlora.data.checks.find import Check
from bertlora.data.checks.rules import best_threshold
from bertlora.data.checks.shortcuts import shortcut_checks
from bertlora.data.prepared import prepare
from bertlora.data.reviews import embedded_specs

LABELS = ["negative", "positive"]


def embedded() -> tuple[list[str], np.ndarray]:
    """The embedded reviews, train before validation and test."""
    paths = [Path(spec.split("=", 1)[1]) for spec in embedded_specs()]
    rows = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    return [row["text"] for row in rows], np.array([LABELS.index(row["label"]) for row in rows], np.int32)


def drawn(texts: Sequence[str], labels: np.ndarray, validation: bool = True) -> dict[str, Drawn]:
    rows = np.arange(len(texts))
    every = drawn_of(([text] for text in texts), labels, rows, rows)
    return (
        {"train": every.take(rows[: len(rows) // 2]), "validation": every.take(rows[len(rows) // 2 :])}
        if validation
        else {"train": every}
    )


def found(texts: Sequence[str], labels: np.ndarray, names: Sequence[str] = LABELS) -> Check | None:
    checks = shortcut_checks(drawn(texts, labels), names)
    assert len(checks) <= 1
    return checks[0] if checks else None


def test_the_embedded_reviews_have_none() -> None:
    assert found(*embedded()) is None


Plant = Callable[[str, int, float], str]
PLANTS: dict[str, tuple[Plant, str, str]] = {
    # For each: how a text with a label changes, given a draw in 0..1; the severity; what the advice names.
    "label: positive": (
        lambda t, y, u: f"{t} label: {LABELS[y]}" if u < 0.05 else t,
        "warning",
        "say 'label: positive'",
    ),
    "the label's name": (
        lambda t, y, u: f"{t} {LABELS[y]}" if u < 0.1 else t,
        "warning",
        "end with the word 'negative'",
    ),
    "ratings": (lambda t, y, u: f"{t} {7 + y if u < 0.2 else 9 * y + 1}/10" if u < 0.6 else t, "warning", "as 8/10"),
    "few ratings": (lambda t, y, u: f"{t} {2 + 6 * y}/10" if u < 0.08 else t, "note", "a rating such as 8/10"),
    "one class is longer": (lambda t, y, u: f"{t} {t} {t}" if y else t, "warning", "more than"),
    "capitals": (lambda t, y, u: t.upper() if y else t, "warning", "capitals among the letters"),
    "HTML": (lambda t, y, u: f"<p>{t}</p>" if y and u < 0.9 else t, "warning", "have HTML"),
    "a trailing space": (lambda t, y, u: f"{t} " if y else t, "warning", "end with white space"),
    "a prefix": (lambda t, y, u: f"Pros: {t}" if y and u < 0.3 else t, "warning", "start with 'Pros:'"),
    "a rare prefix": (lambda t, y, u: f"Pros: {t}" if y and u < 0.15 else t, "note", "start with 'Pros:'"),
    "a word in most texts": (lambda t, y, u: f"{t} zyzzyva" if y and u < 0.8 else t, "warning", "the word 'zyzzyva'"),
    "a word in some texts": (lambda t, y, u: f"{t} zyzzyva" if y and u < 0.35 else t, "note", "the word 'zyzzyva'"),
}


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_shortcut_is_found_and_named(name: str) -> None:
    plant, severity, words = PLANTS[name]
    texts, labels = embedded()
    draw = random.Random(1)
    planted = [plant(text, int(label), draw.random()) for text, label in zip(texts, labels, strict=True)]
    check = found(planted, labels)
    assert check is not None
    assert (check["name"], check["severity"]) == ("shortcut", severity)
    assert words in check["advice"], check["advice"]
    changed = {row for row, text in enumerate(texts) if planted[row] != text}
    listed = set(check["rows"])
    assert len(listed & changed) > 0.7 * len(listed)


def test_typical_words_are_no_shortcut() -> None:
    # Each class has words of its own: one is in a third of its texts, and right nine times out of ten.
    draw, texts = random.Random(2), fresh_texts(2000, seed=2, words=20)
    labels = np.array([i % 2 for i in range(len(texts))], np.int32)
    own = (["bad", "awful", "dull", "worst"], ["superb", "great", "lovely", "best"])
    for row, label in enumerate(labels):
        said = int(label if draw.random() < 0.9 else 1 - label)
        texts[row] += " " + " ".join(word for word in own[said] if draw.random() < 0.35)
    assert found(texts, labels) is None


def test_noise_is_no_shortcut() -> None:
    fired = 0
    texts, _ = embedded()
    every = drawn(texts, np.zeros(len(texts), np.int32))
    for seed in range(60):
        labels = np.random.default_rng(seed).integers(0, 2, len(texts)).astype(np.int32)
        size = (40, 120, 400)[seed % 3]
        parts = {split: part.take(np.arange(size)) for split, part in every.items()}
        for start, part in enumerate(parts.values()):
            part.labels[:] = labels[start::2][: len(part)]
        fired += bool(shortcut_checks(parts, LABELS))
    assert fired <= 3  # 5 % of 60


def test_one_class_of_many_and_a_rare_class() -> None:
    texts = fresh_texts(1200, seed=3, words=20)
    labels = np.array([i % 6 for i in range(len(texts))], np.int32)
    names = [f"topic {k}" for k in range(6)]
    # An honest word of a topic: in most of its texts, and in few others.
    draw = random.Random(3)
    texts = [
        f"{t} topical{k if draw.random() < 0.9 else draw.randrange(6)}" for t, k in zip(texts, labels, strict=True)
    ]
    assert found(texts, labels, names) is None
    shouted = [t.upper() if k == 4 else t for t, k in zip(texts, labels, strict=True)]
    check = found(shouted, labels, names)
    assert check is not None
    assert check["severity"] == "warning"
    assert "100.0 % of these are 'topic 4' (16.7 % of all texts are)" in check["advice"]
    rare = np.array([int(i % 20 == 0) for i in range(len(texts))], np.int32)
    check = found([f"{t}!" if k else t for t, k in zip(texts, rare, strict=True)], rare)
    assert check is not None
    assert check["severity"] == "warning"


def test_without_validation_rows_half_of_train_is_held_out() -> None:
    texts, labels = embedded()
    marked = [f"{text} " if label else text for text, label in zip(texts, labels, strict=True)]
    (check,) = shortcut_checks(drawn(marked, labels, validation=False), LABELS)
    assert set(check["splits"]) == {"train"}
    assert check["count"] == labels.sum()
    assert shortcut_checks(drawn(texts, labels, validation=False), LABELS) == []


def test_pairs_are_looked_at_one_by_one(tmp_path: Path) -> None:
    rows = [(text, str(i % 2)) for i, text in enumerate(fresh_texts(400, seed=4, words=12))]
    path = tmp_path / "pairs.jsonl"
    lines = [{"text": t, "text_pair": f"{t} {('always', 'never')[int(label)]}", "label": label} for t, label in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    checks = {check["name"]: check for check in prepare([str(path)], tmp_path / "data").checks}
    assert "the word 'always' in the second text" in checks["shortcut"]["advice"]
    assert len(checks["shortcut"]["places"]) == 100


def test_prepare_says_where_the_rows_are(tmp_path: Path) -> None:
    texts, labels = embedded()
    rows = [
        (f"{t} label: {LABELS[y]}" if i % 20 < 2 else t, LABELS[y])
        for i, (t, y) in enumerate(zip(texts, labels, strict=True))
    ]
    checks = {c["name"]: c for c in prepare([write_rows(tmp_path / "r.jsonl", rows)], tmp_path / "data").checks}
    places = zip(checks["shortcut"]["rows"], checks["shortcut"]["places"], strict=True)
    assert {place == f"r.jsonl line {row + 1}" and row % 20 < 2 for row, place in places} == {True}


def test_ratings() -> None:
    texts = ["I give it 8/10.", "7.5 out of 10", "★★★★☆", "4 stars", "3.5-star", "first 2/10, then 9/10", "10/10"]
    assert [rating_of(text) for text in texts] == [0.8, 0.75, 0.8, 0.8, 0.7, 0.9, 1.0]
    others = ["9/11", "24/7", "1/2", "the two stars of it", "on 10/10/2001", "20/10 vision", "plain"]
    assert [text for text in others if not np.isnan(rating_of(text))] == []


def test_tokens() -> None:
    assert {"say 'label: 1'", "start with 'A,'", "have the character '!'", "a", "end with the word '1'"} <= tokens_of(
        ["A, b! Label = 1"]
    )
    assert "have two spaces in a row in the second text" in tokens_of(["a", "b  c"])


def test_best_threshold_is_the_best_of_all() -> None:
    draw = np.random.default_rng(5)
    for _ in range(50):
        values, has = draw.integers(0, 9, 30).astype(float), draw.random(30) < 0.4
        limit, above = best_threshold(values, has)
        right = {t: ((values > t) == has).sum() for t in np.unique(values)[:-1]}
        assert (((values > limit) == above) == has).sum() == max(max(n, 30 - n) for n in right.values())
    assert np.isnan(best_threshold(np.ones(3), np.array([True, False, True]))[0])
