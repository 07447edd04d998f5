"""Recipe: every option of a training run, once, with its help, range and type.

Flags, TOML files, the Python class and the documentation all come from the fields below.
A value of 0 means "off" or "all" where the help says so, since TOML has no null.
"""

import dataclasses
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Self, get_type_hints

from bertlora.errors import RecipeError, suggestion

ROLES = ("query", "key", "value", "attention-output", "ffn-in", "ffn-out", "all-linear")
UNBOUNDED = math.inf


def _option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float = UNBOUNDED,
    above: bool = False,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field with its help and its range: `low` (not itself, if `above`) to `high`, or one of `choices`."""
    facts = {"help": help, "low": low, "high": high, "above": above, "choices": choices}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=facts)
    return field(default=default, metadata=facts)


@dataclass(frozen=True)
class Recipe:
    """All options of a run. Values are checked when it is made.

    Raises:
        RecipeError: a value is out of its range or of the wrong type.
    """

    model: str = _option("minilm", "base model: a hub id, a folder, or minilm, the embedded one")
    data: tuple[str, ...] = _option((), "data source when none is given, as `prepare` takes it")
    sample: int = _option(0, "rows drawn at random from the source, from each split if it has several; 0 = all", low=0)
    split: str = _option("70/15/15", "shares of train/validation/test in percent; a 0 leaves a part out")
    label_names: tuple[str, ...] = _option((), "names to show for the labels, in their order; empty = as in the data")
    samples: tuple[str, ...] = _option((), "texts predicted before and after training")

    rank: int = _option(8, "rank R of the update B A: A is (R, in), B is (out, R)", low=1)
    alpha: float = _option(16.0, "the update is scaled by alpha/rank (alpha/sqrt(rank) for rslora)", low=0, above=True)
    lora_dropout: float = _option(0.0, "dropout on the input of A, in training", low=0, high=0.99)
    bias: str = _option("none", "which biases are trained", choices=("none", "lora_only", "all"))
    targets: tuple[str, ...] = _option(
        ("query", "value"), f"linear layers adapted: {', '.join(ROLES)}, or module names"
    )
    adapt_last_layers: int = _option(0, "adapt the last K layers alone; 0 = all", low=0)
    variant: str = _option("lora", "kind of LoRA", choices=("lora", "rslora", "dora", "pissa"))
    rank_pattern: dict[str, int] = _option({}, "ranks of their own: role or module name = rank", low=1)
    alpha_pattern: dict[str, float] = _option({}, "alphas of their own: role or module name = alpha", low=0, above=True)

    head_start: str = _option(
        "random",
        "direction of the head's last layer before training: drawn, or that of a linear probe",
        choices=("random", "probe"),
    )
    learning_rate: float = _option(1e-3, "peak learning rate of AdamW", low=0, above=True, high=10)
    head_learning_rate: float = _option(0.0, "learning rate of the head; 0 = learning_rate", low=0, high=10)
    lora_plus_ratio: float = _option(1.0, "LoRA+: B learns at this multiple of learning_rate", low=1)
    batch_size: int = _option(16, "texts a micro-batch", low=1)
    evaluation_batch_size: int = _option(64, "texts a batch in evaluation", low=1)
    gradient_accumulation: int = _option(1, "micro-batches an optimiser step", low=1)
    epochs: int = _option(3, "passes over the training split", low=1)
    max_steps: int = _option(0, "stop after this many optimiser steps; 0 = no limit", low=0)
    weight_decay: float = _option(0.01, "AdamW's decay of matrices (biases and norms are left out)", low=0, high=1)
    schedule: str = _option("linear", "learning rate after the warm-up", choices=("linear", "cosine", "constant"))
    warmup_fraction: float = _option(0.0, "share of the steps in which the rate rises from 0", low=0, high=1)
    max_grad_norm: float = _option(1.0, "gradients are clipped to this norm; 0 = never", low=0)
    max_length: int = _option(512, "longest text in tokens, special tokens included", low=8)
    truncation: str = _option("right", "which end of a long text is cut", choices=("right", "left", "head-tail"))
    long_texts: str = _option(
        "truncate",
        "texts over max_length are cut, or read in overlapping windows and their logits averaged",
        choices=("truncate", "windows"),
    )
    hidden_dropout: float = _option(
        0.0, "dropout of hidden states and before the head, in training; 0 = encoder_dropout", low=0, high=0.99
    )
    encoder_dropout: float = _option(
        0.0, "all dropout of encoder and head, in training; attention's own makes it slow", low=0, high=0.99
    )
    average_weights: float = _option(
        0.0, "share of the steps over which weights are averaged, to be judged and kept; 0 = off", low=0, high=1
    )
    class_weights: str = _option("none", "weight of a class in the loss", choices=("none", "balanced"))
    evaluate_every_steps: int = _option(0, "optimiser steps between evaluations; 0 = once an epoch", low=0)
    best_metric: str = _option("accuracy", "what the best adapter is chosen by", choices=("accuracy", "loss"))
    early_stopping_patience: int = _option(0, "stop after this many evaluations without gain; 0 = never", low=0)
    precision: str = _option(
        "auto", "arithmetic of training; auto measures the machine", choices=("auto", "fp32", "bf16")
    )
    seed: int = _option(42, "seed of head, adapter, order of texts and dropout", low=0, high=2**32 - 1)
    tracker: str = _option("none", "where curves are sent as well", choices=("none", "tensorboard", "wandb", "mlflow"))

    def __post_init__(self) -> None:
        for key, kind in recipe_keys().items():
            object.__setattr__(self, key, _checked(key, kind, getattr(self, key)))
        split_shares(self.split)

    def replace(self, /, **changes: Any) -> Self:
        """Returns a copy with `changes`; an unknown key is an error with a suggestion."""
        for key in changes:
            if key not in recipe_keys():
                raise RecipeError(f"recipe key '{key}' is unknown{suggestion(key, recipe_keys())}")
        return dataclasses.replace(self, **changes)

    @classmethod
    def named(cls, name: str) -> "Recipe":
        """Returns the recipe of that name, or the one in the TOML file of that path."""
        path = recipe_path(name)
        try:
            return cls().replace(**tomllib.loads(path.read_text(encoding="utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: not a TOML file ({error})") from error
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from error

    @property
    def rows_per_step(self) -> int:
        """Rows of an optimiser step: all its micro-batches."""
        return self.batch_size * self.gradient_accumulation

    def steps_per_epoch(self, rows: int) -> int:
        """Returns the optimiser steps of one pass over so many rows; the last may be smaller."""
        return -(-rows // self.rows_per_step)

    def steps(self, rows: int) -> int:
        """Returns the optimiser steps of a whole training on so many rows."""
        steps = self.epochs * self.steps_per_epoch(rows)
        return min(steps, self.max_steps or steps)

    def to_toml(self, comments: bool = True) -> str:
        """Returns every key as TOML, each under a comment that says what it is."""
        lines = []
        for f in dataclasses.fields(self):
            if comments:
                lines.append(f"# {f.metadata['help']}{_range(f.metadata)}")
            lines.append(f"{f.name} = {_toml(getattr(self, f.name))}")
        return "\n".join(lines) + "\n"


def recipe_keys() -> dict[str, Any]:
    """Returns the recipe's keys in order, with their types."""
    hints = get_type_hints(Recipe)
    return {f.name: hints[f.name] for f in dataclasses.fields(Recipe)}


