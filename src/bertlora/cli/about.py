"""The verbs about bertlora itself: recipes, env."""

from itertools import takewhile
from pathlib import Path
from typing import Any

from bertlora.cli.recipe_options import complete_recipe
from bertlora.cli.verb import Argument, verb
from bertlora.recipe import Recipe, recipe_keys, recipe_names, recipe_path


@verb(
    "List the recipes, or print one as TOML.",
    "bertlora recipes imdb-distilbert > mine.toml",
    Argument(
        "name", text="a recipe's name, or a TOML file", required=False, shell_complete=complete_recipe, metavar="[NAME]"
    ),
)
def recipes(name: str | None, as_json: bool) -> None:
    """Lists or prints."""
    from bertlora.cli.console import print_json, print_table

    if name:
        recipe = Recipe.named(name)
        if as_json:
            print_json({key: getattr(recipe, key) for key in recipe_keys()})
        else:
            print(_with_opening(recipe.to_toml(), recipe_path(name)), end="")
        return
    found = {name: _opening(recipe_path(name))[0].removeprefix("#").strip() for name in recipe_names()}
    if as_json:
        print_json({"recipes": found})
    else:
        print_table(["recipe", "what it is"], list(found.items()))


def show_environment(found: dict[str, Any]) -> None:
    """Prints a table."""
    from bertlora.cli.console import print_table

    print_table(["what", "value"], [[name, str(value)] for name, value in found.items()])


@verb(
    "Show versions, threads and precision: what a bug report needs.",
    "bertlora env",
    show=show_environment,
)
def env() -> dict[str, Any]:
    """Describes the machine."""
    from bertlora.pipeline.environment import environment

    return environment()


def _with_opening(table: str, path: Path) -> str:
    """Returns a recipe as TOML, below the comment lines that its file opens with."""
    opening = [line for line in _opening(path) if line not in table.splitlines()]
    return "\n".join([*opening, "", table] if opening else [table])


def _opening(path: Path) -> list[str]:
    """Returns the comment lines that a TOML file opens with."""
    return list(takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines()))
