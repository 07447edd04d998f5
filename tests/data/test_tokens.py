"""Input templates against the tokenizers' own truncation, tables kept on disk, and batches."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import RobertaProcessing
from transformers import PreTrainedTokenizerFast

from bertlora.data.inputs import Inputs, token_batches
from bertlora.data.reader import Reader
from bertlora.data.template import InputTemplate
from bertlora.data.tokenizer import AnyTokenizer, from_transformers
from bertlora.data.tokens import TokenTable, kept_tokens, token_chunks, tokenize
from bertlora.errors import InputError, ModelError
from bertlora.model.base import find_base

Tables = Callable[[], Iterable[TokenTable]]

WORDS = [
    "a",
    "film",
    "unforgettable",
    "well-acted",
    "don't",
    "naïve",
    "日本",
    "🙂",
    "...",
    "12.5",
    "zzyzx",
    "\n",
    "[SEP]",
    "</s>",
]
TEXT = st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join)
SIDE = st.sampled_from(["left", "right"])
LENGTH = st.integers(8, 40)
MANY = settings(max_examples=150, deadline=None)


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """Returns transformers' tokenizers: MiniLM's, and one in RoBERTa's style that is trained here."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator([" ".join(WORDS)] * 20, 400, show_progress=False, special_tokens=["<s>", "<pad>", "</s>"])
    bpe.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    roberta = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=512
    )
    return {"bert": find_base("minilm").tokenizer(), "roberta": roberta}


@pytest.fixture(scope="module")
def tokenizers(whole: dict[str, Any]) -> dict[str, AnyTokenizer]:
    """Returns the same tokenizers as texts are read with."""
    return {"bert": find_base("minilm").text_tokenizer(), "roberta": from_transformers(whole["roberta"])}


def read(tokenizer: AnyTokenizer, texts: list[str], pairs: list[str] | None, length: int, truncation: str) -> Inputs:
    return Reader.of(tokenizer, length, truncation).read(texts, pairs)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@MANY
@given(text=TEXT, length=LENGTH, side=SIDE)
def test_a_text_is_formatted_as_its_tokenizer_does(
    kind: str, whole: dict[str, Any], tokenizers: dict[str, AnyTokenizer], text: str, length: int, side: str
) -> None:
    tokenizer = whole[kind]
    tokenizer.truncation_side = side
    expected = tokenizer(text, truncation=True, max_length=length)["input_ids"]
    inputs = read(tokenizers[kind], [text], None, length, side)
    assert inputs.window(0)[0].tolist() == expected
    assert inputs.window(0)[1] is None
    assert inputs.lengths.tolist() == [len(expected)]


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@MANY
@given(text=TEXT, pair=TEXT, length=LENGTH, side=SIDE)
def test_a_pair_is_formatted_as_its_tokenizer_does(
    kind: str, whole: dict[str, Any], tokenizers: dict[str, AnyTokenizer], text: str, pair: str, length: int, side: str
) -> None:
    tokenizer = whole[kind]
    tokenizer.truncation_side = side
    expected = tokenizer([text], [pair], truncation="longest_first", max_length=length, return_token_type_ids=True)
    inputs = read(tokenizers[kind], [text], [pair], length, side)
    ids, types = inputs.window(0)
    assert ids.tolist() == expected["input_ids"][0]
    assert types is not None
    assert types.tolist() == expected["token_type_ids"][0]
    assert inputs.lengths.tolist() == [len(ids)]


@MANY
@given(length=st.integers(0, 60), room=st.integers(8, 40))
def test_head_tail_keeps_a_quarter_of_head(tokenizers: dict[str, AnyTokenizer], length: int, room: int) -> None:
    template = InputTemplate.of(tokenizers["bert"], room + 2, "head-tail")
    assert template.room(pair=False) == room
    text = np.arange(1000, 1000 + length, dtype=np.int32)
    ids = template(text)[0].tolist()
    assert (ids[0], ids[-1]) == (101, 102)
    head = room // 4
    expected = text if length <= room else np.concatenate([text[:head], text[length - (room - head) :]])
    assert ids[1:-1] == expected.tolist()


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8), length=LENGTH, pairs=st.booleans())
def test_lengths_are_those_of_what_is_formatted(
    tokenizers: dict[str, AnyTokenizer], rows: list[tuple[str, str]], length: int, pairs: bool
) -> None:
    second = [b for _, b in rows] if pairs else None
    inputs = read(tokenizers["bert"], [a for a, _ in rows], second, length, "head-tail")
    real = [len(inputs.window(i)[0]) for i in range(len(inputs))]
    assert inputs.lengths.tolist() == real
    assert max(real) <= length
    some = list(range(0, len(rows), 2))
    taken = inputs.take(some)
    assert [taken.window(i)[0].tolist() for i in range(len(taken))] == [inputs.window(i)[0].tolist() for i in some]


