"""The verbs that tell: recipes, env."""

import os
from itertools import takewhile
from pathlib import Path

from bertlora.cli.registry import Arguments, flag, flags, verb


@verb(
    "recipes",
    "lists the recipes, or prints one as TOML",
    "bertlora recipes imdb-distilbert > mine.toml",
    flag("name", "a recipe's name, or a TOML file", nargs="?"),
)
def recipes(args: Arguments) -> None:
    """Lists or prints."""
    from bertlora.cli import console
    from bertlora.recipe import Recipe, recipe_keys, recipe_names, recipe_path

    if args.name:
        recipe = Recipe.named(args.name)
        if args.json:
            console.print_json({key: getattr(recipe, key) for key in recipe_keys()})
        else:
            table = recipe.to_toml()
            opening = [line for line in _opening(recipe_path(args.name)) if line not in table.splitlines()]
            print("\n".join([*opening, "", table] if opening else [table]), end="")
        return
    found = {name: _opening(recipe_path(name))[0].removeprefix("#").strip() for name in recipe_names()}
    if args.json:
        console.print_json({"recipes": found})
    else:
        console.print_table(["recipe", "what it is"], list(found.items()))


@verb(
    "env",
    "versions, threads, precision support: what to paste into a bug report",
    "bertlora env",
    flags(),
)
def env(args: Arguments) -> None:
    """Describes the machine."""
    import platform

    import torch

    from bertlora.cli import console
    from bertlora.model.precision import choose_precision, default_device, speed
    from bertlora.run import versions

    facts = versions() | {
        "platform": platform.platform(),
        "device": str(default_device()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "fp32_gflops": round(speed("fp32") / 1e9),
        "bf16_gflops": round(speed("bf16") / 1e9),
        "precision": choose_precision("auto"),
        "offline": os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"),
    }
    if args.json:
        console.print_json(facts)
    else:
        console.print_table(["what", "value"], [[name, str(value)] for name, value in facts.items()])


def _opening(path: Path) -> list[str]:
    """Returns the comment lines that a TOML file opens with."""
    return list(takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines()))
