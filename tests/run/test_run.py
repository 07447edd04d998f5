"""The run folder: what comes back by itself, PEFT's adapters in its place, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    EVERY,
    LABELS,
    PAIRS,
    TEXTS,
    adapted_of,
    cover_again,
    logits_of,
    peft_logits,
    plain_peft,
    randomise,
    save_tiny_run,
    transformers_logits,
)
from safetensors.torch import load_file, save_file

from bertlora.classifier import LoraClassifier
from bertlora.confidence.calibration import Calibration
from bertlora.errors import BertloraError, RunError
from bertlora.hashes import sealed
from bertlora.model.adapted import Adapted
from bertlora.model.base import ORIGIN
from bertlora.recipe import Recipe
from bertlora.rivals.fitted import Rivals
from bertlora.rivals.probe import Probe
from bertlora.rivals.regression import Regression
from bertlora.rivals.tfidf import fit_tfidf
from bertlora.run.folder import save_run
from bertlora.run.loaded import Run
from bertlora.run.manifest import FORMAT_VERSION, Seen, read_manifest

Tiny = Callable[[str], Path]
FITTED = {"max_length": 32, "epochs": 2, "batch_size": 4, "precision": "fp32", "rank": 2, "learning_rate": 1e-2}


@pytest.fixture
def run(tiny: Tiny, tmp_path: Path) -> Path:
    """Returns the folder of a run on the tiny BERT."""
    save_tiny_run(tmp_path / "run", adapted_of(tiny("bert")))
    return tmp_path / "run"


def refused(path: Path, kind: type[BertloraError] = RunError, model: str = "") -> str:
    with pytest.raises(kind) as caught:
        Run.load(path, model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change_manifest(run: Path, **changes: Any) -> None:
    file = run / "run.json"
    file.write_text(sealed(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("truncation", ["left", "right", "head-tail"])
def test_everything_comes_back(truncation: str, tiny: Tiny, tmp_path: Path) -> None:
    adapted = adapted_of(tiny("bert"), pairs=True, max_length=11, truncation=truncation)
    written = save_tiny_run(tmp_path, adapted)
    found = Run.load(tmp_path)
    assert found.manifest == written == read_manifest(tmp_path)
    assert found.manifest.pairs
    assert found.adapted.labels == found.manifest.labels == LABELS
    template = found.adapted.reader.template
    assert (template.max_length, template.truncation) == (11, truncation)
    assert found.manifest.base["sha256"] == adapted.base.sha256()
    assert np.allclose(logits_of(found.adapted, TEXTS, PAIRS), logits_of(adapted, TEXTS, PAIRS), atol=1e-6)
    base, expected = (logits_of(one, TEXTS, PAIRS, base=True) for one in (found.adapted, adapted))
    assert np.allclose(base, expected, atol=1e-6)
    assert Recipe.named(str(tmp_path / "recipe.toml")).truncation == truncation
    assert found.metrics()["train"]["examples"] == 4


def test_the_same_adapter_is_saved_as_the_same_bytes_and_needs_its_run_json(tiny: Tiny, tmp_path: Path) -> None:
    adapted = adapted_of(tiny("bert"))
    for i in range(8):
        adapted.save(tmp_path / str(i))
    assert len({(tmp_path / str(i) / "adapter_model.safetensors").read_bytes() for i in range(8)}) == 1
    assert "lacks run.json" in refused(tmp_path / "0")  # PEFT's adapters have none, and other labels
    assert np.allclose(peft_logits(tiny("bert"), tmp_path / "0", TEXTS), logits_of(adapted, TEXTS), atol=1e-5)


def test_the_model_card_names_what_counts(run: Path) -> None:
    card = (run / "adapter" / "README.md").read_text()
    for text in ("negative, positive, mixed", "more than 64 tokens", "rank 4", "no validation texts"):
        assert text in card


@pytest.mark.parametrize("only_mean", [False, True])
def test_the_rivals_and_what_the_run_has_met_come_back(tiny: Tiny, tmp_path: Path, only_mean: bool) -> None:
    adapted = adapted_of(tiny("bert"))
    _, features = adapted.base_features(adapted.reader.read(TEXTS))
    weight = np.random.default_rng(0).normal(size=(3, features.shape[1] // (1 + only_mean)))
    probe = Probe(Regression(weight, np.array([1.0, 2.0, 3.0]), 0.1, 0.5), only_mean)
    rivals = Rivals(probe, fit_tfidf(TEXTS, None, np.arange(len(TEXTS)) % 3, 3, seed=0))
    seen = Seen.of(train=(TEXTS, None), validation=(["Another text."], None))
    metrics: dict[str, Any] = {"train": {"examples": 4, "seconds": 1.0}, "epochs": [{"step": 1}]}
    calibration = Calibration.without_rows(3)
    save_run(tmp_path, adapted, Recipe(), metrics, calibration=calibration, rivals=rivals, seen=seen)
    found = Run.load(tmp_path)
    expected, again = (one.logits(features, TEXTS) for one in (rivals, found.rivals))
    assert list(expected) == list(again) == ["probe", "tfidf"]
    assert np.array_equal(again["probe"], expected["probe"])
    assert np.allclose(again["tfidf"], expected["tfidf"], atol=1e-6)
    assert found.seen is not None
    assert np.array_equal(found.seen.train, seen.train)
    assert found.seen.validation.tolist() == seen.validation.tolist()
    assert (tmp_path / "history.jsonl").read_text() == '{"step": 1}\n'


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora", "pissa"])
def test_trained_runs_load_in_peft_with_the_same_logits(variant: str, tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("bert")
    labels = ["good", "bad", "so-so", "bad"]
    classifier = LoraClassifier(model=str(folder), variant=variant, bias="all", **FITTED).fit(TEXTS, labels)
    classifier.save(tmp_path / "run")
    expected = logits_of(classifier.adapted_, TEXTS)
    assert np.abs(expected - logits_of(classifier.adapted_, TEXTS, base=True)).max() > 1e-2
    assert np.allclose(peft_logits(folder, tmp_path / "run" / "adapter", TEXTS), expected, atol=1e-5)
    loaded = Run.load(tmp_path / "run")
    assert np.allclose(logits_of(loaded.adapted, TEXTS), expected, atol=1e-5)
    assert loaded.manifest.labels == ["bad", "good", "so-so"]


@pytest.mark.parametrize(
    "keys", [{}, {"use_rslora": True}, {"use_dora": True}, {"bias": "all"}, {"target_modules": "all-linear"}], ids=str
)
@pytest.mark.parametrize("architecture", EVERY)
def test_an_adapter_that_peft_saved_is_a_run(
    architecture: str, keys: dict[str, Any], tiny: Tiny, tmp_path: Path
) -> None:
    folder = tiny(architecture)
    if architecture == "distilbert" and "target_modules" in keys:
        keys = {"target_modules": ["q_lin", "lin1", "lin2"]}  # with all-linear PEFT takes the pre-classifier, and fails
    theirs = plain_peft(architecture, folder, lora_alpha=8, **keys)
    randomise(theirs)
    theirs.peft_config["default"].base_model_name_or_path = str(folder)
    theirs.save_pretrained(tmp_path)
    found = Run.load(tmp_path)
    assert found.adapted.labels == ["LABEL_0", "LABEL_1", "LABEL_2"]
    expected = transformers_logits(theirs, folder, TEXTS)
    assert np.allclose(logits_of(found.adapted, TEXTS), expected, atol=1e-5)
    assert np.abs(logits_of(found.adapted, TEXTS, base=True) - expected).max() > 1e-2
    assert found.rivals == Rivals()
    assert found.seen is None
    assert found.metrics() == {}


def test_the_adapter_folder_of_a_run_loads_too(run: Path) -> None:
    inside, whole = Run.load(run / "adapter"), Run.load(run)
    assert np.allclose(logits_of(inside.adapted, TEXTS), logits_of(whole.adapted, TEXTS), atol=1e-6)
    assert inside.adapted.reader.template.max_length == 64
    assert inside.manifest.labels == whole.manifest.labels
    assert inside.manifest.base == whole.manifest.base


@pytest.mark.parametrize("architecture", ["deberta", "modernbert", "distilbert"])
def test_an_adapter_without_part_of_its_head_is_refused(architecture: str, tiny: Tiny, tmp_path: Path) -> None:
    adapted = adapted_of(tiny(architecture))
    adapted.save(tmp_path)
    parts = {"deberta": "pooler", "modernbert": ".head.", "distilbert": "pre_classifier"}
    file = tmp_path / "adapter_model.safetensors"
    stored = load_file(file)
    kept = {name: value for name, value in stored.items() if parts[architecture] not in name}
    assert len(kept) < len(stored)
    save_file(kept, file, {"format": "pt"})
    assert parts[architecture].strip(".") in refused(tmp_path)


@pytest.mark.parametrize("architecture", ["deberta", "deberta-v2", "modernbert"])
def test_a_head_that_peft_drew_and_did_not_save_is_refused(architecture: str, tiny: Tiny, tmp_path: Path) -> None:
    theirs = plain_peft(architecture, tiny(architecture), modules_to_save=[])
    theirs.peft_config["default"].base_model_name_or_path = str(tiny(architecture))
    theirs.save_pretrained(tmp_path)
    lost = "head" if architecture == "modernbert" else "pooler"
    assert f"the adapter lacks {lost}" in refused(tmp_path)


def test_an_adapter_without_its_update_is_refused(run: Path) -> None:
    file = run / "adapter" / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "layer.1" not in k}, file, {"format": "pt"})
    cover_again(run)
    assert "layer.1" in refused(run)


def test_an_adapter_without_head_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    adapted_of(tiny("bert")).save(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "classifier" not in k}, file, {"format": "pt"})
    assert "no classification head was saved" in refused(tmp_path)


def test_another_base_is_refused(run: Path, tiny: Tiny, tmp_path: Path) -> None:
    other = shutil.copytree(tiny("bert"), tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["embeddings.LayerNorm.bias"] += 1e-3
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    said = refused(run, model=str(other))
    assert "was trained on" in said
    assert "name the right base by model" in said


def test_a_base_without_weights_is_refused(run: Path, tiny: Tiny, tmp_path: Path) -> None:
    other = shutil.copytree(tiny("bert"), tmp_path / "other")
    (other / "model.safetensors").unlink()
    assert "no weights" in refused(run, model=str(other))


def test_a_base_that_moved_is_named_by_model(tiny: Tiny, tmp_path: Path) -> None:
    first = shutil.copytree(tiny("bert"), tmp_path / "first")
    adapted = adapted_of(first)
    save_tiny_run(tmp_path / "run", adapted)
    expected = logits_of(adapted, TEXTS)
    shutil.move(first, tmp_path / "second")
    assert str(first) in refused(tmp_path / "run")
    found = Run.load(tmp_path / "run", str(tmp_path / "second"))
    assert np.allclose(logits_of(found.adapted, TEXTS), expected, atol=1e-6)


def test_a_run_can_be_moved(run: Path, tmp_path: Path) -> None:
    expected = logits_of(Run.load(run).adapted, TEXTS)
    shutil.move(run, tmp_path / "elsewhere")
    assert np.array_equal(logits_of(Run.load(tmp_path / "elsewhere").adapted, TEXTS), expected)


def test_an_unfinished_run(run: Path) -> None:
    (run / "run.json").unlink()
    assert "the run did not finish; continue it by" in refused(run)


def test_no_run_at_all(tmp_path: Path) -> None:
    assert "no such run folder" in refused(tmp_path / "nowhere")
    assert "is not a run folder (no run.json) and not a PEFT adapter" in refused(tmp_path)


def test_a_newer_format(run: Path) -> None:
    change_manifest(run, format_version=FORMAT_VERSION + 1, unheard_of=1)
    assert f"format {FORMAT_VERSION + 1} is newer than this bertlora reads" in refused(run)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"x"', '{"format_version": "one"}', '{"format_version": 1}'])
def test_a_damaged_manifest(text: str, run: Path) -> None:
    (run / "run.json").write_text(text)
    assert "run.json: cannot be read" in refused(run)


@pytest.mark.parametrize(
    "changes",
    [
        {"base": {}},
        {"base": "minilm"},
        {"labels": None},
        {"labels": "abc"},
        {"max_length": "long"},
        {"truncation": "up"},
    ],
    ids=str,
)
def test_a_manifest_with_values_of_another_type(changes: dict[str, Any], run: Path) -> None:
    change_manifest(run, **changes)
    assert "run.json: cannot be read" in refused(run)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_missing_adapter_file(name: str, run: Path) -> None:
    (run / "adapter" / name).unlink()
    assert name in refused(run)


def test_a_damaged_linear_probe(run: Path) -> None:
    (run / "probe.safetensors").write_bytes(b"nothing")
    found = Run.load(run)
    assert found.predict(["It still predicts."])
    with pytest.raises(RunError, match=r"probe\.safetensors: cannot be read"):
        found.rivals  # noqa: B018


def test_saving_again_is_unfinished_until_it_is_whole(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = Run.load(run).adapted

    def fail(self: Adapted, folder: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Adapted, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_tiny_run(run, adapted)
    assert "did not finish" in refused(run)


def test_the_tokenizer_of_the_run_is_the_one_that_reads(tiny: Tiny, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny("bert"), base)
    save_tiny_run(tmp_path / "run", adapted_of(base))
    expected = logits_of(Run.load(tmp_path / "run").adapted, TEXTS)
    file = base / "tokenizer.json"
    table = json.loads(file.read_text())
    table["normalizer"]["lowercase"] = False
    file.write_text(json.dumps(table))
    texts = [text.upper() for text in TEXTS]
    assert np.allclose(logits_of(Run.load(tmp_path / "run").adapted, texts), expected, atol=1e-6)


def test_a_copied_hub_model_keeps_its_id(tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny("bert"), tmp_path / "base")
    (tmp_path / "base" / ORIGIN).write_text('{"id": "somebody/some-bert", "revision": "abc"}')
    save_tiny_run(tmp_path / "run", adapted_of(tmp_path / "base"))
    config = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("somebody/some-bert", "abc")
    assert "base_model: somebody/some-bert" in (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert Run.load(tmp_path / "run").adapted.base.folder == tmp_path / "base"
