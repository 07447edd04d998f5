"""Tokenizers without transformers give the ids that transformers gives, or leave the work to transformers."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AlbertTokenizer,
    AutoTokenizer,
    BertConfig,
    CanineTokenizer,
    DebertaTokenizer,
    DebertaV2Tokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

from bertlora.data.reader import Reader
from bertlora.data.template import InputTemplate
from bertlora.data.tokenizer import AnyTokenizer, PythonTokenizer, Tokenizer, from_transformers, read_tokenizer
from bertlora.errors import ModelError
from bertlora.model.base import Base, find_base

Folder = Callable[[str], Path]
Change = Callable[[dict[str, Any]], Any]

TEXTS = [
    "A fine film, unforgettable and well-acted!",
    "Don't   see\tit. NAÏVE café ÀÉ",
    "日本の映画 🙂 12.5 €",
    "[SEP] [MASK] <mask> </s> <s> [UNK] [CLS]x <pad>",
    " leading and trailing ",
    "",
    "x" * 150,
    "a film " * 300,
]
PIECES = st.sampled_from(
    ["film", "Naïve", "日本", "🙂", "[SEP]", "<mask>", "</s>", " ", "\n", "'s", "ﬁ", "e\u0301", "\u200b"]
)
TEXT = st.lists(st.one_of(PIECES, st.text(max_size=4)), max_size=12).map("".join)


def unigram() -> list[tuple[str, float]]:
    pieces = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", "<mask>"]
    pieces += ["▁", "▁a", "▁film", "f", "i", "l", "m", "e", "n", "x", "s", ",", "!"]
    return [(piece, 0.0 if piece[0] in "<[" else -float(i)) for i, piece in enumerate(pieces)]


def bpe() -> dict[str, Any]:
    """Returns a byte-level vocabulary and its merges, trained here."""
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"]
    trained.train_from_iterator(TEXTS * 20, 500, show_progress=False, special_tokens=special)
    model = json.loads(trained._tokenizer.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model["merges"]]}


def plain() -> PreTrainedTokenizerFast:
    state = MADE["roberta"]().backend_tokenizer
    return PreTrainedTokenizerFast(tokenizer_object=state, pad_token="<pad>", unk_token="<unk>")


MADE: dict[str, Callable[[], Any]] = {
    "roberta": lambda: RobertaTokenizer(**bpe()),
    "mpnet": lambda: MPNetTokenizer(
        vocab={piece: i for i, piece in enumerate([*(p for p, _ in unigram()), "[UNK]", "film", "a", "##s"])}
    ),
    "plain": plain,
    "deberta": lambda: DebertaTokenizer(**bpe()),
    "albert": lambda: AlbertTokenizer(vocab=unigram()),
    "xlm-roberta": lambda: XLMRobertaTokenizer(vocab=unigram()),
    "deberta-v2": lambda: DebertaV2Tokenizer(vocab=unigram()),
}
READ_FROM_FILE = ["roberta", "mpnet", "plain"]


def check_equal(folder: Path, tokenizer: Any, texts: list[str] = TEXTS) -> None:
    """Checks ids, spans and special tokens against AutoTokenizer."""
    theirs = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.ids(texts) == theirs(texts, add_special_tokens=False, verbose=False)["input_ids"]
    for text in texts:
        expected = theirs(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        assert tokenizer.spans(text) == expected["offset_mapping"]
    for pair in (None, texts[1]):
        expected = theirs(texts[0], pair, return_token_type_ids=True)
        assert tokenizer.with_special(texts[0], pair) == (expected["input_ids"], expected["token_type_ids"])
    assert (tokenizer.pad_id, tokenizer.unknown_id, tokenizer.mask_id) == (
        theirs.pad_token_id,
        theirs.unk_token_id,
        theirs.mask_token_id,
    )
    assert tokenizer.key == from_transformers(theirs).key
    assert tokenizer.folder == folder


@pytest.fixture
def minilm(tmp_path: Path) -> Path:
    """Returns a copy of the small files of MiniLM."""
    source = find_base("minilm").folder
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json"):
        shutil.copy(source / name, tmp_path)
    return tmp_path


def change(path: Path, edit: Change) -> None:
    table = json.loads(path.read_text()) if path.exists() else {}
    edit(table)
    path.write_text(json.dumps(table))


def test_minilm_reads_as_transformers_does() -> None:
    folder = find_base("minilm").folder
    found = read_tokenizer(folder)
    assert found is not None
    check_equal(folder, found)


@pytest.fixture(scope="module")
def both() -> tuple[AnyTokenizer, Any]:
    """Returns our tokenizer of MiniLM, and transformers'."""
    return find_base("minilm").text_tokenizer(), find_base("minilm").tokenizer()


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(TEXT, min_size=1, max_size=4))
def test_any_text_has_the_ids_of_transformers(both: tuple[AnyTokenizer, Any], texts: list[str]) -> None:
    ours, theirs = both
    assert ours.ids(texts) == theirs(texts, add_special_tokens=False, verbose=False)["input_ids"]


