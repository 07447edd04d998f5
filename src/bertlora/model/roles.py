"""Roles of the linear layers: `query` means the same layer in every architecture, whatever its modules are called."""

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import nn
from transformers import PreTrainedModel
from transformers.activations import GELUActivation

from bertlora.errors import RecipeError, suggestion
from bertlora.recipe import ROLES

# Role → end of the module's name, one table for each family of architectures.
_BERT = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention-output": "attention.output.dense",
    "ffn-in": "intermediate.dense",
    "ffn-out": r"layer\.\d+\.output\.dense",
}
_LLAMA = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "attention-output": "self_attn.o_proj",
    "ffn-in": r"mlp\.(gate|up)_proj",
    "ffn-out": "mlp.down_proj",
}
_FAMILIES: dict[str, Mapping[str, str]] = {
    "bert": _BERT,
    "distilbert": {
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "attention-output": "attention.out_lin",
        "ffn-in": "ffn.lin1",
        "ffn-out": "ffn.lin2",
    },
    "mpnet": _BERT
    | {
        "query": "attention.attn.q",
        "key": "attention.attn.k",
        "value": "attention.attn.v",
        "attention-output": "attention.attn.o",
    },
    # One product makes query, key and value: each of these roles names it.
    "deberta": _BERT | dict.fromkeys(("query", "key", "value"), "attention.self.in_proj"),
    "deberta-v2": _BERT
    | {
        "query": "attention.self.query_proj",
        "key": "attention.self.key_proj",
        "value": "attention.self.value_proj",
    },
    "modernbert": dict.fromkeys(("query", "key", "value"), "attn.Wqkv")
    | {"attention-output": "attn.Wo", "ffn-in": "mlp.Wi", "ffn-out": "mlp.Wo"},
    # GTE, Nomic-BERT, EuroBERT. Two layers read the feed-forward's input: one is the gate.
    "gte": _LLAMA,
    "nomic_bert": _LLAMA,
    "jina_embeddings_v3": _LLAMA | {"ffn-in": "mlp.fc1", "ffn-out": "mlp.fc2"},
    "albert": {
        "query": "attention.query",
        "key": "attention.key",
        "value": "attention.value",
        "attention-output": "attention.dense",
        "ffn-in": "ffn",
        "ffn-out": "ffn_output",
    },
}


def target_modules(
    model: PreTrainedModel, targets: Sequence[str], whole: Iterable[str] = (), adapt_last_layers: int = 0
) -> list[str]:
    """Returns the full names of the linear layers that `targets` (roles, names or patterns) mean, in model order.

    Args:
        model: a transformers sequence classifier.
        targets: roles, ends of module names (`attention.self.query`), or regular expressions on full names.
        whole: modules that are trained whole, and so never adapted.
        adapt_last_layers: keep only the last K layers; 0 keeps all.

    Raises:
        RecipeError: there is no target, a target matches no layer, or the model has fewer than K layers.
    """
    linears = encoder_linears(model, whole)
    if not linears:
        raise RecipeError(f"targets: the encoder of this {model.config.model_type} model has no linear layer to adapt")
    wanted: set[str] = set()
    for target in targets:
        found = matching(model, target, linears)
        if not found:
            ends = sorted({re.sub(r"^.*\.\d+\.", "", name) for name in linears})
            raise RecipeError(
                f"target '{target}' matches no linear layer of this {model.config.model_type} model; "
                f"roles: {', '.join(ROLES)}; modules: {', '.join(ends)}{suggestion(target, [*ROLES, *ends])}"
            )
        wanted.update(found)
    kept = [name for name in _last_layers(linears, adapt_last_layers) if name in wanted]
    if not kept:
        raise RecipeError(
            f"adapt_last_layers: got {adapt_last_layers}, but the targets match no layer among these; name others"
            if wanted
            else f"targets: got none, expected at least one; roles: {', '.join(ROLES)}"
        )
    return kept


def matching(model: PreTrainedModel, target: str, linears: Sequence[str]) -> list[str]:
    """Returns the names among `linears` that one role, name or pattern means."""
    if target == "all-linear":
        return list(linears)
    if target in ROLES:
        pattern = _role_pattern(str(model.config.model_type), target, linears)
        return [name for name in linears if re.search(rf"(^|\.){pattern}$", name)] if pattern else []
    by_name = [name for name in linears if name == target or name.endswith("." + target)]
    if by_name:
        return by_name
    try:
        return [name for name in linears if re.fullmatch(target, name)]
    except re.error:
        return []


def encoder_linears(model: nn.Module, whole: Iterable[str] = ()) -> list[str]:
    """Returns the names of the encoder's linear layers, in model order, without those inside `whole` modules."""
    prefix = f"{model.base_model_prefix}."
    inside = tuple(f"{name}." for name in whole)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(prefix) and not f"{name}.".startswith(inside)
    ]


def layer_linears(kind: str, layer: nn.Module) -> dict[str, nn.Module]:
    """Returns the linear layers of an encoder layer by role.

    Roles are left out for which there are several, or one that has several roles.
    """
    patterns = list(_FAMILIES.get(kind, _BERT).values())
    paths = {
        role: pattern.removeprefix(r"layer\.\d+\.").replace(r"\.", ".")
        for role, pattern in _FAMILIES.get(kind, _BERT).items()
        if "|" not in pattern and patterns.count(pattern) == 1
    }
    return {role: layer.get_submodule(path) for role, path in paths.items()}


def attention_inputs(kind: str, layer: nn.Module) -> list[nn.Module]:
    """Returns query, key and value of a layer, or nothing if one product makes all three."""
    linears = layer_linears(kind, layer)
    return [linears[role] for role in ("query", "key", "value") if role in linears]


def feed_forward_parts(kind: str, layer: nn.Module) -> list[nn.Module]:
    """Returns the first linear layer, GELU, and the second linear layer of a layer's feed-forward.

    Returns nothing if it has another activation, or a gate.
    """
    linears, activations = layer_linears(kind, layer), [m for m in layer.modules() if isinstance(m, GELUActivation)]
    if len(activations) != 1 or "ffn-in" not in linears:
        return []
    wide, narrow = linears["ffn-in"], linears["ffn-out"]
    return [wide, activations[0], narrow] if wide.out_features == narrow.in_features else []


def layer_number(name: str) -> int | None:
    """Returns the number of the layer that a module is in; None outside the layers (a pooler)."""
    found = re.search(r"\.(\d+)\.", name)
    return int(found.group(1)) if found else None


def _role_pattern(kind: str, role: str, linears: Sequence[str]) -> str | None:
    """Returns the pattern of a role: from the architecture's own table, else from the first table that matches."""
    tables = [_FAMILIES[kind]] if kind in _FAMILIES else list(_FAMILIES.values())
    for table in tables:
        pattern = table[role] if "\\" in table[role] else re.escape(table[role])
        if any(re.search(rf"(^|\.){pattern}$", name) for name in linears):
            return pattern
    return None


def _last_layers(linears: Sequence[str], last: int) -> list[str]:
    numbers = {name: layer_number(name) for name in linears}
    count = 1 + max((n for n in numbers.values() if n is not None), default=-1)
    if last > count:
        raise RecipeError(f"adapt_last_layers: got {last}, expected at most {count}, the layers of this model")
    first = count - last if last else 0

    def kept(name: str) -> bool:
        number = numbers[name]
        # Outside the layers, a pooler comes after the last one and an embedding's projection before the first.
        return first == 0 or "pooler" in name if number is None else number >= first

    return [name for name in linears if kept(name)]
