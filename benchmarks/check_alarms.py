#!/usr/bin/env python3
"""Counts false alarms and plants faults for the checks of foreign parts, lost letters, shortcuts and shift.

    python benchmarks/check_alarms.py imdb_train.parquet sst2_train.parquet
    python benchmarks/check_alarms.py imdb_train.parquet --rows 4000 --splits 200 --only splits

Prints the figures of each file. Foreign parts are sentences of 20 languages, put between two sentences of a row. Lost
letters are apostrophes, or letters with an accent, that became `?` in 5 % of the texts that have them. Splits are drawn
at random, stratified, from rows that are drawn at random.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from bertlora.data.checks.drawn import Drawn, drawn_of
from bertlora.data.checks.language import foreign_part, language_of, script_of
from bertlora.data.checks.shift import shift_checks
from bertlora.data.checks.shortcuts import shortcut_checks
from bertlora.data.checks.texts import Examiner
from bertlora.data.splits import stratified_split
from bertlora.data.words import words_of

FOREIGN = (
    "Leider ist die Handlung viel zu lang geraten, und die Schauspieler wirken müde.",
    "Der Film hat mir sehr gut gefallen, weil er ohne große Worte auskommt.",
    "Je ne comprends pas pourquoi ce film a reçu autant de prix cette année.",
    "Les acteurs sont excellents, mais le scénario manque vraiment de rythme.",
    "La película es demasiado larga y los personajes no tienen ninguna profundidad.",
    "Me gustó mucho la música, aunque el final fue una gran decepción para todos.",
    "Una storia bellissima, raccontata con grande sensibilità e senza fretta.",
    "Gli attori sono bravi, ma la sceneggiatura non riesce mai a sorprendere.",
    "O filme começa muito bem, mas depois perde completamente o ritmo.",
    "Een prachtige film met sterke acteurs en een verhaal dat lang blijft hangen.",
    "Ik vond het einde erg teleurstellend, ook al was de muziek heel mooi.",
    "Filmen är alldeles för lång och skådespelarna verkar inte bry sig.",
    "Historien er spændende fra start til slut, og musikken er fantastisk.",
    "Ten film jest zdecydowanie za długi, a aktorzy grają bez przekonania.",
    "Filmin sonu beni çok şaşırttı, ama oyuncular gerçekten harikaydı.",
    "Elokuva on aivan liian pitkä, eikä tarina etene mihinkään suuntaan.",
    "Tento film je příliš dlouhý a herci působí velmi unaveně.",
    "Filmul este mult prea lung, iar actorii par obosiți de la început.",
    "A film túl hosszú, és a színészek nagyon fáradtnak tűnnek benne.",
    "Film ini terlalu panjang dan para pemainnya tidak meyakinkan sama sekali.",
    "Очень длинный и скучный фильм, актёры играют без всякого желания.",
    "Η ταινία είναι πολύ μεγάλη και οι ηθοποιοί φαίνονται κουρασμένοι.",
    "这部电影实在太长了，演员们看起来都很疲惫。",
    "この映画はとても長くて、俳優たちは疲れているように見えます。",
    "الفيلم طويل جدا والممثلون يبدون متعبين للغاية.",
    "यह फिल्म बहुत लंबी है और कलाकार थके हुए लगते हैं।",
)
SHARE = 0.05


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="Parquet files with columns text and label (0, 1, ...), in English")
    parser.add_argument("--rows", type=int, default=4000, help="rows of each split and of the planted faults")
    parser.add_argument("--splits", type=int, default=100, help="random splits")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=["texts", "splits"], help="one part of the measurements")
    a = parser.parse_args()
    for file in a.files:
        frame = pd.read_parquet(file)[["text", "label"]]
        parts = [part for name, part in (("texts", of_texts), ("splits", of_splits)) if a.only in (None, name)]
        print(f"{Path(file).name}, {len(frame):,} rows\n")
        for part in parts:
            for line in part(frame, a):
                print(f"  {line}", flush=True)
        print()


def of_texts(frame: pd.DataFrame, a: argparse.Namespace) -> Iterator[str]:
    """Yields the false alarms of foreign parts and lost letters on all rows, and how many planted ones are found."""
    texts, draw = frame.text.tolist(), np.random.default_rng(a.seed)
    yield f"foreign text or part found: {rate(np.array([is_foreign(text) for text in texts]))}"
    yield f"lost letters found: {rate(lost_rows(texts))}"
    chosen = [texts[row] for row in draw.permutation(len(texts))[: a.rows]]
    for sentence in FOREIGN:
        planted = [with_sentence(text, sentence, draw) for text in chosen]
        yield f"planted, found: {rate(np.array([is_foreign(text) for text in planted]))}: {sentence}"
    for name, letters in (("apostrophes", r"(?<=\w)'(?=\w)"), ("letters with an accent", r"[à-öø-ÿ]")):
        hit = np.array([draw.random() < SHARE and re.search(letters, text) is not None for text in texts])
        found = lost_rows([re.sub(letters, "?", text) if bad else text for text, bad in zip(texts, hit, strict=True)])
        yield f"{name} lost in {hit.sum():,} texts: found {rate(found[hit])}"


def of_splits(frame: pd.DataFrame, a: argparse.Namespace) -> Iterator[str]:
    """Yields how many random splits show a shift or a shortcut."""
    draw = np.random.default_rng(a.seed)
    chosen = draw.permutation(len(frame))[: 4 * a.rows]
    every = rows_of(frame.iloc[chosen])
    names = [str(label) for label in range(int(every.labels.max()) + 1)]
    shifts, shortcuts = [], []
    for seed in range(a.splits):
        rows = np.random.default_rng(seed).permutation(len(chosen))[: a.rows]
        split = stratified_split(every.labels[rows], (0.7, 0.15, 0.15), seed)
        parts = {name: every.take(rows[split == i]) for i, name in enumerate(("train", "validation", "test"))}
        parts = {name: Drawn(**(vars(part) | {"split": name, "of": len(part)})) for name, part in parts.items()}
        shifts.append(shift_checks(parts, names))
        shortcuts.append(shortcut_checks(parts, names))
    for name, found in (("shift", shifts), ("shortcut", shortcuts)):
        for severity in ("note", "warning"):
            fired = np.array([any(check["severity"] == severity for check in checks) for checks in found])
            yield f"{name}, {severity}: {rate(fired)} of random splits of {a.rows:,} rows"
        yield from dict.fromkeys(check["advice"] for checks in found[:3] for check in checks)


def rows_of(frame: pd.DataFrame) -> Drawn:
    """Returns these rows with their features and groups."""
    from bertlora.data.checks.near import near_groups

    examiner = Examiner(pairs=False)
    for text in frame.text:
        examiner.add(text, None)
    facts = examiner.facts()
    groups = near_groups(facts.hashes, facts.signatures)
    return drawn_of(([text] for text in frame.text), frame.label.to_numpy(np.int32), np.arange(len(frame)), groups)


def with_sentence(text: str, sentence: str, draw: np.random.Generator) -> str:
    """Returns a text with a sentence between two of its own, or at its end."""
    ends = [found.end() for found in re.finditer(r"[.!?]\s", text)] or [len(text)]
    place = ends[draw.integers(len(ends))]
    return f"{text[:place].rstrip()} {sentence} {text[place:]}"


def lost_rows(texts: list[str]) -> npt.NDArray[np.bool_]:
    """Returns whether letters are lost in each text."""
    from bertlora.data.checks.lost import LostLetters

    lost = LostLetters()
    for text in texts:
        lost.add(text, words_of(text))
    return lost.rows()


def is_foreign(text: str) -> bool:
    """Returns whether the check `language` would list a text among English ones."""
    whole = language_of(text)
    return whole not in ("en", "") or script_of(text) not in ("LATIN", "") or foreign_part(text, words_of(text)) != ""


def rate(found: npt.NDArray[np.bool_]) -> str:
    """Returns a count with its share in percent."""
    return f"{found.sum():,} of {len(found):,} ({100 * found.mean():.2f} %)"


if __name__ == "__main__":
    main()
