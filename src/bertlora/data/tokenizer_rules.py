"""When tokenizer.json holds the tokenizer that transformers would build.

transformers 5 does not always take tokenizer.json as it is. For some classes, such as BertTokenizer, it takes only the
vocabulary from the file and builds the rest from tokenizer_config.json. So the file is used only if each part in it is
the part that the class would build. All other tokenizers (SentencePiece models such as ALBERT, XLM-R and DeBERTa-v2,
and DeBERTa) are built through transformers.
"""

from typing import Any

# Classes that use tokenizer.json as it is.
PLAIN_CLASSES = ("PreTrainedTokenizer", "TokenizersBackend")
# transformers may change the splitting rules of a plain tokenizer that has more tokens than this.
PLAIN_MOST_TOKENS = 100_000
# The class that transformers takes if tokenizer_config.json names none, by the model_type of config.json.
CLASS_OF_MODEL = {
    "bert": "BertTokenizer",
    "distilbert": "BertTokenizer",
    "electra": "BertTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
}
# Special tokens of a class if tokenizer_config.json names none.
_BERT_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_ROBERTA_TOKENS = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
_ROBERTA_TOKENS |= {"bos": "<s>", "eos": "</s>"}
CLASS_TOKENS = {
    "BertTokenizer": _BERT_TOKENS,
    "DistilBertTokenizer": _BERT_TOKENS,
    "ElectraTokenizer": _BERT_TOKENS,
    "MPNetTokenizer": _ROBERTA_TOKENS | {"unk": "[UNK]"},
    "RobertaTokenizer": _ROBERTA_TOKENS,
}
SPECIAL = ("pad", "unk", "cls", "sep", "mask", "bos", "eos")


def special_tokens(config: dict[str, Any], model: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Returns the class that transformers takes, and its special tokens by name (`pad`, `unk`, `cls`, ...).

    Args:
        config: tokenizer_config.json, with special_tokens_map.json if it has no list of added tokens.
        model: config.json; empty for an adapter's folder.
    """
    by_model = CLASS_OF_MODEL.get(model.get("model_type", ""), "")
    kind = str(config.get("tokenizer_class") or model.get("tokenizer_class") or by_model).removesuffix("Fast")
    defaults = CLASS_TOKENS.get(kind, {}) if kind == by_model or not model else {}
    tokens = {name: _content(config.get(f"{name}_token")) or defaults.get(name) for name in SPECIAL}
    return kind, {name: token for name, token in tokens.items() if token}


def as_transformers(state: dict[str, Any], kind: str, config: dict[str, Any], tokens: dict[str, str]) -> bool:
    """Returns whether transformers would build the same tokenizer.

    Args:
        state: the tokenizer of tokenizer.json, as JSON.
        kind: the class that transformers takes.
        config: tokenizer_config.json.
        tokens: the special tokens by name.
    """
    added = {token["content"]: token for token in state["added_tokens"]}
    known = _added_tokens(config)
    if any(added.get(token["content"]) != token for token in known) or (known and len(known) < len(added)):
        return False
    extra = config.get("additional_special_tokens") or config.get("extra_special_tokens") or []
    named = [*tokens.values(), *map(_content, extra)]
    if any(token not in added for token in named) or config.get("split_special_tokens") or "auto_map" in config:
        return False
    if kind in PLAIN_CLASSES:
        return bool(state["post_processor"]) and len(state["model"]["vocab"]) <= PLAIN_MOST_TOKENS
    if kind not in CLASS_TOKENS or not {"unk", "cls", "sep"} <= tokens.keys():
        return False
    vocabulary = state["model"]["vocab"]
    if any(vocabulary.get(token["content"]) != token["id"] for token in added.values()):
        return False
    built = _bpe(config) if kind == "RobertaTokenizer" else _wordpiece(config, tokens)
    model = {name: value for name, value in state["model"].items() if name not in ("vocab", "merges")}
    built |= {"post_processor": _post_processor(kind, config, tokens, vocabulary)}
    return model == built.pop("model") and all(state[part] == value for part, value in built.items())


def _wordpiece(config: dict[str, Any], tokens: dict[str, str]) -> dict[str, Any]:
    """Returns the parts that BertTokenizer and MPNetTokenizer build."""
    return {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
            "strip_accents": config.get("strip_accents"),
            "lowercase": config.get("do_lower_case", True),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {
            "type": "WordPiece",
            "unk_token": tokens["unk"],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
    }


def _bpe(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the parts that RobertaTokenizer builds."""
    prefix = config.get("add_prefix_space", False)
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
        },
    }


def _post_processor(
    kind: str, config: dict[str, Any], tokens: dict[str, str], vocabulary: dict[str, int]
) -> dict[str, Any]:
    """Returns the part of a class that adds the special tokens."""
    first, last = tokens["cls"], tokens["sep"]
    ends = {token: vocabulary.get(token) for token in (first, last)}
    if kind in ("RobertaTokenizer", "MPNetTokenizer"):
        roberta = kind == "RobertaTokenizer"
        return {
            "type": "RobertaProcessing",
            "sep": [last, ends[last]],
            "cls": [first, ends[first]],
            "trim_offsets": bool(config.get("trim_offsets", True)) if roberta else True,
            "add_prefix_space": bool(config.get("add_prefix_space", False)) if roberta else False,
        }

    def special(token: str, type_id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": type_id}}

    text, pair = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    single = [special(first, 0), text, special(last, 0)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, pair, special(last, 1)],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]} for token, number in ends.items()},
    }


def _added_tokens(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"id": int(number), **token} for number, token in (config.get("added_tokens_decoder") or {}).items()]


def _content(token: Any) -> str | None:
    """Returns a special token's text: configs hold it as it is, or in an object with its flags."""
    return token.get("content") if isinstance(token, dict) else token
