"""Saved and loaded: PEFT gives the same logits with what we save, and labels, length and head come back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers import EVERY, LABELS, PAIRS, TEXTS, adapted_of, logits_of, peft_logits, probabilities_of, tiny_recipe
from safetensors.torch import load, load_file
from transformers import AutoTokenizer

from bertlora.errors import ModelError, RunError
from bertlora.model.adapted import Adapted
from bertlora.model.adapter_files import WEIGHTS_FILE, adapter_classes, is_adapter, read_adapter_config, weights_bytes
from bertlora.model.engine.lora_linear import LoraLinear
from bertlora.model.state import load_trained_state, trained_state

Tiny = Callable[[str], Path]
VARIANTS: list[dict[str, Any]] = [
    {"variant": "rslora"},
    {"variant": "dora"},
    {"variant": "pissa"},
    {"variant": "pissa", "rank_pattern": {"value": 2}, "alpha_pattern": {"query": 3}},
    {"bias": "all"},
    {"bias": "lora_only", "variant": "dora"},
    {"bias": "all", "variant": "pissa"},
    {"targets": ("all-linear",)},
    {"rank_pattern": {"value": 2}, "alpha_pattern": {"query": 3}},
    {"adapt_last_layers": 1, "targets": ("all-linear",)},
]


def assert_round_trip(folder: Path, to: Path, **keys: Any) -> None:
    """What is saved gives the same logits through PEFT, and through us; and the adapter does change the output."""
    adapted = adapted_of(folder, **keys)
    expected = logits_of(adapted, TEXTS)
    assert np.abs(expected - logits_of(adapted, TEXTS, base=True)).max() > 1e-2
    adapted.save(to)
    assert np.allclose(peft_logits(folder, to, TEXTS), expected, atol=1e-5)
    loaded = Adapted.load(to, adapted.base, LABELS, adapted.reader, seed=42)
    assert np.allclose(logits_of(loaded, TEXTS), expected, atol=1e-5)
    assert np.allclose(logits_of(loaded, TEXTS, base=True), logits_of(adapted, TEXTS, base=True), atol=1e-5)


@pytest.mark.parametrize("architecture", EVERY)
def test_peft_loads_what_we_save(architecture: str, tiny: Tiny, tmp_path: Path) -> None:
    assert_round_trip(tiny(architecture), tmp_path)


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
@pytest.mark.parametrize("keys", VARIANTS, ids=str)
def test_peft_loads_every_variant(keys: dict[str, Any], architecture: str, tiny: Tiny, tmp_path: Path) -> None:
    assert_round_trip(tiny(architecture), tmp_path, **keys)


@pytest.mark.parametrize("architecture", EVERY)
def test_pairs_too(architecture: str, tiny: Tiny, tmp_path: Path) -> None:
    adapted = adapted_of(tiny(architecture), max_length=20)
    expected = logits_of(adapted, TEXTS, PAIRS)
    assert np.abs(expected - logits_of(adapted, PAIRS, TEXTS)).max() > 1e-3
    adapted.save(tmp_path)
    assert np.allclose(peft_logits(tiny(architecture), tmp_path, TEXTS, PAIRS), expected, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokenizer_saved_cuts_as_we_do(side: str, tiny: Tiny, tmp_path: Path) -> None:
    if side == "left" and tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 5):
        pytest.skip("transformers 5.0 and 5.1 ignore the truncation side of a saved tokenizer; 5.5 does not")
    adapted = adapted_of(tiny("bert"), max_length=9, truncation=side)
    adapted.save(tmp_path)
    assert max(len(adapted.reader.read(TEXTS).window(i)[0]) for i in range(4)) == 9
    assert np.allclose(peft_logits(tiny("bert"), tmp_path, TEXTS), logits_of(adapted, TEXTS), atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.model_max_length, tokenizer.truncation_side) == (9, side)


def test_what_pissa_saves_is_plain_lora_of_twice_the_rank(tiny: Tiny, tmp_path: Path) -> None:
    adapted = adapted_of(tiny("bert"), variant="pissa", rank=3, alpha=6)
    adapted.save(tmp_path)
    config = read_adapter_config(tmp_path)
    assert (config.r, config.lora_alpha, config.init_lora_weights) == (6, 12, True)
    shapes = {tuple(v.shape) for k, v in load_file(tmp_path / WEIGHTS_FILE).items() if "lora_A" in k}
    assert shapes == {(6, 32)}


def test_equal_weights_give_equal_bytes() -> None:
    """safetensors orders metadata at random; a run that was resumed must not differ by that."""
    tensors = {"b.ä": torch.rand(2, 3), "a": torch.rand(5)}
    (content,) = {weights_bytes(tensors) for _ in range(20)}
    found = load(content)
    assert all(found[name].equal(tensors[name]) for name in tensors)


def test_saving_changes_nothing_in_the_model(tiny: Tiny, tmp_path: Path) -> None:
    adapted = adapted_of(tiny("bert"), variant="pissa")
    before = logits_of(adapted, TEXTS)
    for _ in range(2):
        adapted.save(tmp_path)
        assert np.array_equal(logits_of(adapted, TEXTS), before)
    assert np.allclose(peft_logits(tiny("bert"), tmp_path, TEXTS), before, atol=1e-5)


@pytest.mark.parametrize("variant", ["lora", "dora", "pissa"])
def test_weights_that_are_no_numbers_are_not_saved(variant: str, tiny: Tiny, tmp_path: Path) -> None:
    adapted = adapted_of(tiny("bert"), variant=variant)
    with torch.no_grad():
        next(p for n, p in adapted.model.named_parameters() if "lora_B" in n).fill_(float("nan"))
    with pytest.raises(ModelError, match="it was not saved"):
        adapted.save(tmp_path / "adapter")
    assert not is_adapter(tmp_path / "adapter")


def test_what_is_saved_is_trained_and_nothing_else(tiny: Tiny, tmp_path: Path) -> None:
    adapted = adapted_of(tiny("distilbert"))
    adapted.save(tmp_path)
    saved = load_file(tmp_path / WEIGHTS_FILE)
    assert sum(v.numel() for v in saved.values()) == adapted.model.get_nb_trainable_parameters()[0]
    assert sum("pre_classifier" in name for name in saved) == 2
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny("distilbert"))
    assert config["inference_mode"] is True


def test_the_embedded_model_is_named_as_on_the_hub(tmp_path: Path) -> None:
    Adapted.fresh(tiny_recipe(Path("minilm")), LABELS).save(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "sentence-transformers/all-MiniLM-L6-v2"


def test_trained_state_comes_back(tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"))
    before, state = logits_of(adapted, TEXTS), trained_state(adapted.model)
    load_trained_state(adapted.model, {name: 0 * value for name, value in state.items()})
    assert not np.allclose(logits_of(adapted, TEXTS), before)
    load_trained_state(adapted.model, state)
    assert np.array_equal(logits_of(adapted, TEXTS), before)


def test_a_loaded_adapter_runs_on_our_linear(tiny: Tiny, tmp_path: Path) -> None:
    adapted = adapted_of(tiny("bert"))
    adapted.save(tmp_path)
    loaded = Adapted.load(tmp_path, adapted.base, LABELS, adapted.reader, seed=42)
    assert sum(isinstance(m, LoraLinear) for m in loaded.model.modules()) == 4
    assert not loaded.model.training


@pytest.mark.parametrize("variant", ["lora", "dora", "pissa"])
def test_merged_gives_the_same(variant: str, tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"), variant=variant, bias="all")
    merged = adapted.merged().eval()
    inputs = adapted.reader.read(["a film"])
    with torch.inference_mode():
        ids = torch.from_numpy(inputs.window(0)[0].astype(np.int64))[None].to(merged.device)
        found = merged(input_ids=ids).logits.cpu().numpy()
    assert np.allclose(found, adapted.logits(inputs), atol=1e-5)


def test_probabilities(tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"))
    found = probabilities_of(adapted, TEXTS)
    assert (found.shape, found.dtype) == ((4, 3), np.float64)
    assert np.allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "IA3"}, "holds a IA3 adapter, expected LORA"),
        ({"peft_type": None}, "holds a None adapter, expected LORA"),
    ],
)
def test_an_adapter_of_another_kind(change: dict[str, Any], said: str, tiny: Tiny, tmp_path: Path) -> None:
    adapted_of(tiny("bert")).save(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(RunError, match=said):
        read_adapter_config(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_a_damaged_adapter_config(text: str, tiny: Tiny, tmp_path: Path) -> None:
    adapted_of(tiny("bert")).save(tmp_path)
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(RunError, match=r"adapter_config\.json: cannot be read|holds a None adapter"):
        read_adapter_config(tmp_path)


def test_damaged_and_missing_weights(tiny: Tiny, tmp_path: Path) -> None:
    adapted = adapted_of(tiny("bert"))
    adapted.save(tmp_path)
    assert adapter_classes(tmp_path) == 3
    (tmp_path / WEIGHTS_FILE).write_bytes(b"nothing")
    with pytest.raises(RunError, match="cannot be read"):
        adapter_classes(tmp_path)
    with pytest.raises(RunError):
        Adapted.load(tmp_path, adapted.base, LABELS, adapted.reader, seed=42)
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(RunError, match=f"{WEIGHTS_FILE} is missing"):
        read_adapter_config(tmp_path)


@pytest.mark.parametrize("labels", [LABELS[:2], [*LABELS, "more"]])
def test_another_number_of_labels_does_not_fit(labels: list[str], tiny: Tiny, tmp_path: Path) -> None:
    adapted = adapted_of(tiny("bert"))
    adapted.save(tmp_path)
    with pytest.raises(RunError, match="does not fit"):
        Adapted.load(tmp_path, adapted.base, labels, adapted.reader, seed=42)


def test_another_architecture_does_not_fit(tiny: Tiny, tmp_path: Path) -> None:
    adapted_of(tiny("bert")).save(tmp_path)
    other = adapted_of(tiny("distilbert"))
    with pytest.raises(RunError, match="does not fit"):
        Adapted.load(tmp_path, other.base, LABELS, other.reader, seed=42)
