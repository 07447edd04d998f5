#!/usr/bin/env python3
"""Writes docs/commands.md from the help pages; a test checks that the page is up to date.

python docs/make_commands.py > docs/commands.md
"""

import click

from bertlora.cli import verbs
from bertlora.cli.verb import WIDTH

OPENING = """# Commands

Written by `python docs/make_commands.py` from the help pages.

Results go to stdout, progress and messages to stderr. The exit status is 0 for success, 1 for a
fault of the program, 2 for bad input or bad usage, and 130 after an interrupt.

```text
{help}
```

## Shell completion

Add a line to the start-up file of your shell. Verbs, options, choices and the names of recipes are
then completed with the Tab key.

| shell | file | line |
|---|---|---|
| bash | `~/.bashrc` | `eval "$(_BERTLORA_COMPLETE=bash_source bertlora)"` |
| zsh | `~/.zshrc` | `eval "$(_BERTLORA_COMPLETE=zsh_source bertlora)"` |
| fish | `~/.config/fish/config.fish` | `_BERTLORA_COMPLETE=fish_source bertlora \\| source` |
"""


def commands() -> str:
    """Returns the page: how to use the command line, then each verb's help in order."""
    root = click.Context(verbs, info_name="bertlora", terminal_width=WIDTH, **verbs.context_settings)
    parts = [OPENING.format(help=verbs.get_help(root))]
    for name, verb in verbs.commands.items():
        page = verb.get_help(click.Context(verb, info_name=name, parent=root, **verb.context_settings))
        parts.append(f"## {name}\n\n```text\n{page}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(commands(), end="")
