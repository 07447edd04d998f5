"""The base as a sequence classifier: built, sketched without weights, and what in it is new."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForSequenceClassification

from bertlora.errors import ModelError
from bertlora.model.base import Base, first_line, quiet


def build_classifier(
    base: Base, labels: Sequence[str], encoder_dropout: float, seed: int, hidden_dropout: float = 0.0
) -> Any:
    """Returns the base as a sequence classifier in fp32, its head drawn from `seed`, its dropout as `Base.config` says.

    Raises:
        ModelError: there are no safetensors weights, or they do not fit the config.
    """
    base.check_weights()
    config = base.config(labels, encoder_dropout, hidden_dropout)
    torch.manual_seed(seed)
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
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"model {base.id}: cannot be loaded ({first_line(error)})") from error
    _check_encoder(base, model, loading)
    return model


def sketch_classifier(base: Base, labels: Sequence[str]) -> Any:
    """Returns the same classifier without weights, on torch's meta device: for counting."""
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(base.config(labels))


def new_modules(base: Base, model: nn.Module) -> list[str]:
    """Returns the modules that are trained whole: the head, and what the checkpoint lacks (a pooler, say).

    The head is all that stands outside the encoder: classifier, DistilBERT's pre-classifier, DeBERTa's pooler.
    """
    prefix = str(model.base_model_prefix)
    head = [name for name, child in model.named_children() if name != prefix and list(child.parameters())]
    return head + _missing(base, model, prefix)


def _missing(base: Base, model: nn.Module, prefix: str) -> list[str]:
    """Returns the encoder's modules of which the checkpoint has no weight at all; none if there is no checkpoint."""
    stored = {_modern(key.removeprefix(f"{prefix}.")) for key in base.tensor_names()}
    if not stored:
        return []
    encoder = getattr(model, prefix)
    lacking = {name.rpartition(".")[0] for name, _ in encoder.named_parameters() if name not in stored}
    present = {key.rpartition(".")[0] for key in stored}
    return [f"{prefix}.{name}" for name in sorted(lacking - present)]


def _check_encoder(base: Base, model: nn.Module, loading: dict[str, Any]) -> None:
    """Raises ModelError where the checkpoint lacks layers of the encoder: transformers would draw them at random."""
    odd = [key for key, *_ in loading["mismatched_keys"]]
    odd = [key for key in odd if key.startswith(f"{model.base_model_prefix}.")]
    odd += [key for key in loading["missing_keys"] if re.search(r"\.\d+\.|embeddings\.word", key)]
    if odd:
        raise ModelError(
            f"model {base.id}: its weights do not fit its config.json ({min(odd)} and {len(odd) - 1} more are missing "
            "or of another shape); fetch both from the same model"
        )


def _modern(key: str) -> str:
    """Returns today's name of a weight: old checkpoints say gamma and beta in LayerNorms."""
    return re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", key))
