#!/usr/bin/env python3
"""Writes docs/commands.md from the help pages; a test holds the two together.

python docs/make_commands.py > docs/commands.md
"""

import argparse
import os

from bertlora.cli.registry import build_parser


def commands() -> str:
    """Returns the page: each verb's help in order."""
    os.environ["COLUMNS"] = "110"  # argparse wraps to the terminal
    parser = build_parser()
    verbs = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    parts = ["# Commands\n\nWritten by `python docs/make_commands.py` from the help pages.\n"]
    parts.append(f"```text\n{parser.format_help().rstrip()}\n```\n")
    parts += [f"## {name}\n\n```text\n{page.format_help().rstrip()}\n```\n" for name, page in verbs.choices.items()]
    return "\n".join(parts)


if __name__ == "__main__":
    import bertlora.cli  # noqa: F401  # registers the verbs

    print(commands(), end="")
