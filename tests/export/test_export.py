"""Exports: served by transformers, without bertlora, with the same probabilities, or not kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import EVERY, LABELS, PAIRS, TEXTS, adapted_of, peft_logits, plain_peft, probabilities_of, save_tiny_run
from safetensors.torch import load_file
from transformers import AutoConfig, pipeline

from bertlora.errors import InputError, OutputError
from bertlora.export.origin import ParityError
from bertlora.model.adapted import Adapted
from bertlora.model.base import quiet
from bertlora.run.loaded import Run

Tiny = Callable[[str], Path]


def tiny_run(folder: Path, to: Path, pairs: bool = False, **keys: Any) -> Run:
    save_tiny_run(to, adapted_of(folder, pairs=pairs, **keys))
    return Run.load(to)


@pytest.fixture
def run(tiny: Tiny, tmp_path: Path) -> Run:
    return tiny_run(tiny("bert"), tmp_path / "run", targets=["query", "ffn-out"])


def served(folder: Path, inputs: list[Any]) -> list[dict[str, float]]:
    """Returns label → probability of each text, from transformers' own pipeline."""
    with quiet():
        pipe = pipeline("text-classification", model=str(folder), tokenizer=str(folder), device="cpu")
        found = [pipe(one, top_k=None, truncation=True) for one in inputs]
    return [{item["label"]: item["score"] for item in items} for items in found]


def assert_served(folder: Path, inputs: list[Any], expected: np.ndarray) -> None:
    found = served(folder, inputs)
    assert all(set(row) == set(LABELS) for row in found)
    assert np.allclose([[row[label] for label in LABELS] for row in found], expected, atol=1e-5)


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "run")


