"""The language of the texts against the base's vocabulary."""

from pathlib import Path
from typing import Any

import pytest
from foreign_sentences import SENTENCES

from bertlora.data.checks.base_language import Vocabulary, main_language
from bertlora.data.prepared import prepare
from bertlora.data.reader import Reader
from bertlora.data.reviews import embedded_specs
from bertlora.data.rows import iter_texts
from bertlora.model.base import find_base


@pytest.fixture(scope="module")
def reader() -> Reader:
    """Returns the reader of MiniLM, whose vocabulary is BERT's English one."""
    return Reader.of(find_base("minilm").text_tokenizer(), 128, "right")


def checked(tmp_path: Path, reader: Reader, texts: list[str]) -> list[dict[str, Any]]:
    """The check of a file that has these texts with other numbers in them."""
    rows = [f'"{text} {i}",{"good" if i % 2 else "bad"}' for i, text in enumerate(texts * (40 // len(texts)))]
    (tmp_path / "r.csv").write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    data = prepare([str(tmp_path / "r.csv")], tmp_path / "data", reader=reader)
    return [check for check in data.checks if check["name"] == "base_language"]


@pytest.mark.parametrize("language", SENTENCES)
def test_texts_that_an_english_vocabulary_does_not_cover(language: str, tmp_path: Path, reader: Reader) -> None:
    (check,) = checked(tmp_path, reader, list(SENTENCES[language]))
    assert check["severity"] == "warning"
    assert f"({language})" in check["advice"]
    assert "intfloat/multilingual-e5-small or distilbert-base-multilingual-cased" in check["advice"]


@pytest.mark.parametrize(
    "texts",
    [
        ["a joy from the start", "dull and far too long", "i loved every minute", "wonderful acting"],
        [
            "omg luv this 2 much lol xoxo",
            "idk y ppl h8 this tbh imo its gr8",
            "u r 2 funny hahaha #fail",
            "w8 4 it smh rn",
        ],
        [
            "Ticket 4412: RMA for SKU AB-1203, fw v2.1.7 crashes w/ error 0x8007",
            "Invoice INV-2023-0912 paid twice via SEPA, pls refund EUR 49.90",
        ],
    ],
)
def test_no_warning_for_english(texts: list[str], tmp_path: Path, reader: Reader) -> None:
    assert checked(tmp_path, reader, texts) == []


def test_what_is_measured(reader: Reader) -> None:
    vocabulary = Vocabulary.of(reader.tokenizer)
    path = embedded_specs()[0].partition("=")[2]
    english = vocabulary.cover([text for batch in iter_texts(path) for text, _ in batch])
    assert main_language(SENTENCES["de"]) == "de"
    for texts in SENTENCES.values():
        found = vocabulary.cover(texts)
        assert found.odd > 2 * english.odd or found.per_word > 1.3 * english.per_word
    assert vocabulary.cover(SENTENCES["ru"]).odd > 0.8
    pieces = {number: piece for piece, number in reader.tokenizer.pieces().items()}
    ids = [number for found in reader.tokenizer.ids(SENTENCES["ru"]) for number in found]
    letters = [pieces[number].removeprefix("##") for number in ids]
    assert vocabulary.cover(SENTENCES["ru"]).odd == pytest.approx(
        sum(piece == "[UNK]" or (len(piece) == 1 and piece.isalpha()) for piece in letters) / len(letters)
    )
