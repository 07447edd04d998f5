"""Checks on planted faults, with exact counts: through `prepare` in Python, and through the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import answer, contents, good
from planted import Row, fresh_texts, nearly, rows_of, write_rows

from bertlora.cli.preparing import print_checks
from bertlora.data.checks.language import language_of, script_of
from bertlora.data.checks.texts import has_html, is_empty, is_mojibake
from bertlora.data.checks.tokens import checks_of_inputs
from bertlora.data.inputs import Inputs
from bertlora.data.prepared import Prepared, prepare
from bertlora.data.template import InputTemplate
from bertlora.data.tokens import TokenTable

Checks = dict[str, dict[str, Any]]


def split_files(tmp_path: Path, **splits: list[Row]) -> list[str]:
    return [f"{name}={write_rows(tmp_path / f'{name}.jsonl', rows)}" for name, rows in splits.items()]


def checks_of(tmp_path: Path, **splits: list[Row]) -> Checks:
    prepared = prepare(split_files(tmp_path, **splits), tmp_path / "data")
    return {check["name"]: check for check in prepared.checks}


def places(check: dict[str, Any]) -> list[tuple[str, int]]:
    assert check["count"] == len(check["rows"]) == len(check["splits"])
    return list(zip(check["splits"], check["rows"], strict=True))


def test_clean_data_have_no_checks(tmp_path: Path) -> None:
    texts = fresh_texts(60, seed=1)
    assert (
        checks_of(tmp_path, train=rows_of(texts[:40]), validation=rows_of(texts[40:50]), test=rows_of(texts[50:])) == {}
    )


def test_duplicates_across_splits(tmp_path: Path) -> None:
    texts = fresh_texts(60, seed=2)
    train, validation, test = rows_of(texts[:40]), rows_of(texts[40:50]), rows_of(texts[50:])
    train[7] = train[3]  # word for word, in one split
    train[9] = (nearly(texts[4]), train[9][1])  # near, in one split
    validation[2] = (f" {train[5][0]} ", train[5][1])  # equal except for outer space: in two splits
    test[1] = (nearly(texts[6]), train[6][1])  # near, in two splits
    test[4] = (nearly(texts[41]), "neg")  # near, its first is in validation, with the label pos
    found = checks_of(tmp_path, train=train, validation=validation, test=test)
    assert {name: places(check) for name, check in found.items()} == {
        "exact_duplicates": [("train", 7), ("validation", 2)],
        "near_duplicates": [("train", 9), ("test", 1), ("test", 4)],
        "leakage": [("validation", 2), ("test", 1), ("test", 4)],
    }
    assert {name: check["severity"] for name, check in found.items()} == {
        "exact_duplicates": "warning",
        "near_duplicates": "note",
        "leakage": "warning",
    }
    assert "(1 word for word)" in found["leakage"]["advice"]
    # Row 9 of train has the label pos, and is near row 4, which has neg.
    assert "; 2 of these are near a text with another label" in found["near_duplicates"]["advice"]


def test_conflicting_labels_name_every_row_of_the_text(tmp_path: Path) -> None:
    train, validation = rows_of(fresh_texts(40, seed=3)), rows_of(fresh_texts(10, seed=4))
    train[8] = (train[2][0], "pos")
    validation[0] = (train[5][0], "neg")
    found = checks_of(tmp_path, train=train, validation=validation)
    assert places(found["conflicting_labels"]) == [("train", 2), ("train", 5), ("train", 8), ("validation", 0)]


def test_class_missing_from_validation(tmp_path: Path) -> None:
    texts = fresh_texts(60, seed=5)
    validation = [(text, "pos") for text in texts[40:50]]
    found = checks_of(tmp_path, train=rows_of(texts[:40]), validation=validation, test=rows_of(texts[50:]))
    assert list(found) == ["class_missing"]
    assert found["class_missing"]["count"] == 1
    assert found["class_missing"]["advice"].startswith("validation has no 'neg'; add rows of this class")


def test_odd_texts(tmp_path: Path) -> None:
    texts = fresh_texts(100, seed=6)
    for row in (3, 5, 8):
        texts[row] += "<br /><br />The end."
    texts[11] = texts[11] + " &amp; so on"
    texts[13] = f"The cafÃ© scene is fine {texts[13]}"
    texts[14] = f"It\x92s all {texts[14]}"
    texts[15] = f"The lost \ufffd of {texts[15]}"
    texts[20] = "Ein langweiliger Film ohne Sinn und Verstand, leider viel zu lang geraten."
    texts[21] = "Совершенно"
    texts[22] = "这部电影非常好看"
    texts[30] = "No."
    texts[31] = "\u200b...\u2014"
    texts[40] = " ".join(fresh_texts(12, seed=7))
    found = checks_of(tmp_path, train=rows_of(texts), validation=rows_of(fresh_texts(10, seed=8)))
    assert {name: (check["severity"], check["rows"]) for name, check in found.items()} == {
        "html": ("warning", [3, 5, 8, 11]),
        "mojibake": ("warning", [13, 14, 15]),
        "language": ("note", [20, 21, 22]),
        "very_short": ("note", [21, 30]),
        "only_punctuation": ("warning", [31]),
        "very_long": ("note", [40]),
    }
    for check in found.values():
        places(check)
    assert "(de 1, CYRILLIC 1, CJK 1)" in found["language"]["advice"]
    assert found["very_long"]["advice"].startswith("more than 600 words")


def test_rows_listed_are_the_first_hundred(tmp_path: Path) -> None:
    texts = [f"{text}<br>" for text in fresh_texts(150, seed=9)]
    found = checks_of(tmp_path, train=rows_of(texts), validation=rows_of(fresh_texts(10, seed=10)))
    assert (found["html"]["count"], found["html"]["rows"]) == (150, list(range(100)))


def test_data_in_several_languages_have_no_odd_ones(tmp_path: Path) -> None:
    texts = fresh_texts(40, seed=11)
    for row in range(0, 40, 2):
        texts[row] = f"Очень хороший и добрый фильм для всей семьи, советую посмотреть номер {row}"
    assert "language" not in checks_of(tmp_path, train=rows_of(texts[:30]), validation=rows_of(texts[30:]))


def test_html_mojibake_and_emptiness_of_single_texts() -> None:
    assert [has_html(text) for text in ("a<br />b", "</P>", '<a href="x">', "&#39;", "&QUOT;")] == [True] * 5
    assert [has_html(text) for text in ("3 < 4 > 2", "<3", "R&B; AT&T", "<brilliant>", "a <- b")] == [False] * 5
    assert [is_mojibake(text) for text in ("fianÃ§Ã©e", "donâ€™t", "it\x92s", "\ufffd")] == [True] * 4
    fine = ("fiancée", "don’t — really “fine”", "Ångström", "很好", "naïve café 5 €", "ÇA VA À LA PLAGE", "plain")
    assert [is_mojibake(text) for text in fine] == [False] * len(fine)
    assert [is_empty(text) for text in ("...", "\u200b", "(?!)", "- _")] == [True] * 4
    assert [is_empty(text) for text in ("7", "a", "😀", "+", "好")] == [False] * 5


def test_script_and_language_are_known_only_if_the_text_is_long_enough() -> None:
    assert script_of("Привет, world") == "CYRILLIC"
    assert script_of("ＡＢＣ") == script_of("été") == script_of("abc 123") == "LATIN"
    assert script_of("ひらがな") == script_of("漢字") == "CJK"
    assert [script_of(text) for text in ("5 €", "π", "", "😀😀")] == [""] * 4
    german = "Ein langweiliger Film ohne Sinn und Verstand, leider viel zu lang geraten."
    assert language_of(german) == "de"
    assert language_of("a dull film without sense or reason, and far too long as well") == "en"
    assert [language_of(text) for text in ("Ein langweiliger Film", "la vie en rose", "")] == [""] * 3


def inputs_of(lengths: list[int], long_texts: str = "truncate", second: list[int] | None = None) -> Inputs:
    """Inputs of texts with these numbers of tokens. The maximum length of 12 has 2 special tokens, or 3 for a pair."""
    one = np.zeros(1, np.int32)
    template = InputTemplate((one, one), (one, one, one), (0, 1), 12, "right", long_texts)
    tables = [TokenTable.of([[7] * n for n in column]) for column in (lengths, second) if column is not None]
    return Inputs(template, *tables)


def prepared_with(tmp_path: Path, rows: int) -> Prepared:
    return prepare(split_files(tmp_path, train=rows_of(fresh_texts(rows, seed=12))), tmp_path / "data", split="100/0/0")


def test_tokens_lost_to_truncation(tmp_path: Path) -> None:
    data = prepared_with(tmp_path, 4)
    (check,) = checks_of_inputs(data, lambda split: inputs_of([10, 11, 30, 5]), None)
    assert (check["name"], check["severity"], check["rows"]) == ("truncated", "warning", [1, 2])
    # 1 and 20 tokens of 56.
    assert check["advice"].startswith("50.0 % of texts do not fit in 12 tokens, and 37.5 % of all tokens are cut")
    assert "long_texts = windows" in check["advice"]
    (check,) = checks_of_inputs(data, lambda split: inputs_of([11, 10, 9, 8]), None)
    assert (check["severity"], check["count"]) == ("note", 1)
    assert checks_of_inputs(data, lambda split: inputs_of([10, 1, 1, 1]), None) == []


def test_windows_lose_what_lies_beyond_the_last(tmp_path: Path) -> None:
    data = prepared_with(tmp_path, 4)
    assert checks_of_inputs(data, lambda split: inputs_of([10, 11, 30, 160], "windows"), None) == []
    (check,) = checks_of_inputs(data, lambda split: inputs_of([10, 11, 30, 165], "windows"), None)
    assert check["rows"] == [3]
    assert "2.3 % of all tokens are cut" in check["advice"]  # 5 of 216


def test_truncation_of_pairs_counts_both_texts(tmp_path: Path) -> None:
    data = prepared_with(tmp_path, 3)
    (check,) = checks_of_inputs(data, lambda split: inputs_of([5, 6, 1], second=[4, 4, 8]), None)
    assert check["rows"] == [1]
    assert "5.1" not in check["advice"]
    assert "3.6 % of all tokens" in check["advice"]  # 1 of 28


def test_unknown_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertlora.data.checks.tokens.IDS_AT_ONCE", 3)
    data = prepared_with(tmp_path, 4)
    texts = TokenTable.of([[1, 9, 9], [2], [], [3, 4, 9]])
    inputs = Inputs(inputs_of([]).template, texts)
    (check,) = checks_of_inputs(data, lambda split: inputs, 9)
    assert (check["name"], check["severity"], check["rows"]) == ("unknown_tokens", "warning", [0, 3])
    assert check["advice"].startswith("50.0 % of texts have characters that the tokenizer does not know (3 tokens)")
    assert checks_of_inputs(data, lambda split: inputs, 8) == checks_of_inputs(data, lambda split: inputs, None) == []


def test_prepare_prints_checks_with_what_the_tokenizer_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, validation = rows_of(fresh_texts(30, seed=14)), rows_of(fresh_texts(10, seed=15))
    train[4] = (train[4][0] + " \U00010348<br />", "neg")  # a Gothic letter, which no English vocabulary has
    validation[6] = (" ".join(fresh_texts(3, seed=16)), "pos")
    specs = split_files(tmp_path, train=train, validation=validation)
    said = good(capsys, "prepare", *specs, "--out", tmp_path / "a", "--model", "minilm", "--max-length", "128")
    assert max(map(len, said.out.splitlines())) <= 120
    for words in ("html", "unknown_tokens", "truncated", "train.jsonl line 5", "validation.jsonl line 7", "what to do"):
        assert words in said.out
    found = good(capsys, "prepare", *specs, "--out", tmp_path / "b", "--max-length", "128", "--json").json["checks"]
    assert {check["name"]: places(check) for check in found} == {
        "html": [("train", 4)],
        "truncated": [("validation", 6)],
        "unknown_tokens": [("train", 4)],
    }
    assert json.loads((tmp_path / "b" / "dataset.json").read_text())["checks"] == found
    assert [path.name for path in (tmp_path / "b" / "tokens").iterdir()], "the tokens are kept for training"
    longer = good(capsys, "prepare", *specs, "--out", tmp_path / "c", "--max-length", "256", "--json").json["checks"]
    assert [check["name"] for check in longer] == ["html", "unknown_tokens"]


@pytest.mark.parametrize("length", ["0", "513"])
def test_a_length_that_the_model_does_not_have(tmp_path: Path, capsys: pytest.CaptureFixture[str], length: str) -> None:
    source = write_rows(tmp_path / "r.jsonl", rows_of(fresh_texts(10, seed=17)))
    said = answer(capsys, "prepare", source, "--out", tmp_path / "out", "--model", "minilm", "--max-length", length)
    assert said.status == 2
    assert f"--max-length: got {length}, expected 1 to 512, the positions of minilm" in said.err
    assert not (tmp_path / "out").exists()


def test_strict_makes_warnings_an_error_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(fresh_texts(40, seed=18))
    out = tmp_path / "out"
    good(capsys, "prepare", write_rows(tmp_path / "good.jsonl", rows), "--out", out, "--strict")
    before = contents(out)
    rows[3] = rows[5] = (rows[1][0] + "<br />", "pos")
    rows[7] = ("No.", "pos")
    source = write_rows(tmp_path / "bad.jsonl", rows)
    said = answer(capsys, "prepare", source, "--out", out, "--strict", "--overwrite", "--max-length", "32")
    assert (said.status, said.out) == (2, "")
    assert said.err.count("\n") == 1
    assert "bad.jsonl: --strict forbids exact_duplicates (1), " in said.err
    assert "html (2), " in said.err
    assert "truncated (39)" in said.err
    assert "very_short" not in said.err, "a note is no error"
    assert contents(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "good.jsonl", "out"]


def test_no_checks_are_said_to_be_none(capsys: pytest.CaptureFixture[str]) -> None:
    print_checks([])
    assert capsys.readouterr().out == "checks: nothing found\n"