def test_no_room_for_text_is_an_error(tokenizers: dict[str, AnyTokenizer]) -> None:
    with pytest.raises(ModelError, match="max_length 3 leaves no room"):
        InputTemplate.of(tokenizers["bert"], 3, "right")


def test_a_text_must_be_a_string(tokenizers: dict[str, AnyTokenizer]) -> None:
    reader = Reader.of(tokenizers["bert"], 16, "right")
    with pytest.raises(InputError, match="text 1: got NoneType, expected a string"):
        reader.read(["a", None])  # type: ignore[list-item]
    with pytest.raises(InputError, match="second text 0: got int, expected a string"):
        reader.read(["a"], [1])  # type: ignore[list-item]


def test_as_many_second_texts_as_texts(tokenizers: dict[str, AnyTokenizer]) -> None:
    with pytest.raises(InputError, match="got 2 texts and 1 second texts"):
        Reader.of(tokenizers["bert"], 16, "right").read(["a", "b"], ["c"])


def counted(make: Tables) -> tuple[Tables, list[int]]:
    calls: list[int] = []

    def counting() -> Iterable[TokenTable]:
        calls.append(1)
        return make()

    return counting, calls


def test_kept_tokens_are_read_back_without_tokenising_again(
    tokenizers: dict[str, AnyTokenizer], tmp_path: Path
) -> None:
    texts = ["a fine film", "", "dull"]
    table = tokenize(tokenizers["bert"], texts)
    make, calls = counted(lambda: token_chunks(tokenizers["bert"], texts))
    for _ in range(2):
        found = kept_tokens(tmp_path / "tokens", "train.text", make)
        assert [found[i].tolist() for i in range(len(found))] == [table[i].tolist() for i in range(3)]
        assert found.lengths.tolist() == table.lengths.tolist() == [3, 0, 1]
    assert len(calls) == 1
    assert not list((tmp_path / "tokens").glob(".*"))


@pytest.mark.parametrize("damage", [b"", None, b"garbage"])
@pytest.mark.parametrize("suffix", ["ids", "offsets.npy", "json"])
def test_damaged_tokens_are_made_again(
    tokenizers: dict[str, AnyTokenizer], tmp_path: Path, suffix: str, damage: bytes | None
) -> None:
    make, calls = counted(lambda: token_chunks(tokenizers["bert"], ["a fine film"]))
    expected = kept_tokens(tmp_path, "train.text", make)[0].tolist()
    file = tmp_path / f"train.text.{suffix}"
    file.unlink() if damage is None else file.write_bytes(damage)
    for _ in range(2):
        assert kept_tokens(tmp_path, "train.text", make)[0].tolist() == expected
    assert len(calls) == 2


def test_kept_tokens_of_no_text(tokenizers: dict[str, AnyTokenizer], tmp_path: Path) -> None:
    for _ in range(2):
        assert len(kept_tokens(tmp_path, "empty", lambda: token_chunks(tokenizers["bert"], []))) == 0


def test_a_folder_that_cannot_be_written_stops_nothing(tokenizers: dict[str, AnyTokenizer], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    table = kept_tokens(tmp_path / "file", "train.text", lambda: token_chunks(tokenizers["bert"], ["a film"]))
    assert len(table[0]) == 2


def test_the_key_is_the_vocabulary_and_not_the_last_call(whole: dict[str, Any], tokenizers: dict[str, Any]) -> None:
    assert from_transformers(whole["bert"]).key == tokenizers["bert"].key
    whole["bert"](["a", "b c d"], truncation=True, max_length=3, padding=True)
    assert from_transformers(whole["bert"]).key == tokenizers["bert"].key
    assert tokenizers["roberta"].key != tokenizers["bert"].key


@MANY
@given(lengths=st.lists(st.integers(1, 60), max_size=50), size=st.integers(1, 9), most=st.integers(20, 200))
def test_batches_hold_each_row_once_within_their_limits(lengths: list[int], size: int, most: int) -> None:
    batches = list(token_batches(np.array(lengths, dtype=np.int64), size, most))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[row] for row in batch)
        assert len(batch) <= size
        assert len(batch) == 1 or longest * len(batch) <= most
    heads = [lengths[batch[0]] for batch in batches]
    assert heads == sorted(heads, reverse=True)
