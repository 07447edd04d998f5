"""The keys of a recipe as options, made from the fields of `Recipe`."""

from collections.abc import Collection, Sequence
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from bertlora.cli.options import PATH
from bertlora.options import CHOICE_OR_TABLE, range_text
from bertlora.recipe import Recipe, parse_value, recipe_keys, recipe_names

if TYPE_CHECKING:
    from bertlora.data.named_columns import SourceColumns

TITLES = {"data": "Data", "lora": "LoRA", "head": "Head", "optimiser": "Optimiser"}
TITLES |= {"evaluation": "Evaluation", "run": "Run"}
PATHS = ("model", "data")


class RecipeName(click.ParamType):  # type: ignore[type-arg]  # no type argument in click 8.2
    """A recipe's name, or a TOML file. The value is the `Recipe`."""

    name = "recipe"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Recipe:
        """Returns the recipe, or raises RecipeError."""
        return value if isinstance(value, Recipe) else Recipe.named(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Returns completions; see `complete_recipe`."""
        return complete_recipe(ctx, param, incomplete)


class RecipeValue(click.ParamType):  # type: ignore[type-arg]
    """The value of a recipe key. `Recipe` checks it, so that its error is the same as in a TOML file."""

    def __init__(self, key: str) -> None:
        self.key, self.name = key, key
        self.choices: tuple[str, ...] = Recipe.__dataclass_fields__[key].metadata["choices"]

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Returns what stands for the value in the help."""
        kind = recipe_keys()[self.key]
        if self.choices:
            table = "|NAME=N,..." if kind == CHOICE_OR_TABLE else ""
            return f"[{'|'.join(self.choices)}{table}]"
        if kind == tuple[str, ...]:
            return "A,B,..."
        if kind is str:
            return "TEXT"
        return {int: "N", float: "X"}.get(kind, "NAME=N,...")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the value, or raises RecipeError."""
        parsed = parse_value(self.key, value)
        Recipe(**{self.key: parsed})
        return parsed

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Returns the choices that begin like this, or paths."""
        if self.key in PATHS:
            return PATH.shell_complete(ctx, param, incomplete)
        return [CompletionItem(choice) for choice in self.choices if choice.startswith(incomplete)]


class RecipeOption(click.Option):
    """A recipe key.

    Attributes:
        group: the title under which the help lists it.
    """

    def __init__(self, field: Field[Any], recipe: str, hidden: bool) -> None:
        flag = f"--{field.name.replace('_', '-')}"
        super().__init__([flag, field.name], type=RecipeValue(field.name), help=field.metadata["help"], hidden=hidden)
        self.group = "Recipe keys"
        if title := TITLES.get(field.metadata.get("group", "")):
            self.group += f": {title}"
        self._recipe = recipe

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Returns the flag, and its help with range and default; None if it is hidden."""
        if self.hidden or self.name is None:
            return None
        facts = Recipe.__dataclass_fields__[self.name].metadata
        # The flag's metavar shows the choices.
        shown = [] if facts["choices"] or not range_text(facts) else [range_text(facts).strip(" ()")]
        if (default := _text(getattr(Recipe.named(self._recipe), self.name))) != "":
            shown.append(f"default: {default}")
        extra = f"  [{'; '.join(shown)}]" if shown else ""
        return f"{self.opts[0]} {self.make_metavar(ctx)}", f"{self.help}{extra}"


def recipe_options(
    recipe: str = "default", leave_out: Collection[str] = (), hide: Collection[str] = ()
) -> tuple[click.Option, ...]:
    """Returns `--recipe` and the recipe keys.

    Args:
        recipe: the recipe whose values are the defaults.
        leave_out: keys that the verb does not use.
        hide: keys that the verb checks, and that change nothing in its result; the help does not list them.
    """
    text = "a recipe's name (see 'bertlora recipes') or a TOML file; the recipe keys below replace its values"
    text += f"  [default: {recipe}]"
    named = click.Option(["--recipe"], type=RecipeName(), help=text, metavar="RECIPE")
    keys = [RecipeOption(f, recipe, f.name in hide) for f in fields(Recipe) if f.name not in leave_out]
    return (named, *keys)


def data_and_keys(
    sources: Sequence[str], options: dict[str, Any]
) -> tuple[Sequence[str], "SourceColumns", dict[str, Any]]:
    """Returns the data, the column options, and the recipe keys that were given.

    Args:
        sources: the data that the arguments name; if there are none, the key `data` names them.
        options: column options and recipe keys; None if not given.
    """
    columns: SourceColumns = {
        "text_column": options.pop("text_column"),
        "text_pair_column": options.pop("text_pair_column"),
        "label_column": options.pop("label_column"),
        "group_column": options.pop("group_column"),
        "time_column": options.pop("time_column", None),
        "split_column": options.pop("split_column", None),
        "encoding": options.pop("encoding"),
        "delimiter": options.pop("delimiter"),
        "rename": options.pop("rename") or None,
        "merge_label_case": options.pop("merge_label_case") or None,
        "drop_label": options.pop("drop_label") or None,
        "label_delimiter": options.pop("label_delimiter") or None,
    }
    keys = {key: value for key, value in options.items() if value is not None}
    data = keys.pop("data", ())
    return sources or data, columns, keys


def complete_recipe(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Returns the names of recipes that begin like this. If there are none, the shell completes a path."""
    names = [CompletionItem(name) for name in recipe_names() if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]


def _text(value: Any) -> str:
    """Returns a value as it is typed on the command line; empty for an empty list or table."""
    if isinstance(value, dict):
        return ",".join(f"{name}={number}" for name, number in value.items())
    return ",".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
