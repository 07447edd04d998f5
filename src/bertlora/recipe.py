"""Recipe: every option of a training run, with its default, type, range, group and help text.

Flags, TOML files, the Python class and the documentation are all made from the fields below. The defaults are the
`default` recipe. TOML has no null, so 0 means "off" or "all" where the help says so.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self, get_type_hints

from bertlora.errors import RecipeError, suggestion
from bertlora.options import SPLIT, checked, option, parsed, range_text, split_shares, toml
from bertlora.task import AUTO, TASKS

RECIPES = Path(__file__).with_name("recipes")
ROLES = ("query", "key", "value", "attention-output", "ffn-in", "ffn-out", "all-linear")
# What a run may be resumed with another value of: it changes no step that is done.
MAY_CHANGE = ("epochs", "checkpoint_minutes")
# The headings under which the options are listed.
GROUPS = ("run", "data", "lora", "head", "optimiser", "evaluation")


@dataclass(frozen=True)
class Recipe:
    """All options of a run. The values are checked when a recipe is made.

    Raises:
        RecipeError: a value is out of its range or has the wrong type.
    """

    model: str = option("minilm", "run", "base model: a hub id, a folder, or minilm (embedded)")
    precision: str = option(
        "auto",
        "run",
        "number format of training; auto measures what is fastest here: bf16, int8 for the frozen layers, or fp32",
        choices=("auto", "fp32", "bf16", "int8"),
    )
    seed: int = option(
        42, "run", "seed of the head, the adapter, the order of texts and dropout", low=0, high=2**32 - 1
    )
    tracker: str = option(
        "none",
        "run",
        "experiment tracker that also gets the curves",
        choices=("none", "tensorboard", "wandb", "mlflow"),
    )
    checkpoint_minutes: float = option(
        5.0,
        "run",
        "minutes between checkpoints within an epoch, for --resume; 0 = only at evaluations",
        low=0,
    )

    task: str = option(
        AUTO,
        "data",
        "what is predicted: a class, any number of labels, or a number; auto takes lists of labels as multilabel, real "
        "numbers as regression, other labels as classes",
        choices=(AUTO, *TASKS),
    )
    data: tuple[str, ...] = option((), "data", "data source if none is given, as for `prepare`")
    sample: int = option(0, "data", "rows to draw at random; `sample_from` says from what; 0 = all", low=0)
    sample_from: str = option(
        "table",
        "data",
        "what sample draws from: a table before it is split, or each of its splits; named splits: always from each",
        choices=("table", "split"),
    )
    split: str = option(SPLIT, "data", "percent for train/validation/test; 0 leaves a split out")
    validation_fraction: float = option(
        0.1,
        "data",
        "fraction of the training rows to hold out if there are no validation rows, and 30 or more result; 0 = none",
        low=0,
        high=0.9,
    )
    label_names: tuple[str, ...] = option(
        (), "data", "names to show for the labels, in order; empty = those of the data"
    )
    max_length: int = option(512, "data", "longest input in tokens, special tokens included", low=8)
    truncation: str = option(
        "head-tail",
        "data",
        "what a long text keeps: its start (right), its end (left), or both",
        choices=("right", "left", "head-tail"),
    )
    long_texts: str = option(
        "truncate",
        "data",
        "a text over max_length is cut, or read in overlapping windows whose logits are averaged",
        choices=("truncate", "windows"),
    )

    rank: int = option(8, "lora", "rank R of the update B A: A is (R, in), B is (out, R)", low=1)
    alpha: float = option(
        16.0, "lora", "the update is scaled by alpha/rank (rslora: alpha/sqrt(rank))", low=0, above=True
    )
    lora_dropout: float = option(0.0, "lora", "dropout on the input of A during training", low=0, high=0.99)
    bias: str = option("none", "lora", "which biases are trained", choices=("none", "lora_only", "all"))
    targets: tuple[str, ...] = option(
        ("all-linear",), "lora", f"linear layers that get an adapter: {', '.join(ROLES)}, or module names"
    )
    adapt_last_layers: int = option(0, "lora", "adapt only the last K layers; 0 = all", low=0)
    variant: str = option("lora", "lora", "kind of LoRA", choices=("lora", "rslora", "dora", "pissa"))
    rank_pattern: dict[str, int] = option({}, "lora", "other ranks for some layers: role or module name = rank", low=1)
    alpha_pattern: dict[str, float] = option(
        {}, "lora", "other alphas for some layers: role or module name = alpha", low=0, above=True
    )

    head_start: str = option(
        "probe",
        "head",
        "how the head's last layer starts: at random, or in the direction of a linear probe",
        choices=("random", "probe"),
    )
    head_learning_rate: float = option(0.0, "head", "learning rate of the head; 0 = learning_rate", low=0, high=10)

    learning_rate: float = option(1e-3, "optimiser", "highest learning rate of AdamW", low=0, above=True, high=10)
    lora_plus_ratio: float = option(1.0, "optimiser", "LoRA+: B's learning rate is this multiple of A's", low=1)
    batch_size: int = option(16, "optimiser", "texts in a micro-batch", low=1)
    gradient_accumulation: int = option(1, "optimiser", "micro-batches in an optimiser step", low=1)
    epochs: int = option(3, "optimiser", "passes over the training split", low=1)
    max_steps: int = option(0, "optimiser", "stop after this many optimiser steps; 0 = no limit", low=0)
    weight_decay: float = option(
        0.01, "optimiser", "AdamW's weight decay, for matrices only (no biases, no norms)", low=0, high=1
    )
    schedule: str = option(
        "linear", "optimiser", "learning rate after the warm-up", choices=("linear", "cosine", "constant")
    )
    warmup_fraction: float = option(
        0.06, "optimiser", "fraction of the steps in which the learning rate rises from 0", low=0, high=1
    )
    max_grad_norm: float = option(1.0, "optimiser", "gradients are clipped to this norm; 0 = no clipping", low=0)
    hidden_dropout: float = option(
        0.0,
        "optimiser",
        "dropout of hidden states and before the head during training; 0 = encoder_dropout",
        low=0,
        high=0.99,
    )
    encoder_dropout: float = option(
        0.0,
        "optimiser",
        "every dropout of encoder and head during training; dropout in attention makes training slow",
        low=0,
        high=0.99,
    )
    average_weights: float = option(
        0.15,
        "optimiser",
        "fraction of the steps over which weights are averaged; the average is evaluated and kept; 0 = off",
        low=0,
        high=1,
    )
    loss: str = option(
        AUTO,
        "optimiser",
        "loss; auto is cross-entropy for classes, binary-cross-entropy for several labels, mse for numbers; huber is "
        "less moved by outliers",
        choices=(AUTO, "cross-entropy", "binary-cross-entropy", "mse", "huber"),
    )
    class_weights: str | dict[str, float] = option(
        "auto",
        "optimiser",
        "weights of the classes in the loss; auto is balanced if classes are imbalanced, else none; in a table of "
        "class = weight, others are 1",
        low=0,
        above=True,
        choices=("auto", "none", "balanced"),
    )
    label_smoothing: float = option(
        0.0,
        "optimiser",
        "cross-entropy: the share of each label's weight that goes to all classes equally",
        low=0,
        high=1,
    )

    evaluation_batch_size: int = option(64, "evaluation", "texts in a batch of evaluation", low=1)
    evaluate_every_steps: int = option(0, "evaluation", "optimiser steps between evaluations; 0 = once an epoch", low=0)
    best_metric: str = option(
        "auto",
        "evaluation",
        "metric that chooses the best adapter; auto: accuracy, macro_f1 if imbalanced, average_precision (several "
        "labels), rmse (numbers)",
        choices=(
            "auto",
            "accuracy",
            "macro_f1",
            "micro_f1",
            "matthews",
            "f1",
            "subset_accuracy",
            "average_precision",
            "rmse",
            "mae",
            "pearson",
            "spearman",
            "loss",
        ),
    )
    early_stopping_patience: int = option(
        0, "evaluation", "stop after this many evaluations without improvement; 0 = never", low=0
    )
    samples: tuple[str, ...] = option((), "evaluation", "texts to predict before and after training")

    def __post_init__(self) -> None:
        for key, kind in recipe_keys().items():
            facts = self.__dataclass_fields__[key].metadata
            object.__setattr__(self, key, checked(key, kind, facts, getattr(self, key)))
        split_shares(self.split)

    def replace(self, /, **changes: Any) -> Self:
        """Returns a copy with `changes`.

        Raises:
            RecipeError: a key is unknown, or a value is out of its range.
        """
        for key in changes:
            if key not in recipe_keys():
                raise RecipeError(f"recipe key '{key}' is unknown{suggestion(key, recipe_keys())}")
        return dataclasses.replace(self, **changes)

    def for_task(self, name: str) -> Self:
        """Returns the recipe for a task that is known now.

        Raises:
            RecipeError: the recipe names another task, or a value does not fit the task.
        """
        if self.task not in (AUTO, name):
            raise RecipeError(f"task: got {self.task}, but the data is prepared for {name}; prepare it again")
        for key, values in TASKS[name].options.items():
            if getattr(self, key) not in values:
                raise RecipeError(
                    f"{key}: got {getattr(self, key)}, which does not fit task = {name}; expected one of "
                    f"{', '.join(map(str, values))}"
                )
        return self.replace(task=name)

    @classmethod
    def named(cls, name: str) -> "Recipe":
        """Returns the recipe of that name, or of the TOML file at that path; keys that it leaves out have the defaults.

        Raises:
            RecipeError: there is no such recipe, or the file or a value in it is wrong.
        """
        import tomllib  # takes a while, and most command lines do not need it

        path = recipe_path(name)
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
            if isinstance(table.get("data"), str):  # one source needs no brackets
                table["data"] = [table["data"]]
            return cls().replace(**table)
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from error
        # A number of thousands of digits is a plain ValueError.
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"{path}: not a TOML file ({error})") from error
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read ({error.strerror or error})") from error

    @property
    def rows_per_step(self) -> int:
        """Rows in an optimiser step: those of all its micro-batches."""
        return self.batch_size * self.gradient_accumulation

    def steps_per_epoch(self, rows: int) -> int:
        """Returns the optimiser steps of one pass over `rows` rows; the last step may have fewer rows."""
        return -(-rows // self.rows_per_step)

    def steps(self, rows: int) -> int:
        """Returns the optimiser steps of a whole training on `rows` rows."""
        steps = self.epochs * self.steps_per_epoch(rows)
        return min(steps, self.max_steps or steps)

    def to_toml(self, comments: bool = True) -> str:
        """Returns every key as TOML, each with its help as a comment above it."""
        lines = []
        for f in dataclasses.fields(self):
            if comments:
                lines.append(f"# {f.metadata['help']}{range_text(f.metadata)}")
            lines.append(f"{f.name} = {toml(getattr(self, f.name))}")
        return "\n".join(lines) + "\n"


@cache
def recipe_keys() -> Mapping[str, Any]:
    """Returns the recipe's keys in order, with their types."""
    hints = get_type_hints(Recipe)
    return {f.name: hints[f.name] for f in dataclasses.fields(Recipe)}


def recipe_names() -> list[str]:
    """Returns the names of the recipes that come with bertlora, `default` first."""
    names = sorted(p.stem for p in RECIPES.glob("*.toml"))
    return sorted(names, key=lambda name: name != "default")


def recipe_path(name: str) -> Path:
    """Returns the file of a recipe: a built-in name, or a path to a TOML file.

    Raises:
        RecipeError: there is neither.
    """
    if name in recipe_names():
        return RECIPES / f"{name}.toml"
    path = Path(name)
    if path.is_file():
        return path
    known = recipe_names()
    raise RecipeError(f"recipe '{name}' is not one of {', '.join(known)}, and not a TOML file{suggestion(name, known)}")


def parse_value(key: str, text: str) -> Any:
    """Returns the value of a key from its text on the command line; see `options.parsed`."""
    return parsed(key, recipe_keys()[key], text)
