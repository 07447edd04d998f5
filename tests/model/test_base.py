"""Base models: found and checked, refused with a reason, and built with a head of their own."""

import importlib.machinery
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers import EVERY, LABELS, adapted_of, logits_of, tiny_recipe
from safetensors.torch import load_file, save_file

from bertlora.errors import HubError, ModelError, RecipeError
from bertlora.model.adapted import Adapted
from bertlora.model.base import Base, find_base, longest_input, quiet
from bertlora.model.build import build_classifier, new_modules
from bertlora.model.fetch import MINILM_ID, MINILM_PACKAGE, MINILM_SHA256

Tiny = Callable[[str], Path]
HEADS = {
    "bert": ["classifier"],
    "distilbert": ["pre_classifier", "classifier"],
    "roberta": ["classifier"],
    "electra": ["classifier"],
    "mpnet": ["classifier"],
    "deberta": ["pooler", "classifier"],
    "deberta-v2": ["pooler", "classifier"],
    "modernbert": ["head", "classifier"],
}


def refused(model: Path | str, use: Callable[[Base], Any] = lambda base: base) -> str:
    """The message of a ModelError that names the model."""
    with pytest.raises(ModelError) as caught:
        use(find_base(str(model)))
    assert str(model) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def classifier(base: Base) -> Any:
    return build_classifier(base, LABELS, 0.0, seed=0)


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to, dirs_exist_ok=True)
    return to


def test_minilm_is_the_published_model() -> None:
    base = find_base("minilm")
    assert base.sha256() == MINILM_SHA256
    assert base.origin == {"id": MINILM_ID, "revision": ""}
    assert find_base(MINILM_ID) == base


def test_minilm_with_one_byte_flipped_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    weights = bytearray(find_base("minilm").weight_files[0].read_bytes())
    weights[len(weights) // 2] ^= 1
    (tmp_path / "model" / "model.safetensors").write_bytes(weights)
    spec = importlib.machinery.ModuleSpec(MINILM_PACKAGE, None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ModelError, match=f"expected {MINILM_SHA256[:12]}"):
        find_base("minilm")


def test_a_missing_folder(tmp_path: Path) -> None:
    assert "neither a folder with a config.json, nor a hub id" in refused(tmp_path / "nowhere")


def test_a_folder_without_config(tmp_path: Path) -> None:
    assert "no config.json" in refused(tmp_path)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("")
    assert "neither a folder" in refused(tmp_path / "model.safetensors")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"model_type": "nothing"}'])
def test_a_damaged_config(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    assert "config.json" in refused(tmp_path, Base.config)


@pytest.mark.parametrize("kind", ["GPT2Config", "T5Config", "LlamaConfig", "BartConfig", "ViTConfig"])
def test_what_is_no_encoder_that_classifies_is_refused(kind: str, tmp_path: Path) -> None:
    getattr(transformers, kind)().save_pretrained(tmp_path)
    assert "is not an encoder that classifies; name a BERT" in refused(tmp_path, Base.config)


def test_weights_to_unpickle_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = copied(tiny("bert"), tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "no model.safetensors; save the model as safetensors" in refused(folder, classifier)


@pytest.mark.parametrize("damage", [b"", b"no weights at all", None])
def test_damaged_weights_are_refused(damage: bytes | None, tiny: Tiny, tmp_path: Path) -> None:
    file = copied(tiny("bert"), tmp_path / "model") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:10_000] if damage is None else damage)
    assert refused(file.parent, classifier)


def test_weights_of_another_shape_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = copied(tiny("bert"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 16}))
    assert "do not fit" in refused(folder, classifier)


def test_weights_of_another_model_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = copied(tiny("bert"), tmp_path / "model")
    shutil.copy(tiny("distilbert") / "model.safetensors", folder)
    assert "do not fit" in refused(folder, classifier)


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    transformers.BertConfig().save_pretrained(tmp_path)
    assert "tokenizer" in refused(tmp_path, Base.tokenizer)


def test_a_hub_id_offline_says_how_to_fetch_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HubError, match="bertlora cache nobody/nothing-here --to DIR") as caught:
        find_base("nobody/nothing-here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("architecture", EVERY)
def test_the_longest_input_runs_and_one_more_token_is_refused(architecture: str, tiny: Tiny) -> None:
    folder = tiny(architecture)
    assert longest_input(find_base(str(folder))) == 128
    adapted = adapted_of(folder, max_length=128)
    inputs = adapted.reader.read(["film " * 500])
    assert inputs.lengths.tolist() == [128]
    assert np.isfinite(adapted.logits(inputs)).all()
    with pytest.raises(RecipeError, match="max_length: got 129, expected at most 128"):
        Adapted.fresh(tiny_recipe(folder, max_length=129), LABELS)


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta", "electra", "mpnet", "deberta", "deberta-v2"])
def test_one_token_more_has_no_position(architecture: str, tiny: Tiny) -> None:
    model = classifier(find_base(str(tiny(architecture)))).eval()
    ids = torch.full((1, 129), 2000)
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=ids, attention_mask=torch.ones_like(ids))


