"""Packages that only some formats need: found, or the extra that brings them is named."""

from importlib import import_module
from typing import Any

from bertlora.errors import InputError


def extra(name: str, *modules: str) -> list[Any]:
    """Returns modules that an extra of bertlora brings.

    Raises:
        InputError: one is not installed.
    """
    try:
        return [import_module(module) for module in modules]
    except ImportError as error:
        raise InputError(
            f"{modules[-1].partition('.')[0]} is needed here and cannot be imported ({error}); "
            f"run pip install 'bertlora[{name}]'"
        ) from error
