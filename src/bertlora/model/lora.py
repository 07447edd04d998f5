"""LoRA: low-rank updates beside frozen linear layers, in PEFT's format.

Before                                   After `add_adapter`
    classifier                               PeftModel
      encoder (from transformers)              encoder
        layer.0.attention.self.query             ...query = LoraLinear(base_layer=Linear, lora_A, lora_B)
        layer.0.attention.self.key               ...key, untouched and frozen
      classifier                               classifier = ModulesToSaveWrapper(original, trained copy)

PEFT owns injection, format and variants; the linear layer itself is ours, in `lora_linear.py`.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from bertlora.model.base import Base, quiet
from bertlora.model.build import new_modules
from bertlora.model.lora_linear import LoraLinear
from bertlora.model.roles import encoder_linears, matching, target_modules
from bertlora.recipe import Recipe

ADAPTER = "default"


def lora_config(recipe: Recipe, base: Base, model: PreTrainedModel) -> LoraConfig:
    """Returns PEFT's config for `recipe` on this model, every target spelled out by its full name.

    Raises:
        RecipeError: a target, or a name in a pattern, matches no layer.
    """
    whole = new_modules(base, model)
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
    """Puts `LoraLinear` in place of PEFT's linear layer where it serves; no other place knows this door."""
    if not (config.use_dora or config.lora_bias):
        config._register_custom_module({nn.Linear: LoraLinear})


def add_adapter(recipe: Recipe, base: Base, model: PreTrainedModel, counting: bool = False) -> PeftModel:
    """Returns `model` with a fresh adapter drawn from the recipe's seed; only adapter and new modules are trainable.

    Args:
        recipe: rank, alpha, targets, variant and the rest.
        base: where the model came from.
        model: the sequence classifier; it is changed in place.
        counting: leave the adapter on the meta device, for a model without weights.
    """
    torch.manual_seed(recipe.seed)
    with quiet():
        return get_peft_model(model, lora_config(recipe, base, model), low_cpu_mem_usage=counting)


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Returns a copy of every trainable tensor by name, on the CPU."""
    return {n: p.detach().to("cpu", copy=True) for n, p in model.named_parameters() if p.requires_grad}


def load_trained_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Puts tensors from `trained_state` back."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in state.items():
            parameters[name].copy_(value)


def lora_parameters(model: nn.Module) -> int:
    """Returns the number of the adapter's own parameters, the head left out."""
    return sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)


@contextmanager
def adapter_off(model: PeftModel) -> Iterator[None]:
    """Inside, the model is the base with its untrained head."""
    with ExitStack() as stack:
        with quiet():  # PEFT warns that trained biases stay; `base_alone` sees to them
            stack.enter_context(model.disable_adapter())
        yield


def _pattern(model: PreTrainedModel, whole: Sequence[str], pattern: dict[str, Any]) -> dict[str, Any]:
    """Returns a pattern by full module names; the later entry wins where two match one module."""
    linears = encoder_linears(model, whole)
    result: dict[str, Any] = {}
    for target, value in pattern.items():
        target_modules(model, [target], whole)
        result.update(dict.fromkeys(matching(model, target, linears), value))
    return result
