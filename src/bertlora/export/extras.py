"""Packages that only some formats need: found, or the extra that brings them is named."""

from importlib import import_module
from typing import Any

from bertlora.errors import InputError


def extra(name: str, *modules: str) -> list[Any]:
    """Returns modules that an extra of bertlora brings.

    Raises:
        InputError: one is not installed; the message names it and the extra.
    """
    return [_imported(module, name) for module in modules]


def _imported(module: str, name: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f"{module.partition('.')[0]} is needed here and cannot be imported ({error}); "
            f"run pip install 'bertlora[{name}]'"
        ) from error