def recipe_names() -> list[str]:
    """Returns the names of the recipes that come with bertlora, `default` first."""
    names = sorted(
        p.name.removesuffix(".toml") for p in files("bertlora.recipes").iterdir() if p.name.endswith(".toml")
    )
    return sorted(names, key=lambda name: name != "default")


def recipe_path(name: str) -> Path:
    """Returns the file of a recipe: a built-in name, or a path to a TOML file.

    Raises:
        RecipeError: neither is there.
    """
    if name in recipe_names():
        return Path(str(files("bertlora.recipes") / f"{name}.toml"))
    path = Path(name)
    if path.is_file():
        return path
    known = recipe_names()
    raise RecipeError(f"recipe '{name}' is not one of {', '.join(known)}, nor a TOML file{suggestion(name, known)}")


def split_shares(split: str) -> tuple[float, float, float]:
    """Returns the shares of train, validation and test, which add up to 1.

    Raises:
        RecipeError: `split` is not three numbers that add up to 100, the first above 0.
    """
    try:
        train, validation, test = (float(part) for part in split.split("/"))
    except ValueError:
        raise RecipeError(f"split: got '{split}', expected train/validation/test in percent such as 70/15/15") from None
    # Written as "not inside" so that NaN is refused too.
    if not (min(train, validation, test) >= 0 and train > 0 and abs(train + validation + test - 100) <= 1e-6):
        raise RecipeError(f"split: got '{split}', expected three shares of 0 or more that add up to 100, train above 0")
    return train / 100, validation / 100, test / 100


