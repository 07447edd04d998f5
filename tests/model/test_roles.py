"""Roles: the same word means the same layer in every architecture."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import EVERY

from bertlora.errors import RecipeError
from bertlora.model.base import find_base
from bertlora.model.build import sketch_classifier
from bertlora.model.roles import encoder_linears, layer_number, target_modules
from bertlora.recipe import ROLES

Tiny = Callable[[str], Path]

BERT = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention-output": "attention.output.dense",
    "ffn-in": "intermediate.dense",
    "ffn-out": "output.dense",
}
# Architecture → the layers' place, and role → name inside a layer.
EXPECTED: dict[str, tuple[str, dict[str, str]]] = {
    "bert": ("bert.encoder.layer", BERT),
    "distilbert": (
        "distilbert.transformer.layer",
        {
            "query": "attention.q_lin",
            "key": "attention.k_lin",
            "value": "attention.v_lin",
            "attention-output": "attention.out_lin",
            "ffn-in": "ffn.lin1",
            "ffn-out": "ffn.lin2",
        },
    ),
    "roberta": ("roberta.encoder.layer", BERT),
    "electra": ("electra.encoder.layer", BERT),
    "mpnet": (
        "mpnet.encoder.layer",
        BERT
        | {
            "query": "attention.attn.q",
            "key": "attention.attn.k",
            "value": "attention.attn.v",
            "attention-output": "attention.attn.o",
        },
    ),
    "deberta": (
        "deberta.encoder.layer",
        BERT | dict.fromkeys(["query", "key", "value"], "attention.self.in_proj"),
    ),
    "deberta-v2": (
        "deberta.encoder.layer",
        BERT
        | {
            "query": "attention.self.query_proj",
            "key": "attention.self.key_proj",
            "value": "attention.self.value_proj",
        },
    ),
    "modernbert": (
        "model.layers",
        dict.fromkeys(["query", "key", "value"], "attn.Wqkv")
        | {"attention-output": "attn.Wo", "ffn-in": "mlp.Wi", "ffn-out": "mlp.Wo"},
    ),
}


def sketch(tiny: Tiny, architecture: str) -> Any:
    return sketch_classifier(find_base(str(tiny(architecture))), ["a", "b"])


def targets(tiny: Tiny, architecture: str, wanted: Sequence[str], **keys: Any) -> list[str]:
    return target_modules(sketch(tiny, architecture), wanted, **keys)


@pytest.mark.parametrize("architecture", EVERY)
@pytest.mark.parametrize("role", [role for role in ROLES if role != "all-linear"])
def test_a_role_means_one_linear_layer_of_each_layer(role: str, architecture: str, tiny: Tiny) -> None:
    place, names = EXPECTED[architecture]
    assert targets(tiny, architecture, [role]) == [f"{place}.{i}.{names[role]}" for i in range(2)]


@pytest.mark.parametrize("architecture", EVERY)
def test_all_linear_is_the_whole_encoder_and_no_head(architecture: str, tiny: Tiny) -> None:
    found = targets(tiny, architecture, ["all-linear"], whole=["bert.pooler"])
    prefix = EXPECTED[architecture][0].split(".")[0]
    assert all(name.startswith(f"{prefix}.") for name in found)
    roles = set(targets(tiny, architecture, [role for role in ROLES if role != "all-linear"]))
    assert roles <= set(found)
    assert not [name for name in found if "bert.pooler" in name]
    more = {re.sub(r"\.\d+\.", ".*.", name) for name in set(found) - roles}
    expected = {
        "electra": {"electra.embeddings_project"},
        "deberta": {"pos_proj", "pos_q_proj"},
        "deberta-v2": {"pos_key_proj", "pos_query_proj"},
    }
    assert {name.rpartition(".self.")[2] for name in more} == expected.get(architecture, set())


def test_roles_add_up_in_model_order(tiny: Tiny) -> None:
    found = targets(tiny, "bert", ["value", "query"])
    assert [name.rpartition(".")[2] for name in found] == ["query", "value"] * 2
    assert found == targets(tiny, "bert", ["query", "value", "query"])


@pytest.mark.parametrize(
    ("target", "count"),
    [
        ("query", 2),
        ("dense", 7),
        ("attention.self.key", 2),
        ("output.dense", 4),
        ("bert.encoder.layer.1.attention.self.key", 1),
        (r".*layer\.1\..*(query|value)", 2),
        (r".*\.dense", 7),
    ],
)
def test_names_and_patterns(target: str, count: int, tiny: Tiny) -> None:
    found = targets(tiny, "bert", [target])
    assert len(found) == count
    assert all(name in encoder_linears(sketch(tiny, "bert")) for name in found)


@pytest.mark.parametrize("target", ["qeury", "classifier", "embeddings", "(", "q_lin", "LayerNorm", ""])
def test_what_matches_nothing_lists_what_could(target: str, tiny: Tiny) -> None:
    with pytest.raises(RecipeError) as caught:
        targets(tiny, "bert", ["value", target])
    said = str(caught.value)
    assert f"target '{target}' matches no linear layer of this bert model" in said
    for name in [*ROLES, "attention.self.query", "intermediate.dense", "output.dense"]:
        assert name in said
    assert ("did you mean 'query'?" in said) == (target == "qeury")


def test_no_target_at_all_is_an_error(tiny: Tiny) -> None:
    with pytest.raises(RecipeError, match="target"):
        targets(tiny, "bert", [])


@pytest.mark.parametrize("architecture", EVERY)
def test_only_the_last_layers(architecture: str, tiny: Tiny) -> None:
    found = targets(tiny, architecture, ["all-linear"], adapt_last_layers=1)
    assert {layer_number(name) for name in found} <= {1, None}
    assert "embeddings" not in "".join(found)
    assert targets(tiny, architecture, ["query"], adapt_last_layers=2) == targets(tiny, architecture, ["query"])
    assert len(targets(tiny, architecture, ["query"], adapt_last_layers=1)) == 1
    with pytest.raises(RecipeError, match="adapt_last_layers: got 3, expected at most 2"):
        targets(tiny, architecture, ["query"], adapt_last_layers=3)


def test_last_layers_that_hold_no_target_are_an_error(tiny: Tiny) -> None:
    with pytest.raises(RecipeError, match="adapt_last_layers"):
        targets(tiny, "bert", [r".*layer\.0\..*query"], adapt_last_layers=1)
