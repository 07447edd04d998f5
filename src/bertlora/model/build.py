"""The base model as a sequence classifier: built with weights, or sketched without them; and which modules are new."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForSequenceClassification

from bertlora.errors import ModelError, first_line
from bertlora.model.base import Base, quiet
from bertlora.model.draws import Draws

# Attribute of a classifier: the encoder's modules for which the checkpoint has no weights.
LACKING = "bertlora_lacking_modules"


def build_classifier(
    base: Base, labels: Sequence[str], encoder_dropout: float, seed: int, hidden_dropout: float = 0.0
) -> Any:
    """Returns the base as a sequence classifier in fp32; its head is drawn from `seed`.

    Args:
        base: the base model.
        labels: label names, in the order of the logits.
        encoder_dropout: see `Base.config`.
        seed: seed of the head.
        hidden_dropout: see `Base.config`.

    Raises:
        ModelError: there are no safetensors weights, or they do not fit the config.
    """
    config = base.config(labels, encoder_dropout, hidden_dropout)
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
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)


def new_modules(model: nn.Module) -> list[str]:
    """Returns the modules of a classifier that are trained whole: the head, and what the checkpoint lacks.

    The head is everything outside the encoder: classifier, DistilBERT's pre-classifier, DeBERTa's pooler. A checkpoint
    may lack a pooler, for example.
    """
    prefix = str(model.base_model_prefix)
    head = [name for name, child in model.named_children() if name != prefix and list(child.parameters())]
    return head + list(getattr(model, LACKING, []))


def _loaded(base: Base, config: Any, **where: Any) -> Any:
    base.check_weights()
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
