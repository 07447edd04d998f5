"""Faults whose number is known, and texts of random words, unlike each other, in which tests plant them.

`benchmarks/planted_faults.py` plants the same faults in real texts.
"""

import json
import random
import re
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


def replaced(text: str, share: float, draw: random.Random, vocabulary: Sequence[str] = ("otherwise",)) -> str:
    """Returns a text with this share of its words, and at least one, replaced by others."""
    words = text.split()
    for i in draw.sample(range(len(words)), max(1, round(share * len(words)))):
        words[i] = draw.choice([word for word in draw.sample(vocabulary, min(9, len(vocabulary))) if word != words[i]])
    return " ".join(words)


def phrase(text: str, words: int, draw: random.Random) -> str:
    """Returns this many neighbouring words of a text."""
    every = text.split()
    start = draw.randrange(len(every) - words + 1)
    return " ".join(every[start : start + words])


def quoted(text: str, other: str, draw: random.Random) -> str:
    """Returns a text in the midst of the shuffled words of another one."""
    words = other.split()
    draw.shuffle(words)
    middle = len(words) // 2
    return " ".join([*words[:middle], text, *words[middle:]])


def sentences_shuffled(text: str, draw: random.Random) -> str:
    """Returns a text with its sentences in another order, or the text itself if it has only one."""
    sentences = re.split(r"(?<=[.!?])\s+", text)
    orders = [draw.sample(sentences, len(sentences)) for _ in range(9)]
    return " ".join(next((order for order in orders if order != sentences), sentences))


def rows_of(texts: Sequence[str]) -> list[Row]:
    """Returns rows with the labels neg and pos by turns."""
    return [(text, ("neg", "pos")[i % 2]) for i, text in enumerate(texts)]


def write_rows(path: Path, rows: Sequence[Row]) -> str:
    """Writes rows as JSONL and returns the path."""
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)
