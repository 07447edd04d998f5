#!/usr/bin/env python3
"""Plants faults in real rows, and counts which of them the checks of `prepare` find.

    python benchmarks/planted_faults.py imdb_train.parquet --rows 4000
    python benchmarks/planted_faults.py sst2_train.parquet                  # all rows
    python benchmarks/planted_faults.py sst2_train.parquet --clean sst2_validation.parquet
    python benchmarks/planted_faults.py sst2_train.parquet --random-split   # and what --fix leaves

The rows are first cleaned: of equal texts, and of texts and their parts, the longest stays. A fifth of the clean rows
is the test split, the others are the train split. For each fault, copies of train rows that have the fault are added to
the test split. Recall is the share of them that the check names. A false alarm is a clean test row that it names: some
of these are real near copies, which the cleaning does not remove. A label is written into other rows: see
`label_in_text`.

`--random-split` looks for test rows of ten words and more that contain a train row, or are part of one, word for word.
"""

import argparse
import random
import re
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from check_alarms import FOREIGN

import bertlora.data.checks.find
from bertlora.data.prepared import Prepared, prepare

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from planted import phrase, quoted, replaced, sentences_shuffled

TEST_SHARE = 0.2
LONGER = 10  # words of a test row
PHRASES = (2, 3, 4, 5, 6, 8)
# A fault that fewer rows can have is left out: sentences cannot be shuffled in a text of one sentence.
FEWEST = 20
# The check of shortcuts looks at no more rows of a split.
LABELLED, LABELLED_SHARE = 3000, 0.05


class Texts(NamedTuple):
    """The clean train texts, and all their words, from which replacements are drawn."""

    train: list[str]
    vocabulary: list[str]


class Fault(NamedTuple):
    """A kind of fault: how it is planted, and the check that should find it.

    `plant` gets a train text, all texts and a source of chance; it returns the faulty text, or None if this text cannot
    have the fault.
    """

    name: str
    check: str
    plant: Callable[[str, Texts, random.Random], str | None]


def words_replaced(share: float) -> Callable[[str, Texts, random.Random], str | None]:
    """Returns what replaces this share of the words, and at least one, in texts of five words and more."""
    return lambda text, texts, draw: replaced(text, share, draw, texts.vocabulary) if count(text) >= 5 else None


def phrase_of(words: int) -> Callable[[str, Texts, random.Random], str | None]:
    """Returns what takes this many neighbouring words out of a text that has more."""
    return lambda text, texts, draw: having(words, phrase(text, words, draw)) if len(text.split()) > words else None