@pytest.mark.parametrize("architecture", ["bert", "roberta", "mpnet", "deberta-v2", "modernbert"])
def test_the_tiny_models_are_read_from_their_file(architecture: str, tiny: Folder) -> None:
    found = read_tokenizer(tiny(architecture))
    assert found is not None
    check_equal(tiny(architecture), found)


@pytest.mark.parametrize("kind", MADE)
def test_every_family_reads_as_transformers_does(kind: str, tmp_path: Path) -> None:
    MADE[kind]().save_pretrained(tmp_path)
    assert (read_tokenizer(tmp_path) is not None) == (kind in READ_FROM_FILE)
    check_equal(tmp_path, Base(kind, tmp_path).text_tokenizer())


def set_truncation(table: dict[str, Any]) -> None:
    table["truncation"] = {"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    padding = {"direction": "Left", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    table["padding"] = {"strategy": {"Fixed": 40}} | padding


def test_truncation_and_padding_of_the_file_are_off(minilm: Path) -> None:
    change(minilm / "tokenizer.json", set_truncation)
    found = read_tokenizer(minilm)
    assert found is not None
    assert [len(ids) for ids in found.ids(["a film " * 40, "a"])] == [80, 1]
    check_equal(minilm, found)
    assert found.key == find_base("minilm").text_tokenizer().key


def test_a_hub_folder_without_special_tokens_in_its_config(minilm: Path) -> None:
    (minilm / "special_tokens_map.json").unlink()
    (minilm / "tokenizer_config.json").write_text('{"do_lower_case": true, "model_max_length": 512}')
    found = read_tokenizer(minilm)
    assert found is not None
    check_equal(minilm, found)


def added(flags: dict[str, Any]) -> dict[str, Any]:
    """Returns `added_tokens_decoder` as transformers 4 wrote it, with one token changed."""
    names = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    usual = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {str(i): {"content": name, **usual} | (flags if i == 103 else {}) for i, name in names.items()}


def test_a_folder_of_transformers_4(minilm: Path) -> None:
    change(minilm / "tokenizer_config.json", lambda table: table.update(added_tokens_decoder=added({})))
    found = read_tokenizer(minilm)
    assert found is not None
    check_equal(minilm, found)


@pytest.mark.parametrize(
    ("file", "edit"),
    [
        ("tokenizer.json", lambda table: table["normalizer"].update(lowercase=False)),
        ("tokenizer.json", lambda table: table["normalizer"].update(handle_chinese_chars=False)),
        ("tokenizer.json", lambda table: table.update(pre_tokenizer={"type": "Whitespace"})),
        ("tokenizer.json", lambda table: table["model"].update(max_input_chars_per_word=5)),
        ("tokenizer.json", lambda table: table["post_processor"]["single"].pop()),
        ("tokenizer.json", lambda table: table["added_tokens"].pop()),
        ("tokenizer_config.json", lambda table: table.update(do_lower_case=False)),
        ("tokenizer_config.json", lambda table: table.update(strip_accents=False)),
        ("tokenizer_config.json", lambda table: table.update(additional_special_tokens=["film"])),
        ("tokenizer_config.json", lambda table: table.update(added_tokens_decoder=added({"lstrip": True}))),
        ("tokenizer_config.json", lambda table: table.update(tokenizer_class="RobertaTokenizer")),
    ],
)
def test_a_file_that_differs_from_its_config_is_left_to_transformers(file: str, edit: Change, minilm: Path) -> None:
    change(minilm / file, edit)
    assert read_tokenizer(minilm) is None
    try:
        expected = AutoTokenizer.from_pretrained(minilm)
    except Exception:
        pytest.skip("transformers builds no such tokenizer")
    assert Base("m", minilm).text_tokenizer().ids(TEXTS) == expected(TEXTS, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}"])
def test_damaged_files_are_reported(text: str | None, minilm: Path) -> None:
    if text is None:
        (minilm / "tokenizer.json").unlink()
    else:
        (minilm / "tokenizer.json").write_text(text)
    assert read_tokenizer(minilm) is None
    with pytest.raises(ModelError, match="no usable tokenizer"):
        Base("m", minilm).text_tokenizer()


def test_a_tokenizer_without_words_is_reported(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no usable tokenizer"):
        Base("m", tmp_path).text_tokenizer()


def test_a_tokenizer_in_python_is_read_with_but_has_no_spans() -> None:
    whole = CanineTokenizer()
    found = from_transformers(whole)
    assert isinstance(found, PythonTokenizer)
    assert found.ids(["ab", ""]) == [[97, 98], []]
    template = InputTemplate.of(found, 16, "right")
    assert template(found.ids(["ab"])[0])[0].tolist() == whole("ab")["input_ids"]
    assert len(found.key) == 16
    with pytest.raises(ModelError, match="does not say which characters"):
        found.spans("ab")


def test_a_copy_is_not_changed_by_calls_of_the_whole_tokenizer() -> None:
    whole = find_base("minilm").tokenizer()
    found = from_transformers(whole)
    assert isinstance(found, Tokenizer)
    whole(["a", "a film about nothing"], truncation=True, max_length=3, padding=True)
    assert [len(ids) for ids in found.ids(["a", "a film about nothing"])] == [1, 4]
    assert len(Reader.of(found, 16, "right").read(["a film about nothing"]).first[0]) == 4


LIGHT = """
import sys
from pathlib import Path
from bertlora.data.prepared import check_sources, prepare
from bertlora.data.reader import Reader
from bertlora.errors import DataError
from bertlora.model.base import find_base, longest_input

heavy = ("torch", "transformers", "peft", "datasets", "accelerate")
folder = Path(sys.argv[1])
try:
    check_sources([str(folder / "r.csv")], text_column="nope")
except DataError as error:
    assert "text_column 'nope' is not one of its columns" in str(error)
assert not {*heavy, "sklearn", "scipy", "pyarrow", "pandas", "tokenizers"} & set(sys.modules), "a wrong column"
base = find_base("minilm")
base.check_weights()
base.tensor_names()
reader = Reader.of(base.text_tokenizer(), min(8, longest_input(base)), "right")
data = prepare([str(folder / "r.csv")], folder / "data", reader=reader)
assert "truncated" in [check["name"] for check in data.checks]
assert not set(heavy) & set(sys.modules), set(heavy) & set(sys.modules)
"""


def test_preparing_and_its_errors_need_no_heavy_library(tmp_path: Path) -> None:
    rows = [f"a film of which I liked part {i} and no other,{'pos' if i % 2 else 'neg'}" for i in range(40)]
    (tmp_path / "r.csv").write_text("review,sentiment\n" + "\n".join(rows) + "\n")
    found = subprocess.run([sys.executable, "-c", LIGHT, str(tmp_path)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
