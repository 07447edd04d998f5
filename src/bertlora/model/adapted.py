"""Runnable: a classifier and the reader of its texts. Adapted: a base with its adapter, made, saved and loaded."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import get_ident
from typing import Any

import numpy as np
from peft import PeftModel
from safetensors import SafetensorError
from torch import Tensor

from bertlora.confidence.probabilities import Array
from bertlora.data.inputs import Inputs
from bertlora.data.reader import Reader
from bertlora.errors import ModelError, RunError
from bertlora.model.adapter_files import WEIGHTS_FILE, read_adapter_config, weights_bytes
from bertlora.model.base import Base, check_length, find_base, quiet
from bertlora.model.build import ADAPTER, add_adapter, build_classifier, new_modules, use_own_linear
from bertlora.model.engine import (
    BATCH_SIZE,
    Execution,
    Features,
    executing,
    owned,
    takes_token_types,
    training_precision,
    unwrapped,
)
from bertlora.model.machine import choose_precision, default_device
from bertlora.model.state import (
    changed_values,
    missing_weights,
    saved_state,
    trained_state,
    values_at_risk,
    without_pissa,
)
from bertlora.recipe import Recipe
from bertlora.task import CLASSIFICATION, task_of_problem

# int8 is chosen if it moves the base's features of this many texts by at most this share of their spread.
COMPARED, INT8_ERROR = 16, 0.1


@dataclass
class Runnable:
    """A transformers classifier, with or without an adapter, and the reader of its texts.

    Threads may share it: while one runs the model, the others wait.

    Attributes:
        model: transformers' sequence classifier, or PEFT's model around it.
        reader: turns texts into inputs.
        labels: names in the order of the logits; the name of the number in a regression.
    """

    model: Any
    reader: Reader
    labels: list[str]
    _held: tuple[int, str, Execution] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def architecture(self) -> str:
        """transformers' model type: `bert`, `distilbert`, ..."""
        return str(unwrapped(self.model).config.model_type)

    @property
    def task(self) -> str:
        """What it predicts: `classification`, `multilabel` or `regression`."""
        return task_of_problem(unwrapped(self.model).config.problem_type).name

    def choose_precision(self, wanted: str) -> str:
        """Returns the precision for `fp32`, `bf16`, `int8` or `auto`; see `machine.choose_precision`."""
        return choose_precision(wanted, self.architecture)

    @contextmanager
    def execution(self, precision: str = "fp32", **how: Any) -> Iterator[Execution]:
        """Inside, the model is ready to run, and other threads wait.

        Args:
            precision: `fp32`, `bf16`, `int8` or `auto`.
            how: `tokens`, `training`, `pack`, `base` and `head`, as `executing` takes them.

        Raises:
            InUseError: this thread uses the model already.
        """
        with executing(self.model, self.reader.pad_id, self.choose_precision(precision), **how) as execution:
            yield execution

    @contextmanager
    def ready(self, precision: str = "fp32") -> Iterator[None]:
        """Inside, predictions of this thread start at once: the weights stay merged and cast between calls.

        Args:
            precision: `fp32`, `bf16`, `int8` or `auto`. Inside, `logits` must be asked for the same.

        Raises:
            InUseError: this thread uses the model already.
        """
        precision = self.choose_precision(precision)
        with self.execution(precision) as execution:
            self._held = get_ident(), precision, execution
            try:
                yield
            finally:
                self._held = None

    def logits(self, inputs: Inputs, *, precision: str = "fp32", batch_size: int = BATCH_SIZE) -> Array:
        """Returns logits, (B, K) float64.

        Raises:
            InUseError: this thread holds the model ready in another precision, or trains it.
        """
        precision = self.choose_precision(precision)
        if self._held is not None and self._held[:2] == (get_ident(), precision):
            return self._held[2].predict(inputs, batch_size)
        with self.execution(precision, tokens=int(inputs.lengths.sum())) as execution:
            return execution.predict(inputs, batch_size)


