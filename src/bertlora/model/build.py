"""The model of a training: the base as a sequence classifier, then LoRA: low-rank updates of frozen linear layers.

`build_classifier`                       `add_adapter`
    classifier (from transformers)           PeftModel
      encoder                                  encoder
        layer.0.attention.self.query             ...query = LoraLinear(base_layer=Linear, lora_A, lora_B)
        layer.0.attention.self.key               ...key, untouched and frozen
      classifier                               classifier = ModulesToSaveWrapper(original, trained copy)

PEFT owns injection, format and variants of the adapter; the linear layer itself is ours: `LoraLinear`.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from bertlora.errors import ModelError, first_line
from bertlora.model.base import Base, quiet
from bertlora.model.draws import Draws
from bertlora.model.engine import LoraLinear
from bertlora.model.roles import encoder_linears, matching, target_modules
from bertlora.recipe import Recipe
from bertlora.task import CLASSIFICATION

ADAPTER = "default"
# Attribute of a classifier: the encoder's modules for which the checkpoint has no weights.
LACKING = "bertlora_lacking_modules"
SMALL_BYTES = 64 << 20  # of weights that a checkpoint may lack, such as a pooler and a head


def build_classifier(
    base: Base,
    labels: Sequence[str],
    encoder_dropout: float,
    seed: int,
    hidden_dropout: float = 0.0,
    task: str = CLASSIFICATION,
) -> Any:
    """Returns the base as a sequence classifier in fp32; its head is drawn from `seed`.

    Args:
        base: the base model.
        labels: label names, in the order of the logits.
        encoder_dropout: see `Base.config`.
        seed: seed of the head.
        hidden_dropout: see `Base.config`.
        task: see `Base.config`.

    Raises:
        ModelError: there are no safetensors weights, or they do not fit the config.
    """
    config = base.config(labels, encoder_dropout, hidden_dropout, task)
    base.check_weights()
    _check_sizes(base, config)
    with Draws(seed).used():
        return _loaded(base, config)


def sketch_classifier(base: Base, labels: Sequence[str]) -> Any:
    """Returns the same classifier on torch's meta device, where tensors have shapes but no values: for counting.

    The base needs no weights. Without them, the sketch assumes that only the head is new.

    Raises:
        ModelError: there are weights, and they do not fit the config.
    """
    config = base.config(labels)
    if base.weight_files:
        return _loaded(base, config, device_map="meta")
    return _empty(config)


def _empty(config: Any) -> Any:
    """Returns a classifier whose tensors have shapes but no values."""
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)


def _loaded(base: Base, config: Any, **where: Any) -> Any:
    try:
        with quiet():
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                base.folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                # A checkpoint that has a head for other labels gets a new one.
                ignore_mismatched_sizes=True,
                trust_remote_code=False,
                output_loading_info=True,
                **where,
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"model {base.id}: cannot be loaded ({first_line(error)})") from error
    _check_encoder(base, model, loading)
    setattr(model, LACKING, _lacking(model, loading["missing_keys"]))
    return model


def _check_sizes(base: Base, config: Any) -> None:
    """Raises ModelError if a config has far larger tensors than its weights: transformers would draw the rest."""
    try:
        with quiet():
            wanted = sum(one.numel() for one in _empty(config).parameters())
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
        raise ModelError(f"model {base.id}: its config.json cannot be used ({first_line(error)})") from error
    if 2 * wanted > base.weight_bytes + SMALL_BYTES:  # a weight has at least two bytes, or is a new one of the head
        raise ModelError(
            f"model {base.id}: its weights do not fit its config.json, which has {wanted:,} weights; "
            "fetch both from the same model"
        )


def _lacking(model: nn.Module, missing: set[str]) -> list[str]:
    """Returns the encoder's modules that own weights and lack all of them.

    Only the loader knows what is missing: checkpoints of some architectures have other names, which it converts.
    """
    encoder = f"{model.base_model_prefix}."
    own = {
        name: {f"{name}.{weight}" for weight, _ in module.named_parameters(recurse=False)}
        for name, module in model.named_modules()
        if name.startswith(encoder)
    }
    return sorted(name for name, weights in own.items() if weights and weights <= set(missing))


def _check_encoder(base: Base, model: nn.Module, loading: dict[str, Any]) -> None:
    """Raises ModelError if the checkpoint lacks layers of the encoder: transformers would draw them at random."""
    odd = [key for key, *_ in loading["mismatched_keys"]]
    odd = [key for key in odd if key.startswith(f"{model.base_model_prefix}.")]
    odd += [key for key in loading["missing_keys"] if re.search(r"\.\d+\.|embeddings\.word", key)]
    if odd:
        raise ModelError(
            f"model {base.id}: its weights do not fit its config.json ({min(odd)} and {len(odd) - 1} more are missing "
            "or of another shape); fetch both from the same model"
        )


def new_modules(model: nn.Module) -> list[str]:
    """Returns the modules of a classifier that are trained whole: the head, and what the checkpoint lacks.

    The head is everything outside the encoder: classifier, DistilBERT's pre-classifier, DeBERTa's pooler. A checkpoint
    may lack a pooler, for example.
    """
    prefix = str(model.base_model_prefix)
    head = [name for name, child in model.named_children() if name != prefix and list(child.parameters())]
    return head + list(getattr(model, LACKING, []))


def lora_config(recipe: Recipe, base: Base, model: PreTrainedModel) -> LoraConfig:
    """Returns PEFT's config for `recipe` on this model, with every target by its full name.

    Raises:
        RecipeError: a target, or a name in a pattern, matches no layer.
    """
    whole = new_modules(model)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.lora_dropout,
        bias=recipe.bias,
        target_modules=target_modules(model, recipe.targets, whole, recipe.adapt_last_layers),
        rank_pattern=_pattern(model, whole, recipe.rank_pattern),
        alpha_pattern=_pattern(model, whole, recipe.alpha_pattern),
        modules_to_save=[name for name in whole if name not in ("classifier", "score")],
        use_rslora=recipe.variant == "rslora",
        use_dora=recipe.variant == "dora",
        init_lora_weights="pissa" if recipe.variant == "pissa" else True,
        base_model_name_or_path=base.id,
        revision=base.revision or None,
    )
    use_own_linear(config)
    return config


def use_own_linear(config: LoraConfig) -> None:
    """Makes PEFT inject `LoraLinear`, if it can serve this config; only this function uses PEFT's private method."""
    if not (config.use_dora or config.lora_bias):
        config._register_custom_module({nn.Linear: LoraLinear})


def add_adapter(recipe: Recipe, base: Base, model: PreTrainedModel, counting: bool = False) -> PeftModel:
    """Returns `model` with a fresh adapter drawn from the recipe's seed; only adapter and new modules are trainable.

    Args:
        recipe: rank, alpha, targets, variant and the rest.
        base: where the model came from.
        model: the sequence classifier; it is changed in place.
        counting: the adapter stays on the meta device too, for a model without weights.
    """
    with quiet(), Draws(recipe.seed).used():
        return get_peft_model(model, lora_config(recipe, base, model), low_cpu_mem_usage=counting)


def lora_parameters(model: nn.Module) -> int:
    """Returns the number of the adapter's own parameters, without the head."""
    return sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)


def _pattern(model: PreTrainedModel, whole: Sequence[str], pattern: dict[str, Any]) -> dict[str, Any]:
    """Returns a pattern by full module names; if two entries match a module, the later one wins."""
    linears = encoder_linears(model, whole)
    result: dict[str, Any] = {}
    for target, value in pattern.items():
        target_modules(model, [target], whole)
        result.update(dict.fromkeys(matching(model, target, linears), value))
    return result