def parse_value(key: str, text: str) -> Any:
    """Returns the value of a key from its text on the command line; a list is comma-separated, a table `name=value`."""
    kind = recipe_keys()[key]
    if kind == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind in (dict[str, int], dict[str, float]):
        pairs = [part.partition("=") for part in text.split(",") if part.strip()]
        return {name.strip(): _number(key, value) for name, _, value in pairs}
    return _number(key, text) if kind in (int, float) else text


def _number(key: str, text: str) -> float | int:
    try:
        value = float(text)
    except ValueError:
        raise RecipeError(f"{key}: got '{text}', expected a number") from None
    return int(value) if value.is_integer() else value


def _checked(key: str, kind: Any, value: Any) -> Any:
    """Returns `value` in the field's own type, or raises RecipeError naming what was expected."""
    facts = Recipe.__dataclass_fields__[key].metadata
    if kind == tuple[str, ...]:
        if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
            raise RecipeError(f"{key}: got {value!r}, expected a list of strings")
        return tuple(value)
    if kind in (dict[str, int], dict[str, float]):
        if not isinstance(value, Mapping):
            raise RecipeError(f"{key}: got {value!r}, expected a table of name = number")
        return {name: _in_range(f"{key} of '{name}'", kind.__args__[1], item, facts) for name, item in value.items()}
    if kind is str:
        if not isinstance(value, str) or (facts["choices"] and value not in facts["choices"]):
            expected = f"one of {', '.join(facts['choices'])}" if facts["choices"] else "a string"
            raise RecipeError(f"{key}: got {value!r}, expected {expected}{suggestion(str(value), facts['choices'])}")
        return value
    return _in_range(key, kind, value, facts)


def _in_range(name: str, kind: type, value: Any, facts: Mapping[str, Any]) -> Any:
    low, high = facts["low"], facts["high"]
    whole = kind is int
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise RecipeError(f"{name}: got {value!r}, expected {'a whole number' if whole else 'a number'}{_range(facts)}")
    # Written as "not inside" so that NaN is refused too.
    if not (math.isfinite(value) and (low < value <= high if facts["above"] else low <= value <= high)):
        raise RecipeError(f"{name}: got {value}, expected {'a whole number' if whole else 'a number'}{_range(facts)}")
    return kind(value)


def _range(facts: Mapping[str, Any]) -> str:
    """Returns the range as text, with a leading blank: ` (above 0)`, ` (0 to 1)`, ` (none, lora_only or all)`."""
    if facts["choices"]:
        return f" ({', '.join(facts['choices'][:-1])} or {facts['choices'][-1]})"
    if facts["low"] is None:
        return ""
    start = f"above {facts['low']:g}" if facts["above"] else f"{facts['low']:g}"
    if facts["high"] == UNBOUNDED:
        return f" ({start})" if facts["above"] else f" ({start} or more)"
    return f" ({start}{', at most' if facts['above'] else ' to'} {facts['high']:g})"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(part) for part in value) + "]"
    # TOML, unlike JSON, has no bare DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") if isinstance(value, str) else repr(value)
