"""What training would do, without weights: counted on a sketch of the model."""

import json
import math
from typing import Any

from bertlora.model.adapter_files import METADATA
from bertlora.model.base import check_length, find_base
from bertlora.model.build import add_adapter, lora_parameters, sketch_classifier
from bertlora.model.engine import ROW_TOKENS, training_precision
from bertlora.model.state import saved_state
from bertlora.recipe import Recipe


def plan(recipe: Recipe, labels: int) -> dict[str, Any]:
    """Returns what `plan --json` prints of the model.

    Args:
        recipe: the recipe.
        labels: K, the number of classes.

    Raises:
        ModelError, HubError: the base cannot be found or cannot serve.
        RecipeError: a target matches nothing, or max_length is over the model's.
    """
    base = find_base(recipe.model)
    check_length(recipe.max_length, base)
    # PiSSA needs the weights to start from; it has as many parameters as plain LoRA.
    counted = recipe.replace(variant="lora") if recipe.variant == "pissa" else recipe
    names = [str(i) for i in range(labels)]
    model = add_adapter(counted, base, sketch_classifier(base, names), counting=True)
    trainable, total = model.get_nb_trainable_parameters()
    config = base.config()
    precision = training_precision(recipe.precision, model, pack=not recipe.encoder_dropout)
    return {
        "recipe_model": recipe.model,
        "architecture": config.model_type,
        "trainable": trainable,
        "total": total,
        "trainable_percent": 100 * trainable / total,
        "lora_parameters": lora_parameters(model),
        "adapter_bytes": _file_bytes(model, doubled=recipe.variant == "pissa"),
        "model_bytes": 4 * (total - trainable),
        "targets": [name for name, m in model.get_base_model().named_modules() if hasattr(m, "lora_A")],
        "trained_whole": sorted(
            {
                n.split(".modules_to_save")[0].rpartition("base_model.model.")[2]
                for n, p in model.named_parameters()
                if p.requires_grad and "modules_to_save" in n
            }
        ),
        "precision": precision,
        "memory_mib": round(_memory(recipe, config, total) / 2**20),
    }


def _file_bytes(model: Any, doubled: bool) -> int:
    """Returns the size of adapter_model.safetensors: a length, a header padded to 8 bytes, and the tensors in fp32.

    Args:
        model: the sketch.
        doubled: the adapter is saved at twice its rank, as PiSSA's is.
    """
    header: dict[str, Any] = {"__metadata__": METADATA}
    end = 0
    for name, tensor in sorted(saved_state(model).items()):
        shape = list(tensor.shape)
        if doubled and (".lora_A." in name or ".lora_B." in name):
            shape[".lora_B." in name] *= 2
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    return 8 + math.ceil(len(json.dumps(header, separators=(",", ":"))) / 8) * 8 + end


def _memory(recipe: Recipe, config: Any, total: int) -> float:
    """Returns a rough peak in bytes: torch and its libraries, weights, and the activations of one micro-batch.

    A layer keeps about ten vectors of the hidden size and two of the feed-forward's for each token.
    """
    settings = config.to_dict()
    hidden = int(settings.get("hidden_size") or settings.get("dim") or 768)
    wide = int(settings.get("intermediate_size") or settings.get("hidden_dim") or 4 * hidden)
    layers = int(settings.get("num_hidden_layers") or settings.get("n_layers") or 12)
    a_token = 4 * layers * (10 * hidden + 2 * wide)
    return 450 * 2**20 + 4 * total + a_token * min(recipe.batch_size * recipe.max_length, ROW_TOKENS)
