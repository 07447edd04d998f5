"""Foreign parts of English texts, and letters that became a question mark."""

from pathlib import Path

import pytest
from planted import fresh_texts, rows_of, write_rows
from test_shortcuts import embedded

from bertlora.data.checks.language import foreign_part
from bertlora.data.checks.lost import LostLetters
from bertlora.data.prepared import prepare
from bertlora.data.words import words_of

FOREIGN = {
    "Leider ist die Handlung viel zu lang geraten, und die Schauspieler wirken müde.": "de",
    "Je ne comprends pas pourquoi ce film a reçu autant de prix cette année.": "fr",
    "La película es demasiado larga y los personajes no tienen ninguna profundidad.": "es",
    "Een prachtige film met sterke acteurs en een verhaal dat lang blijft hangen.": "nl",
    "Historien er spændende fra start til slut, og musikken er fantastisk.": "da",
    "Ten film jest zdecydowanie za długi, a aktorzy grają bez przekonania.": "pl",
    "Очень длинный и скучный фильм, актёры играют без желания.": "CYRILLIC",
    "这部电影实在太长了，演员们看起来都很疲惫。": "CJK",
}


def part_of(text: str) -> str:
    return foreign_part(text, words_of(text))


def lost(*texts: str) -> list[bool]:
    letters = LostLetters()
    for text in texts:
        letters.add(text, words_of(text))
    return letters.rows().tolist()


def test_the_embedded_reviews_have_no_foreign_part() -> None:
    assert [text for text in embedded()[0] if part_of(text)] == []


@pytest.mark.parametrize("sentence", FOREIGN)
def test_a_foreign_sentence_is_found_at_any_place(sentence: str) -> None:
    before, after = "The plot is thin and the jokes are old. ", " I would not watch it again with my family."
    for text in (before + sentence + after, sentence + after + before, before + after[1:] + " " + sentence):
        assert part_of(text) == FOREIGN[sentence]
        assert part_of(text.lower()) == FOREIGN[sentence]


def test_names_and_titles_are_no_foreign_part() -> None:
    texts = [
        "It stars Ottaviano Dellacqua, Massimo Vani, Beatrice Ring, Gianluca Bernardini and Luciano Pigozzi.",
        "The best scene of La vita è bella made me cry, and so did the end.",
        "The café owner has a certain je ne sais quoi that the remake lost.",
        "Slow, dull, pretentious, badly edited, poorly acted, utterly predictable nonsense.",
    ]
    assert [part_of(text) for text in texts] == [""] * len(texts)


def test_prepare_lists_rows_with_a_foreign_part(tmp_path: Path) -> None:
    texts = embedded()[0]
    texts = [f"{one} {other}" for one, other in zip(texts[:200], texts[200:400], strict=True)]
    for row, sentence in zip((10, 20, 30), FOREIGN, strict=False):
        texts[row] += " " + sentence
    texts[40] = next(iter(FOREIGN))
    found = prepare([write_rows(tmp_path / "r.jsonl", rows_of(texts))], tmp_path / "data", split="100/0/0").checks
    (check,) = (check for check in found if check["name"] == "language")
    assert check["rows"] == [10, 20, 30, 40]
    assert "(de 2, fr 1, es 1, 3 of these only in a part)" in check["advice"]


def test_lost_letters_are_those_inside_words() -> None:
    fine = [
        "Why? Because it is good.",
        "What is this?It lacks a space.",
        "why?because they say so, what?no",
        "See http://example.com/watch?v=abc or index.php?page=one, is it?",
        "Really?! who knows?? me?",
        "because why they say what no",
    ]
    assert lost(*fine) == [False] * len(fine)
    bad = ["I don?t know", "a na?ve plan", "it?s fa?ade", "the clich?s of it", "we?re there"]
    assert lost(*fine, *bad) == [False] * len(fine) + [True] * len(bad)
    assert lost("plain", bad[1]) == [False, False], "one slip of an author is no wrong encoding"


def test_a_word_that_ends_in_a_lost_letter_has_to_be_repeated() -> None:
    texts = ["a caf? au lait", "the caf? of my street", "one caf? and no more"]
    assert lost(*texts) == [True, True, True]
    assert lost(*texts[:2], "plain") == [False] * 3
    assert lost(*texts, "a caf without an accent") == [False] * 4


def test_prepare_lists_rows_with_lost_letters_as_mojibake(tmp_path: Path) -> None:
    texts = fresh_texts(60, seed=1)
    texts[5], texts[9] = f"{texts[5]} don?t na?ve", f"It?s {texts[9]}"
    (check,) = prepare([write_rows(tmp_path / "r.jsonl", rows_of(texts))], tmp_path / "data", split="100/0/0").checks
    assert (check["name"], check["rows"], check["severity"]) == ("mojibake", [5, 9], "warning")
