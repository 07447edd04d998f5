"""Adapted: a base model with its adapter, and all that turns texts into labels. Made fresh, saved, and loaded here."""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from peft import LoraConfig, PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bertlora.data.inputs import Inputs
from bertlora.errors import InputError, ModelError, RecipeError, RunError
from bertlora.model.base import Base, find_base, longest_input, quiet
from bertlora.model.build import build_classifier, new_modules
from bertlora.model.engine.batches import takes_token_types, unwrapped
from bertlora.model.head import headless
from bertlora.model.lora import ADAPTER, add_adapter, trained_state, use_own_linear
from bertlora.model.original import base_alone, changed_values, values_at_risk
from bertlora.model.precision import default_device
from bertlora.model.predict import Array, Reader, logits, logits_and_features, softmax
from bertlora.model.saved import missing_weights, saved_state, without_pissa
from bertlora.recipe import Recipe

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
BATCH_SIZE = 64


@dataclass
class Adapted:
    """A base with its adapter.

    Attributes:
        model: PEFT's model around transformers' sequence classifier.
        reader: tokenizer and framing.
        labels: names in the order of the logits.
        base: the base model's files.
        initial: the adapter as PiSSA drew it, needed to save it in a form that fits the unchanged base; else empty.
        pairs: whether it was trained on pairs of texts; None where that is not known.
        temperature: by which logits are divided before they become probabilities.
        changed: the base's own values of parameters that the adapter changes in place; see `original.py`.
    """

    model: Any
    reader: Reader
    labels: list[str]
    base: Base
    initial: dict[str, Tensor] = field(default_factory=dict)
    changed: dict[str, Tensor] = field(default_factory=dict)
    pairs: bool | None = None
    temperature: float = 1.0

    @property
    def architecture(self) -> str:
        """transformers' model type: `bert`, `distilbert`, ..."""
        return str(unwrapped(self.model).config.model_type)

    @classmethod
    def fresh(cls, recipe: Recipe, labels: Sequence[str]) -> "Adapted":
        """Returns an untrained adapter on the recipe's base model; head and adapter are drawn from the recipe's seed.

        Raises:
            ModelError, HubError: the base is missing or cannot serve.
            RecipeError: a target matches nothing, or max_length is over the model's.
        """
        base = find_base(recipe.model)
        check_length(recipe, base)
        reader = Reader.of(base.tokenizer(), recipe.max_length, recipe.truncation, recipe.long_texts)
        model = build_classifier(base, labels, recipe.encoder_dropout, recipe.seed, recipe.hidden_dropout)
        values = values_at_risk(model, recipe.bias, "pissa" if recipe.variant == "pissa" else True)
        adapted = add_adapter(recipe, base, model).to(default_device())
        initial = trained_state(adapted) if recipe.variant == "pissa" else {}
        return cls(adapted, reader, list(labels), base, initial, changed_values(adapted, values))

    @classmethod
    def load(cls, folder: Path, base: Base, labels: Sequence[str], reader: Reader, seed: int) -> "Adapted":
        """Returns the adapter saved in `folder`, ours or PEFT's, on `base`.

        Args:
            folder: holds adapter_config.json and adapter_model.safetensors.
            base: the base model.
            labels: names in the order of the logits.
            reader: tokenizer and framing.
            seed: draws the head that the base alone answers with.

        Raises:
            RunError: the folder is no LoRA adapter of a sequence classifier, or does not fit the base.
        """
        config = read_adapter_config(folder)
        model = build_classifier(base, labels, 0.0, seed)
        values, whole = values_at_risk(model, config.bias, config.init_lora_weights), new_modules(base, model)
        use_own_linear(config)
        try:
            with quiet():
                adapted = PeftModel.from_pretrained(model, str(folder), adapter_name=ADAPTER, config=config)
        except SafetensorError as error:
            raise RunError(f"{folder / WEIGHTS_FILE}: cannot be read ({error}); the run is damaged") from error
        except (ValueError, RuntimeError, KeyError) as error:
            raise RunError(f"{folder}: the adapter does not fit {base.id} ({str(error).splitlines()[0]})") from error
        if missing := missing_weights(folder / WEIGHTS_FILE, adapted, base, whole):
            raise RunError(
                f"{folder}: the adapter lacks {missing[0]}, which {base.id} does not have either; save it with every "
                "new module in modules_to_save"
            )
        adapted = adapted.to(default_device()).eval()
        return cls(adapted, reader, list(labels), base, changed=changed_values(adapted, values))

    def save(self, folder: Path) -> None:
        """Writes PEFT's layout to `folder`: config, every trained module, and the tokenizer.

        Raises:
            ModelError: a weight is no number; nothing is written.
        """
        state = saved_state(self.model)
        config = copy.deepcopy(self.model.peft_config[ADAPTER])
        if self.initial:
            state, config = without_pissa(state, config, self.initial)
        if not all(bool(value.isfinite().all()) for value in state.values()):
            raise ModelError("the adapter has weights that are no numbers; it was not saved")
        folder.mkdir(parents=True, exist_ok=True)
        config.inference_mode = True
        # PEFT puts the folder here from which the weights came; the id is what others can load.
        origin = self.base.origin
        config.base_model_name_or_path, config.revision = origin["id"], origin["revision"] or None
        tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
        # Not save_file, which gives a full disk an error type of its own.
        (folder / WEIGHTS_FILE).write_bytes(save(tensors, {"format": "pt"}))
        config.save_pretrained(str(folder))
        self.portable_tokenizer().save_pretrained(folder)

    def portable_tokenizer(self) -> Any:
        """Returns the tokenizer with maximum length, truncation side and inputs set, as any other program needs it."""
        tokenizer = copy.deepcopy(self.reader.tokenizer)
        framing = self.reader.framing
        tokenizer.model_max_length = framing.max_length
        tokenizer.truncation_side = "left" if framing.truncation == "left" else "right"
        names = ["input_ids", "token_type_ids", "attention_mask"]
        tokenizer.model_input_names = names if takes_token_types(self.model) else [names[0], names[2]]
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # what `save_pretrained` writes
        return tokenizer

    def logits(
        self, inputs: Inputs, base: bool = False, precision: str = "fp32", batch_size: int = BATCH_SIZE
    ) -> Array:
        """Returns logits, (B, K) float64; with `base`, those of the base and its untrained head."""
        if not base:
            return logits(self.model, inputs, self.reader.pad_id, batch_size, precision)
        with base_alone(self.model, self.changed):
            return logits(self.model, inputs, self.reader.pad_id, batch_size, precision)

    def read(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Inputs:
        """Returns the inputs of texts, or of pairs of texts.

        Raises:
            InputError: something is no text, or single texts go to a classifier of pairs, or pairs to one of texts.
        """
        if len(texts):
            self.check_pairs(pairs is not None)
        return self.reader.read(texts, pairs)

    def check_pairs(self, pairs: bool) -> None:
        """Raises InputError when single texts go to a classifier of pairs, or pairs to one of texts."""
        if self.pairs is not None and self.pairs != pairs:
            wanted, got = ("pairs of texts", "single texts") if self.pairs else ("single texts", "pairs of texts")
            raise InputError(f"got {got}, but the classifier was trained on {wanted}; name both columns, or one")

    def probabilities(self, texts: Sequence[str], pairs: Sequence[str] | None = None, base: bool = False) -> Array:
        """Returns the probabilities of texts, or of pairs, (B, K) float64; the base's are not calibrated."""
        inputs = self.read(texts, pairs)
        if not len(inputs):
            return np.zeros((0, len(self.labels)))
        return softmax(self.logits(inputs, base) / (1.0 if base else self.temperature))

    def base_view(self, inputs: Inputs, precision: str = "fp32") -> tuple[Array, Array]:
        """Returns the base's logits, (B, K), and the frozen encoder's features, (B, 2 D), from one pass."""
        with base_alone(self.model, self.changed):
            return logits_and_features(self.model, inputs, self.reader.pad_id, BATCH_SIZE, precision)

    def frozen_view(self, inputs: Inputs, precision: str = "fp32") -> tuple[Array, Array]:
        """Returns what goes into the base's last linear layer, (B, H), and its encoder's features, (B, 2 D)."""
        with headless(self.model):
            return self.base_view(inputs, precision)

    def merged(self) -> Any:
        """Returns a copy as a plain transformers classifier, the update added to its weights."""
        with quiet():
            return copy.deepcopy(self.model).merge_and_unload()


def check_length(recipe: Recipe, base: Base) -> None:
    """Raises RecipeError when the recipe's maximum length is over what the base has positions for."""
    longest = longest_input(base.config())
    if recipe.max_length > longest:
        raise RecipeError(
            f"max_length: got {recipe.max_length}, expected at most {longest}, the positions of {base.id}"
        )


def is_adapter(folder: Path) -> bool:
    """Returns whether the folder holds an adapter in PEFT's layout."""
    return (folder / CONFIG_FILE).is_file()


def read_adapter_config(folder: Path) -> LoraConfig:
    """Returns PEFT's config of a LoRA adapter for sequence classification.

    Raises:
        RunError: it is missing, of another kind, or without a head.
    """
    try:
        kind = dict(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))).get("peft_type")
        if kind != "LORA":
            raise RunError(f"{folder}: holds a {kind} adapter, expected LORA")
        config = LoraConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{folder / CONFIG_FILE}: cannot be read ({str(error).splitlines()[0]})") from error
    if not (folder / WEIGHTS_FILE).is_file():
        raise RunError(
            f"{folder}: {WEIGHTS_FILE} is missing; save the adapter as safetensors (nothing is unpickled here)"
        )
    return config


def adapter_classes(folder: Path) -> int:
    """Returns K, the number of classes of the head saved with an adapter.

    Raises:
        RunError: no head was saved with it.
    """
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
            heads = [
                k
                for k in list(file.keys())
                if k.endswith((".classifier.weight", ".classifier.out_proj.weight", ".score.weight"))
            ]
            if heads:
                return int(file.get_slice(heads[0]).get_shape()[0])
    except Exception as error:  # safetensors raises its own type, which it does not export
        raise RunError(f"{folder / WEIGHTS_FILE}: cannot be read ({error})") from error
    raise RunError(f"{folder}: no classification head was saved with the adapter; train it with task_type SEQ_CLS")