@pytest.mark.parametrize("architecture", EVERY)
def test_a_merged_folder_is_served_by_transformers(architecture: str, tiny: Tiny, tmp_path: Path) -> None:
    run = tiny_run(tiny(architecture), tmp_path / "run", targets=["all-linear"])
    facts = run.export(tmp_path / "out", "merged")
    assert_served(tmp_path / "out", TEXTS, probabilities_of(run.adapted, TEXTS))
    assert facts["format"] == "merged"
    assert facts["texts"] == 100
    assert facts["largest_difference"] < 1e-4
    assert facts["bytes"] == sum(p.stat().st_size for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert facts["base_bytes"] == (tiny(architecture) / "model.safetensors").stat().st_size
    assert not [name for name in load_file(tmp_path / "out" / "model.safetensors") if "lora" in name]
    assert left_over(tmp_path) == ["out"]


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta", "deberta"])
def test_pairs_are_served_too(architecture: str, tiny: Tiny, tmp_path: Path) -> None:
    run = tiny_run(tiny(architecture), tmp_path / "run", pairs=True, max_length=24)
    run.export(tmp_path / "out", "merged")
    inputs = [{"text": a, "text_pair": b} for a, b in zip(TEXTS, PAIRS, strict=True)]
    assert_served(tmp_path / "out", inputs, probabilities_of(run.adapted, TEXTS, PAIRS))


@pytest.mark.parametrize("side", ["left", "right"])
def test_long_texts_are_cut_as_in_training(side: str, tiny: Tiny, tmp_path: Path) -> None:
    run = tiny_run(tiny("bert"), tmp_path / "run", max_length=10, truncation=side)
    run.export(tmp_path / "out", "merged")
    assert_served(tmp_path / "out", TEXTS, probabilities_of(run.adapted, TEXTS))


@pytest.mark.parametrize("keys", [{"variant": "dora"}, {"variant": "pissa"}, {"bias": "all"}], ids=str)
def test_variants_are_merged(keys: dict[str, Any], tiny: Tiny, tmp_path: Path) -> None:
    run = tiny_run(tiny("bert"), tmp_path / "run", **keys)
    run.export(tmp_path / "out", "merged")
    assert_served(tmp_path / "out", TEXTS, probabilities_of(run.adapted, TEXTS))


def test_the_config_is_the_bases_with_our_labels(run: Run, tmp_path: Path) -> None:
    run.export(tmp_path / "out", "merged")
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert config.id2label == dict(enumerate(LABELS))
    assert config.architectures == ["BertForSequenceClassification"]
    assert config.hidden_dropout_prob == 0.1


def test_exporting_leaves_the_run_as_it_was(run: Run, tmp_path: Path) -> None:
    before = probabilities_of(run.adapted, TEXTS)
    run.export(tmp_path / "out", "merged")
    assert np.array_equal(probabilities_of(run.adapted, TEXTS), before)


def corrupt(self: Adapted, whole: Callable[[Adapted], Any] = Adapted.merged) -> Any:
    model = whole(self)
    with torch.no_grad():
        model.classifier.bias[0] += 0.01
    return model


def test_an_export_that_differs_is_not_kept(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Adapted, "merged", corrupt)
    with pytest.raises(ParityError, match=r"differ by up to 0\.01 on 100 texts"):
        run.export(tmp_path / "out", "merged")
    assert left_over(tmp_path) == []


def test_a_failed_export_keeps_what_was_there(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run.export(tmp_path / "out", "adapter")
    before = left_over(tmp_path / "out")
    monkeypatch.setattr(Adapted, "merged", corrupt)
    with pytest.raises(ParityError):
        run.export(tmp_path / "out", "merged", overwrite=True)
    assert left_over(tmp_path / "out") == before
    assert left_over(tmp_path) == ["out"]


def test_a_tokenizer_that_reads_otherwise_is_not_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Adapted.portable_tokenizer

    def short(self: Adapted) -> Any:
        tokenizer = whole(self)
        tokenizer.model_max_length = 8
        return tokenizer

    monkeypatch.setattr(Adapted, "portable_tokenizer", short)
    with pytest.raises(ParityError):
        run.export(tmp_path / "out", "merged")
    assert left_over(tmp_path) == []


def test_only_the_adapter(run: Run, tmp_path: Path, tiny: Tiny) -> None:
    facts = run.export(tmp_path / "out", "adapter")
    added = ["certificate.json", "certificate.safetensors"]
    assert left_over(tmp_path / "out") == sorted(left_over(run.path / "adapter") + added)
    expected = probabilities_of(run.adapted, TEXTS)
    scores = np.exp(peft_logits(tiny("bert"), tmp_path / "out", TEXTS))
    assert np.allclose(scores / scores.sum(axis=1, keepdims=True), expected, atol=1e-5)
    assert facts["bytes"] > 0


def test_an_adapter_of_pefts_is_merged(tiny: Tiny, tmp_path: Path) -> None:
    theirs = plain_peft("bert", tiny("bert"))
    theirs.peft_config["default"].base_model_name_or_path = str(tiny("bert"))
    theirs.save_pretrained(tmp_path / "run")
    run = Run.load(tmp_path / "run")
    run.export(tmp_path / "out", "merged")
    assert [set(row) for row in served(tmp_path / "out", TEXTS[:1])] == [{"LABEL_0", "LABEL_1", "LABEL_2"}]


def test_a_folder_that_holds_something_is_kept(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds something already"):
        run.export(out, "merged")
    assert (out / "mine.txt").read_text() == "mine"
    run.export(out, "merged", overwrite=True)
    assert not (out / "mine.txt").exists()
    assert json.loads((out / "config.json").read_text())["model_type"] == "bert"
    assert left_over(tmp_path) == ["out"]


@pytest.mark.parametrize("inside", ["", "run", "run/adapter"])
def test_neither_the_run_nor_what_holds_it_is_overwritten(run: Run, tmp_path: Path, inside: str) -> None:
    with pytest.raises(OutputError, match="holds the input"):
        run.export(tmp_path / inside, "merged", overwrite=True)
    assert Run.load(run.path).manifest == run.manifest
    assert left_over(tmp_path) == []


def test_the_base_is_not_overwritten(run: Run, tiny: Tiny) -> None:
    with pytest.raises(OutputError, match="holds the input"):
        run.export(tiny("bert"), "merged", overwrite=True)


def test_an_unknown_format(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"format 'mergd' is unknown; .*did you mean 'merged'\?"):
        run.export(tmp_path / "out", "mergd")
    assert left_over(tmp_path) == []
