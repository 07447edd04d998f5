"""The plan: the published figures from only a config, and sizes equal to those of real files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from helpers import EVERY, LABELS, adapted_of, tiny_recipe

from bertlora.errors import ModelError, RecipeError
from bertlora.model.adapter_files import WEIGHTS_FILE
from bertlora.model.build import lora_parameters
from bertlora.model.plan import plan
from bertlora.recipe import Recipe

Tiny = Callable[[str], Path]


def planned(folder: Path, name: str, config: Any, **keys: Any) -> dict[str, Any]:
    """Returns the plan of a named recipe on a folder with only a config."""
    config.save_pretrained(folder)
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    return plan(Recipe.named(name).replace(model=str(folder), precision="fp32", **keys), labels=2)


@pytest.mark.parametrize("name", ["imdb-distilbert", "imdb-distilbert-quick"])
def test_imdb_distilbert_as_published(name: str, tmp_path: Path) -> None:
    found = planned(tmp_path, name, transformers.DistilBertConfig())
    assert (found["trainable"], found["total"]) == (628_994, 67_584_004)
    assert round(found["trainable_percent"], 2) == 0.93
    assert found["lora_parameters"] == 36_864
    assert found["trained_whole"] == ["classifier", "pre_classifier"]
    assert found["targets"] == [f"distilbert.transformer.layer.{i}.attention.q_lin" for i in range(6)]


def test_sst2_bert_as_published(tmp_path: Path) -> None:
    found = planned(tmp_path, "sst2-bert", transformers.BertConfig())
    assert found["lora_parameters"] == 147_456
    assert found["trainable"] == 147_456 + 2 * 768 + 2
    assert round(100 * found["lora_parameters"] / found["total"], 2) == 0.13
    assert len(found["targets"]) == 24
    assert 0.5e6 < found["adapter_bytes"] < 0.7e6
    assert 430e6 < found["model_bytes"] < 445e6


def test_imdb_bert_cased_as_published(tmp_path: Path) -> None:
    found = planned(tmp_path, "imdb-bert-cased", transformers.BertConfig(vocab_size=28_996))
    assert found["trainable"] == 38_402
    assert 145_000 < found["adapter_bytes"] < 170_000


def test_imdb_distilbert_b16(tmp_path: Path) -> None:
    found = planned(tmp_path, "imdb-distilbert-b16", transformers.DistilBertConfig())
    assert found["lora_parameters"] == 2 * 36_864


@pytest.mark.parametrize("architecture", EVERY)
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"variant": "rslora"},
        {"variant": "dora"},
        {"variant": "pissa"},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"targets": ("all-linear",), "rank": 3},
        {"rank_pattern": {"value": 2}, "adapt_last_layers": 1},
    ],
    ids=str,
)
def test_the_plan_is_what_comes(keys: dict[str, Any], architecture: str, tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny(architecture)
    found = plan(tiny_recipe(folder, **keys), labels=3)
    adapted = adapted_of(folder, **keys)
    adapted.save(tmp_path)
    assert (found["trainable"], found["total"]) == adapted.model.get_nb_trainable_parameters()
    assert found["lora_parameters"] == lora_parameters(adapted.model)
    assert found["adapter_bytes"] == (tmp_path / WEIGHTS_FILE).stat().st_size
    assert len(found["targets"]) == len([m for m in adapted.model.modules() if hasattr(m, "lora_A")])


def test_memory_grows_with_the_batch(tiny: Tiny) -> None:
    small, large = (plan(tiny_recipe(tiny("bert"), batch_size=n), 2) for n in (8, 999))
    assert large["memory_mib"] > small["memory_mib"]
    assert (small["precision"], small["architecture"]) == ("fp32", "bert")


def test_more_labels_make_a_larger_head(tiny: Tiny) -> None:
    two, nine = (plan(tiny_recipe(tiny("bert")), labels=n) for n in (2, 9))
    assert nine["trainable"] - two["trainable"] == 7 * 33
    assert len(LABELS) == 3


@pytest.mark.parametrize(
    ("keys", "kind", "said"),
    [
        ({"max_length": 129}, RecipeError, "max_length: got 129, expected at most 128"),
        ({"targets": ("qeury",)}, RecipeError, "target 'qeury' matches no linear layer"),
        ({"rank_pattern": {"nothing": 2}}, RecipeError, "target 'nothing' matches no linear layer"),
        ({"model": "/nowhere"}, ModelError, "neither a folder"),
    ],
)
def test_faults_are_found_without_weights(keys: dict[str, Any], kind: type[Exception], said: str, tiny: Tiny) -> None:
    with pytest.raises(kind, match=said):
        plan(tiny_recipe(tiny("bert"), **keys), labels=2)
