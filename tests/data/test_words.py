"""Words of texts, and the words of a tokenizer's tokens."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertlora.data.words import word_spans, words_of_tokens
from bertlora.model.base import find_base


def words_of(text: str) -> list[str]:
    """The words of a text, as they stand in it."""
    return [text[start:end] for start, end in word_spans(text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I don't like it.", ["I", "don't", "like", "it", "."]),
        ("a well-made, 'moving' film!!!", ["a", "well-made", ",", "'", "moving", "'", "film", "!!!"]),
        ("Ein  schöner\n\nFilm", ["Ein", "schöner", "Film"]),
        ("scho\u0308n हिन्दी 한국어", ["scho\u0308n", "हिन्दी", "한국어"]),
        ("great😀❤️👩‍👧!", ["great", "😀❤️👩‍👧", "!"]),
        ("映画はいい", ["映", "画", "は", "い", "い"]),
        ("snake_case 3.5", ["snake_case", "3", ".", "5"]),
        (" \t\n", []),
        ("", []),
    ],
)
def test_words_are_what_people_call_so(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@settings(deadline=None)
@given(st.text())
def test_words_and_the_white_space_between_them_are_the_text(text: str) -> None:
    place = 0
    for start, end in word_spans(text):
        assert text[place:start].strip() == ""
        assert end > start >= place
        place = end
    assert text[place:].strip() == ""


@cache
def tokenizer() -> Any:
    """MiniLM's tokenizer."""
    return find_base("minilm").text_tokenizer()


@settings(deadline=None)
@given(st.text(max_size=40))
def test_every_token_has_the_word_that_it_stands_in(text: str) -> None:
    offsets = tokenizer().spans(text)
    spans, owners = words_of_tokens(text, offsets)
    assert len(owners) == len(tokenizer().ids([text])[0])
    assert owners == sorted(owners)
    for owner, (start, end) in zip(owners, offsets, strict=True):
        assert spans[owner][0] <= start
        assert end <= spans[owner][1]


def test_words_that_a_token_spans_are_one() -> None:
    text = "so-so, (really) 映画"
    offsets = [(0, 5), (5, 9), (9, 14), (14, 15), (16, 18)]
    spans, owners = words_of_tokens(text, offsets)
    assert [text[start:end] for start, end in spans] == ["so-so", ", (really", ")", "映画"]
    assert owners == [0, 1, 1, 2, 3]


def test_white_space_goes_to_the_word_after_it_or_else_the_last() -> None:
    spans, owners = words_of_tokens("a  b ", [(0, 1), (1, 2), (2, 4), (4, 5)])
    assert spans == [(0, 1), (3, 4)]
    assert owners == [0, 1, 1, 1]


def test_text_of_only_white_space_is_a_word_if_it_has_tokens() -> None:
    assert words_of_tokens("  ", [(0, 2)]) == ([(0, 2)], [0])
    assert words_of_tokens("  ", []) == ([], [])