@dataclass
class Adapted(Runnable):
    """A base with its adapter.

    Attributes:
        model: PEFT's model around transformers' sequence classifier.
        reader: turns texts into inputs.
        labels: names in the order of the logits; the name of the number in a regression.
        base: the base model's files.
        initial: the adapter as PiSSA drew it, needed to save it for the unchanged base; otherwise empty.
        changed: the base's own values of parameters that the adapter changes in place; see `state.py`.
    """

    base: Base
    initial: dict[str, Tensor] = field(default_factory=dict)
    changed: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def fresh(cls, recipe: Recipe, labels: Sequence[str], pairs: bool | None = None) -> "Adapted":
        """Returns an untrained adapter on the recipe's base model. The recipe's seed draws head and adapter.

        Args:
            recipe: base, adapter and maximum length.
            labels: names in the order of the logits.
            pairs: whether it classifies pairs of texts; None if that is not known.

        Raises:
            ModelError, HubError: the base is missing or cannot serve.
            RecipeError: a target matches no layer, or max_length is larger than the model allows.
        """
        base = find_base(recipe.model)
        check_length(recipe.max_length, base)
        reader = Reader.of(base.text_tokenizer(), recipe.max_length, recipe.truncation, recipe.long_texts, pairs)
        dropouts = recipe.encoder_dropout, recipe.seed, recipe.hidden_dropout
        model = build_classifier(base, labels, *dropouts, task=recipe.task)
        values = values_at_risk(model, recipe.bias, "pissa" if recipe.variant == "pissa" else True)
        adapted = add_adapter(recipe, base, model).to(default_device())
        initial = trained_state(adapted) if recipe.variant == "pissa" else {}
        return cls(adapted, reader, list(labels), base, initial, changed_values(adapted, values))

    @classmethod
    def load(
        cls, folder: Path, base: Base, labels: Sequence[str], reader: Reader, seed: int, task: str = CLASSIFICATION
    ) -> "Adapted":
        """Returns the adapter saved in `folder` by bertlora or PEFT, on `base`.

        Args:
            folder: holds adapter_config.json and adapter_model.safetensors.
            base: the base model.
            labels: names in the order of the logits.
            reader: turns texts into inputs.
            seed: draws the head with which the base answers.
            task: what the adapter predicts.

        Raises:
            RunError: the folder is no LoRA adapter of a sequence classifier, or does not fit the base.
        """
        config = read_adapter_config(folder)
        model = build_classifier(base, labels, 0.0, seed, task=task)
        values, whole = values_at_risk(model, config.bias, config.init_lora_weights), new_modules(model)
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
                f"{folder}: the adapter lacks {missing[0]}, and {base.id} does not have it either; save the adapter "
                "with every new module in modules_to_save"
            )
        adapted = adapted.to(default_device()).eval()
        return cls(adapted, reader, list(labels), base, changed=changed_values(adapted, values))

    @contextmanager
    def execution(self, precision: str = "fp32", base: bool = False, **how: Any) -> Iterator[Execution]:
        """Inside, the model is ready to run; with `base`, the base and its untrained head. See `Runnable.execution`."""
        with super().execution(precision, base=self.changed if base else None, **how) as execution:
            yield execution

    def training_precision(self, wanted: str, inputs: Inputs, pack: bool = True) -> str:
        """Returns the precision of a training on these texts.

        `auto` is as the engine says, but not int8 if the base's features differ too much in int8.
        """
        chosen = training_precision(wanted, self.model, pack)
        doubtful = wanted == "auto" and chosen == "int8"
        return self.choose_precision("auto") if doubtful and self._int8_error(inputs) > INT8_ERROR else chosen

    def _int8_error(self, inputs: Inputs) -> float:
        """Returns the error of the base's features in int8, divided by their spread, on the first texts."""
        few = inputs.take(range(min(len(inputs), COMPARED)))
        found = []
        for precision in ("fp32", "int8"):
            with self.execution(precision, base=True) as execution:
                found.append(execution.features(few)[1])
        spread = float(np.linalg.norm(found[0] - found[0].mean(0)))
        return float(np.linalg.norm(found[1] - found[0])) / max(spread, 1e-12)

    def logits(
        self, inputs: Inputs, base: bool = False, precision: str = "fp32", batch_size: int = BATCH_SIZE
    ) -> Array:
        """Returns logits, (B, K) float64; with `base`, those of the base and its untrained head.

        Raises:
            InUseError: this thread holds the model ready in another precision, or trains it.
        """
        if not base:
            return super().logits(inputs, precision=precision, batch_size=batch_size)
        with self.execution(precision, base, tokens=int(inputs.lengths.sum())) as execution:
            return execution.predict(inputs, batch_size)

    def base_features(self, inputs: Inputs, precision: str = "fp32", head: bool = True) -> tuple[Features, Features]:
        """Returns the base's logits, (B, K), and its encoder's features, (B, 2 D), from one pass, in float32.

        Without `head`, the input of the last linear layer, (B, H), takes the place of the logits.
        """
        with self.execution(precision, base=True, head=head, tokens=int(inputs.lengths.sum())) as execution:
            return execution.features(inputs)

    def save(self, folder: Path) -> None:
        """Writes PEFT's layout to `folder`: config, every trained module, and the tokenizer.

        Raises:
            ModelError: a weight is not finite; nothing is written.
        """
        with owned(self.model):
            state = saved_state(self.model)
        config = copy.deepcopy(self.model.peft_config[ADAPTER])
        if self.initial:
            state, config = without_pissa(state, config, self.initial)
        if not all(bool(value.isfinite().all()) for value in state.values()):
            raise ModelError("the adapter has weights that are not finite numbers; it was not saved")
        folder.mkdir(parents=True, exist_ok=True)
        config.inference_mode = True
        # PEFT writes the folder from which the weights came; others can load the id.
        origin = self.base.origin
        config.base_model_name_or_path, config.revision = origin["id"], origin["revision"] or None
        tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
        # save_file would report a full disk by an error type of its own.
        (folder / WEIGHTS_FILE).write_bytes(weights_bytes(tensors))
        # PEFT writes a set in any order, and adds the same heads at each loading; the same adapter is the same bytes.
        for name, value in vars(config).items():
            if isinstance(value, set):
                setattr(config, name, sorted(value))
        if config.modules_to_save is not None:
            config.modules_to_save = list(dict.fromkeys(config.modules_to_save))
        config.save_pretrained(str(folder))
        self.portable_tokenizer().save_pretrained(folder)

    def portable_tokenizer(self) -> Any:
        """Returns transformers' tokenizer with maximum length, truncation side and inputs set, for other programs."""
        tokenizer = Base(self.base.id, self.reader.tokenizer.folder or self.base.folder).tokenizer()
        template = self.reader.template
        tokenizer.model_max_length = template.max_length
        tokenizer.truncation_side = "left" if template.truncation == "left" else "right"
        names = ["input_ids", "token_type_ids", "attention_mask"]
        tokenizer.model_input_names = names if takes_token_types(self.model) else [names[0], names[2]]
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # what `save_pretrained` writes
        return tokenizer

    def merged(self) -> Any:
        """Returns a copy as a plain transformers classifier, with the update added to its weights."""
        with owned(self.model), quiet():
            return copy.deepcopy(self.model).merge_and_unload()
