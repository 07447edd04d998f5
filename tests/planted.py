"""Texts of random words, unlike each other, in which tests plant faults whose number is known."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

_VOCABULARY = (
    "film story actor scene plot music camera light voice crowd river garden window letter winter summer morning "
    "evening doctor teacher soldier captain sister brother father mother village castle island forest mountain "
    "street market kitchen table silver golden broken gentle clever honest simple bitter hollow narrow bright "
    "quiet sudden modern ancient foreign local common secret public private early later never always often seldom"
)
WORDS = _VOCABULARY.split()

Row = tuple[str, str]


def fresh_texts(count: int, seed: int, words: int = 60) -> list[str]:
    """Returns texts of that many random words, no two near each other."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=words)) for _ in range(count)]


def nearly(text: str, seed: int = 0) -> str:
    """Returns a text with one of its words changed, and its case."""
    words = text.split()
    words[random.Random(seed).randrange(len(words))] = "otherwise"
    return " ".join(words).capitalize() + "."


def rows_of(texts: Sequence[str]) -> list[Row]:
    """Returns rows with the labels neg and pos by turns."""
    return [(text, ("neg", "pos")[i % 2]) for i, text in enumerate(texts)]


def write_rows(path: Path, rows: Sequence[Row]) -> str:
    """Writes rows as JSONL and returns the path."""
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)