@pytest.mark.parametrize("architecture", EVERY)
def test_the_head_is_what_is_trained_whole(architecture: str, tiny: Tiny) -> None:
    base = find_base(str(tiny(architecture)))
    assert new_modules(classifier(base)) == HEADS[architecture]


def test_a_pooler_that_the_checkpoint_lacks_is_trained(tiny: Tiny, tmp_path: Path) -> None:
    folder = copied(tiny("bert"), tmp_path / "model")
    stored = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in stored.items() if "pooler" not in name}
    assert len(kept) == len(stored) - 2
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    base = find_base(str(folder))
    assert new_modules(classifier(base)) == ["classifier", "bert.pooler.dense"]
    adapted = adapted_of(folder)
    trained = {name for name, p in adapted.model.named_parameters() if p.requires_grad}
    assert any("pooler.dense.modules_to_save.default.weight" in name for name in trained)
    adapted.save(tmp_path / "adapter")
    assert any("pooler" in name for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))


def test_a_checkpoint_with_old_names_lacks_nothing(tiny: Tiny, tmp_path: Path) -> None:
    folder = copied(tiny("bert"), tmp_path / "model")
    # Copies: older versions of safetensors map the file, which is overwritten below.
    stored = {name: value.clone() for name, value in load_file(folder / "model.safetensors").items()}
    old = {
        "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in stored.items()
    }
    save_file(old, folder / "model.safetensors", {"format": "pt"})
    base = find_base(str(folder))
    assert new_modules(classifier(base)) == ["classifier"]
    for name, value in classifier(base).bert.named_parameters():
        assert torch.equal(value, stored[name]), name


def test_a_head_for_other_labels_is_replaced(tiny: Tiny, tmp_path: Path) -> None:
    folder = copied(tiny("bert"), tmp_path / "model")
    with quiet():
        transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=5).save_pretrained(folder)
    model = classifier(find_base(str(folder)))
    assert model.classifier.weight.shape == (len(LABELS), 32)
    assert model.config.id2label == dict(enumerate(LABELS))


@pytest.mark.parametrize("architecture", EVERY)
def test_encoder_dropout_reaches_every_dropout(architecture: str, tiny: Tiny) -> None:
    base = find_base(str(tiny(architecture)))
    for share in (0.0, 0.3):
        model = build_classifier(base, LABELS, share, seed=0)
        rates = {name: m.p for name, m in model.named_modules() if isinstance(m, torch.nn.Dropout)}
        assert rates
        assert set(rates.values()) == {share}, rates
    settings = base.config(LABELS, encoder_dropout=0.3).to_dict()
    assert settings == base.config(LABELS).to_dict() | {k: 0.3 for k, v in settings.items() if v == 0.3}


@pytest.mark.parametrize("architecture", EVERY)
def test_hidden_dropout_does_not_change_attention_dropout(architecture: str, tiny: Tiny) -> None:
    base = find_base(str(tiny(architecture)))
    settings = base.config(LABELS, encoder_dropout=0.0, hidden_dropout=0.3).to_dict()
    rates = {key: value for key, value in settings.items() if "dropout" in key and isinstance(value, float)}
    assert {value for key, value in rates.items() if "attention" in key} == {0.0}
    assert {value for key, value in rates.items() if "attention" not in key} == {0.3}
    assert base.config(LABELS, 0.2, hidden_dropout=0.0).to_dict() == base.config(LABELS, 0.2).to_dict()


@pytest.mark.parametrize("architecture", EVERY)
def test_dropout_off_makes_training_mode_repeat(architecture: str, tiny: Tiny) -> None:
    base = find_base(str(tiny(architecture)))
    ids = torch.randint(1000, 2000, (2, 20), generator=torch.Generator().manual_seed(0))
    for share, same in ((0.0, True), (0.3, False)):
        model = build_classifier(base, LABELS, share, seed=0).train()
        first, second = (model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits for _ in range(2))
        assert torch.equal(first, second) == same


def test_the_head_is_drawn_from_the_seed(tiny: Tiny) -> None:
    base = find_base(str(tiny("bert")))
    one, same, other = (build_classifier(base, LABELS, 0.0, seed).classifier.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_without_the_adapter_the_base_answers_as_before(tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"))
    model = classifier(adapted.base)
    assert logits_of(adapted, ["a film"]).shape == (1, len(model.config.id2label))


def test_quiet_leaves_logging_as_it_was() -> None:
    level = transformers.logging.get_verbosity()
    with quiet():
        assert transformers.logging.get_verbosity() == transformers.logging.ERROR
    assert transformers.logging.get_verbosity() == level
