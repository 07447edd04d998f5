"""LoRA: low-rank updates of frozen linear layers, in PEFT's format.

Before                                   After `add_adapter`
    classifier                               PeftModel
      encoder (from transformers)              encoder
        layer.0.attention.self.query             ...query = LoraLinear(base_layer=Linear, lora_A, lora_B)
        layer.0.attention.self.key               ...key, untouched and frozen
      classifier                               classifier = ModulesToSaveWrapper(original, trained copy)

PEFT owns injection, format and variants; the linear layer itself is ours: `LoraLinear`.
"""

from collections.abc import Sequence
from typing import Any

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from bertlora.model.base import Base, quiet
from bertlora.model.build import new_modules
from bertlora.model.draws import Draws
from bertlora.model.engine import LoraLinear
from bertlora.model.roles import encoder_linears, matching, target_modules
from bertlora.recipe import Recipe

ADAPTER = "default"


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
