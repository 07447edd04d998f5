"""The verbs, each registered once by a decorator; parser and help pages come from here."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from bertlora.errors import InputError, suggestion
from bertlora.recipe import Recipe, parse_value, recipe_keys

Arguments = argparse.Namespace


@dataclass(frozen=True)
class Verb:
    """A verb: what it does in a line, an example, its arguments, and the function behind it."""

    name: str
    summary: str
    example: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Arguments], None]
    recipe_flags: bool


VERBS: dict[str, Verb] = {}


def verb(
    name: str,
    summary: str,
    example: str,
    arguments: Callable[[argparse.ArgumentParser], None],
    recipe_flags: bool = False,
) -> Callable[[Callable[[Arguments], None]], Callable[[Arguments], None]]:
    """Registers the decorated function as a verb; with `recipe_flags`, every recipe key is a flag."""

    def register(run: Callable[[Arguments], None]) -> Callable[[Arguments], None]:
        VERBS[name] = Verb(name, summary, example, arguments, run, recipe_flags)
        return run

    return register


class Parser(argparse.ArgumentParser):
    """argparse that raises one clear line instead of printing its usage and leaving."""

    def error(self, message: str) -> NoReturn:
        """Raises InputError."""
        raise InputError(f"{message}; see '{self.prog} --help'")

    def flag_names(self) -> list[str]:
        """Returns the flags that it takes, as they are typed."""
        return [name for action in self._actions for name in action.option_strings]


def build_parser() -> Parser:
    """Returns the parser of all verbs."""
    parser = Parser(
        prog="bertlora",
        description="Texts and labels in, a LoRA classifier on a small BERT out: trained in minutes, judged honestly.",
        epilog="bertlora VERB --help shows a verb's flags and an example.",
        allow_abbrev=False,
    )
    parser.set_defaults(page=parser)
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)
    for found in VERBS.values():
        page = verbs.add_parser(
            found.name,
            help=found.summary,
            description=found.summary[0].upper() + found.summary[1:] + ".",
            epilog=f"example:\n  {found.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        page.set_defaults(page=page)
        found.arguments(page)
        if found.recipe_flags:
            _add_recipe_flags(page)
        page.add_argument("--json", action="store_true", help="print one JSON object on stdout")
        page.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def parse(parser: Parser, argv: Sequence[str]) -> Arguments:
    """Returns the arguments; an unknown verb or flag is an error with a suggestion.

    Raises:
        InputError: bad usage.
    """
    first = next((word for word in argv if not word.startswith("-")), None)
    if first is not None and argv and argv[0] == first and first not in VERBS:
        raise InputError(f"verb '{first}' is unknown; expected one of {', '.join(VERBS)}{suggestion(first, VERBS)}")
    if argv and argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version"):
        raise InputError(f"argument '{argv[0]}' stands where a verb is expected; see 'bertlora --help'")
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        flag = unknown[0]
        known = args.page.flag_names() if flag.startswith("-") else []
        nearest = suggestion(flag.split("=")[0], known)
        raise InputError(f"argument '{flag}' is unknown; see '{args.page.prog} --help'{nearest}")
    return args


def resolve_recipe(args: Arguments, default: str = "default") -> Recipe:
    """Returns the recipe that `--recipe` names, with the flags that were given laid over it."""
    recipe = Recipe.named(getattr(args, "recipe", None) or default)
    given = {key: getattr(args, key) for key in recipe_keys() if getattr(args, key, None) is not None}
    return recipe.replace(**{key: parse_value(key, value) for key, value in given.items()})


def _add_recipe_flags(page: argparse.ArgumentParser) -> None:
    page.add_argument("--recipe", help="a recipe's name (see 'bertlora recipes') or a TOML file; default: default")
    group = page.add_argument_group("recipe keys, each laid over the recipe")
    taken = {action.dest for action in page._actions}
    for option in fields(Recipe):
        if option.name not in taken:
            flag = f"--{option.name.replace('_', '-')}"
            group.add_argument(flag, dest=option.name, metavar="X", help=_escaped(option.metadata["help"]))


def _escaped(help_text: str) -> str:
    """argparse reads % as a format."""
    return help_text.replace("%", "%%")


def flag(name: str, help: str, **more: Any) -> Callable[[argparse.ArgumentParser], None]:
    """Returns a function that adds one flag or positional, for use with `flags`."""

    def add(page: argparse.ArgumentParser) -> None:
        page.add_argument(name, help=_escaped(help), **more)

    return add


def flags(*parts: Callable[[argparse.ArgumentParser], None]) -> Callable[[argparse.ArgumentParser], None]:
    """Returns a function that adds all of these."""

    def add(page: argparse.ArgumentParser) -> None:
        for part in parts:
            part(page)

    return add


OUT = flag("--out", "the folder to write", required=True)
OVERWRITE = flag("--overwrite", "replace what the output folder holds", action="store_true")
RUN = flag("run", "a run folder, or an adapter that PEFT saved", metavar="RUN")
MODEL = flag("--model", "where the base model lies now, if not where it was in training")
PRECISION = flag("--precision", "fp32 (default), bf16, or auto", choices=("fp32", "bf16", "auto"), default="fp32")