def half(text: str, texts: Texts, draw: random.Random) -> str | None:
    """Returns half of a text of eight words and more."""
    return having(3, phrase(text, len(text.split()) // 2, draw)) if count(text) >= 8 else None


def contained(text: str, texts: Texts, draw: random.Random) -> str | None:
    """Returns a text of five words and more in the midst of other words."""
    return quoted(text, draw.choice(texts.train), draw) if count(text) >= 5 else None


def shuffled(text: str, texts: Texts, draw: random.Random) -> str | None:
    """Returns the sentences of a text in another order."""
    found = sentences_shuffled(text, draw)
    return None if found == text else found


def with_foreign_sentence(text: str, texts: Texts, draw: random.Random) -> str:
    """Returns a text with a sentence of another language between two of its own, or at its end."""
    sentences = re.split(r"(?<=[.!?])\s+", text)
    sentences.insert(draw.randint(1, len(sentences)), draw.choice(FOREIGN))
    return " ".join(sentences)


# A check that finds another kind of fault adds a line here.
FAULTS = (
    Fault("exact", "leakage", lambda text, texts, draw: text),
    Fault("case", "leakage", lambda text, texts, draw: text.upper()),
    *(Fault(f"{n} % of the words replaced", "leakage", words_replaced(n / 100)) for n in (2, 5, 10)),
    Fault("half", "leakage", half),
    Fault("contained", "leakage", contained),
    *(Fault(f"phrase of {n} words", "leakage", phrase_of(n)) for n in (5, 8)),
    Fault("sentences shuffled", "leakage", shuffled),
    Fault("foreign sentence", "language", with_foreign_sentence),
)


def main() -> None:
    """Plants, counts and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="Parquet with columns text, label")
    parser.add_argument("--clean", help="a file with other rows: they are the clean ones, and all of FILE is train")
    parser.add_argument("--rows", type=int, default=0, help="drawn at random; 0 = all")
    parser.add_argument("--planted", type=int, default=500, help="rows with each fault")
    parser.add_argument("--seed", type=int, default=1, help="draws the rows and the faults")
    parser.add_argument("--random-split", action="store_true", help="measure a random split, with and without --fix")
    a = parser.parse_args()
    frame = pd.read_parquet(a.file)[["text", "label"]]
    frame = frame.sample(a.rows or len(frame), random_state=a.seed)
    with tempfile.TemporaryDirectory() as folder:
        print((random_split if a.random_split else planted)(a, frame, Path(folder)))


def planted(a: argparse.Namespace, frame: pd.DataFrame, folder: Path) -> str:
    """Returns the table of recall and false alarms."""
    if a.clean:
        train, test = frame, pd.read_parquet(a.clean)[["text", "label"]]
        clean = len(test)
    else:
        frame = frame.iloc[sorted(maximal(list(frame.text)))]
        clean = round(len(frame) * TEST_SHARE)
        train, test = frame[clean:], frame[:clean]
    texts = Texts(list(train.text), sorted({word for text in train.text for word in text.split() if word.isalpha()}))
    parts = {fault: faulty(fault, train, texts, a.planted, a.seed) for fault in FAULTS}
    parts = {fault: rows for fault, rows in parts.items() if len(rows) >= FEWEST}
    splits = {"train": train, "test": pd.concat([test, *parts.values()])}
    named, took = prepared(folder, splits)
    lines, start = [], clean
    for fault, rows in parts.items():
        found = sum(("test", row) in named[fault.check] for row in range(start, start + len(rows)))
        alarms = sum(("test", row) in named[fault.check] for row in range(clean))
        lines.append([fault.name, fault.check, *shares(found, len(rows), alarms, clean)])
        start += len(rows)
    lines.append(["label in text", "shortcut", *label_in_text(train[:LABELLED], folder, a.seed)])
    head = ["fault", "check", "planted", "recall", "clean rows", "false alarms"]
    return f"{Path(a.file).name}: {len(train):,} train rows. {took}\n\n{markdown(head, lines)}"


def label_in_text(frame: pd.DataFrame, folder: Path, seed: int) -> list[str]:
    """Returns planted rows, recall, clean rows and false alarms for a label written into the text of some rows.

    The check fits rules on train and measures them on validation, so the fault is planted in both. A false alarm is a
    clean row that the check names, and does not name without the fault.
    """
    faulty = frame.copy()
    rows = random.Random(seed).sample(range(len(frame)), round(LABELLED_SHARE * len(frame)))
    for row in rows:
        text, label = frame.iloc[row].astype(str)
        faulty.iloc[[row], 0] = f"{text} label: {label}"
    held = round(len(frame) * TEST_SHARE)
    before, after = (
        prepared(folder, {"train": part[held:], "validation": part[:held]})[0]["shortcut"] for part in (frame, faulty)
    )
    planted = {("validation", row) if row < held else ("train", row - held) for row in rows}
    return shares(len(after & planted), len(planted), len(after - planted - before), len(frame) - len(planted))


def shares(found: int, planted: int, alarms: int, clean: int) -> list[str]:
    """Returns the last columns of a line of the table."""
    return [f"{planted:,}", f"{100 * found / planted:.1f} %", f"{clean:,}", f"{100 * alarms / clean:.2f} %"]


def faulty(fault: Fault, train: pd.DataFrame, texts: Texts, most: int, seed: int) -> pd.DataFrame:
    """Returns copies of train rows, drawn at random, that have the fault."""
    draw = random.Random(seed)
    rows: list[tuple[str, int]] = []
    for text, label in train.sample(frac=1, random_state=seed).itertuples(index=False):
        if len(rows) < most and (made := fault.plant(text, texts, draw)) is not None:
            rows.append((made, label))
    return pd.DataFrame(rows, columns=["text", "label"])


def prepared(folder: Path, splits: Mapping[str, pd.DataFrame]) -> tuple[dict[str, set[tuple[str, int]]], str]:
    """Prepares the splits. Returns every row that a check names, by check, and what it took."""
    for name, rows in splits.items():
        rows.to_parquet(folder / f"{name}.parquet", index=False)
    # A process of its own: its peak memory is what `prepare` needs.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        checks, took = process.submit(measured, folder, list(splits)).result()
    named: dict[str, set[tuple[str, int]]] = defaultdict(set)
    return named | {check["name"]: set(zip(check["splits"], check["rows"], strict=True)) for check in checks}, took


def measured(folder: Path, splits: Sequence[str]) -> tuple[list[Any], str]:
    """Prepares the splits. Returns the checks, with every row that they name, and what it took."""
    bertlora.data.checks.find.ROWS_LISTED = sys.maxsize
    began = time.process_time()
    specs = [f"{name}={folder / name}.parquet" for name in splits]
    data = prepare(specs, folder / "data", split="100/0/0", overwrite=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return (
        data.checks,
        f"Prepared in {time.process_time() - began:.1f} s of processor time, with {peak:,} MiB of memory.",
    )


def random_split(a: argparse.Namespace, frame: pd.DataFrame, folder: Path) -> str:
    """Returns the table of what a random split of all rows leaks, without and with --fix."""
    frame.to_parquet(folder / "all.parquet", index=False)
    columns, notes = [], []
    for fix in (False, True):
        data = prepare([str(folder / "all.parquet")], folder / f"fix-{fix}", fix=fix, seed=a.seed)
        columns.append(leaked(data))
        notes.append(f"{'with' if fix else 'without'} --fix: {data.rows}; {'; '.join(data.notes)}")
    head = [f"part has at least ... words; test rows of {LONGER} words and more", "without --fix", "with --fix"]
    lines = [[str(words), *(f"{100 * column[words]:.1f} %" for column in columns)] for words in PHRASES]
    return "\n".join([*notes, "", markdown(head, lines)])


def leaked(data: Prepared) -> dict[int, float]:
    """Returns the fraction of the longer test rows that contain a train row or are part of one.

    By the number of words that the part has at least.
    """
    train = [tuple(plain(text).split()) for text in data.split("train").texts]
    test = [words for text in data.split("test").texts if len(words := tuple(plain(text).split())) >= LONGER]
    rows, lengths = set(train), {len(words) for words in test}
    inside = {run for words in train for run in parts(words, lengths)}
    largest = []
    for words in test:
        within = (len(run) for run in parts(words, range(1, len(words))) if run in rows)
        largest.append(len(words) if words in inside else max(within, default=0))
    return {words: sum(found >= words for found in largest) / len(test) for words in PHRASES}


def parts(words: tuple[str, ...], lengths: Iterable[int]) -> Iterable[tuple[str, ...]]:
    """Yields the runs of neighbouring words of these lengths."""
    return (words[i : i + n] for n in lengths for i in range(len(words) - n + 1))


def maximal(texts: Sequence[str]) -> set[int]:
    """Returns the rows whose words are not, in the same order, part of another row's words."""
    padded = [f" {plain(text)} " for text in texts]
    found: set[int] = set()
    having: dict[str, list[int]] = {}  # the rows found, by word
    for i in sorted(range(len(texts)), key=lambda i: -len(padded[i])):
        words = set(padded[i].split())
        rarest = min((having.get(word, []) for word in words), key=len, default=[])
        if words and not any(padded[i] in padded[j] for j in rarest):
            found.add(i)
            for word in words:
                having.setdefault(word, []).append(i)
    return found


def plain(text: str) -> str:
    """Returns the words of a text in lower case, with one space between them."""
    return " ".join(re.findall(r"\w+", text.lower()))


def having(words: int, text: str) -> str | None:
    """Returns a text if it has this many words, and not only punctuation."""
    return text if count(text) >= words else None


def count(text: str) -> int:
    """Returns the number of words."""
    return len(plain(text).split())


def markdown(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Returns a table."""
    from contest import table  # imports torch, which would count as memory of `prepare`

    return table(head, lines)


if __name__ == "__main__":
    main()
