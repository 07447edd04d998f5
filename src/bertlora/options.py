"""Options: dataclass fields with a default, a type, a group, a help text and a range, checked and written as text.

And the option `split`: shares of train, validation and test, such as `70/15/15`.

`recipe.py` lists the options of a training run.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from bertlora.errors import RecipeError, suggestion

UNBOUNDED = math.inf
# Whole numbers above it are no options: a float does not hold them, and Python does not print the longest.
LARGEST = 2**63 - 1
SPLIT = "70/15/15"
TABLES = (dict[str, int], dict[str, float])
# One of the choices, or a table.
CHOICE_OR_TABLE = str | dict[str, float]


def option(
    default: Any,
    group: str,
    help: str,
    *,
    low: float | None = None,
    high: float = UNBOUNDED,
    above: bool = False,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field with its group, help and range: `low` to `high` (`low` excluded if `above`), or one of `choices`.

    If its type takes a choice or a table, the range is for the numbers of the table.
    """
    facts = {"group": group, "help": help, "low": low, "high": high, "above": above, "choices": choices}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=facts)
    return field(default=default, metadata=facts)


def parsed(key: str, kind: Any, text: str) -> Any:
    """Returns the value of an option from its text on the command line: `a,b` for a list, `a=1,b=2` for a table.

    Args:
        key: the option's name, for the message.
        kind: its type.
        text: what the user gave.

    Raises:
        RecipeError: the text is not a number where one is expected.
    """
    if kind == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind in TABLES or (kind == CHOICE_OR_TABLE and "=" in text):
        pairs = [part.partition("=") for part in text.split(",") if part.strip()]
        return {name.strip(): _number(f"{key} of '{name.strip()}'", value) for name, _, value in pairs}
    return _number(key, text) if kind in (int, float) else text


def _number(key: str, text: str) -> float | int:
    try:
        value = float(text)
    except ValueError:
        raise RecipeError(f"{key}: got '{text}', expected a number") from None
    return int(value) if value.is_integer() else value


def checked(key: str, kind: Any, facts: Mapping[str, Any], value: Any) -> Any:
    """Returns `value` in the type of the field, or raises a RecipeError that says what was expected."""
    if kind == tuple[str, ...]:
        if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
            raise RecipeError(f"{key}: got {value!r}, expected a list of strings")
        return tuple(value)
    if kind == CHOICE_OR_TABLE and isinstance(value, Mapping):
        return _checked_table(key, float, {**facts, "choices": ()}, value)
    if kind in TABLES:
        if not isinstance(value, Mapping):
            raise RecipeError(f"{key}: got {value!r}, expected a table of name = number")
        return _checked_table(key, kind.__args__[1], facts, value)
    if kind in (str, CHOICE_OR_TABLE):
        if not isinstance(value, str) or (facts["choices"] and value not in facts["choices"]):
            expected = f"one of {', '.join(facts['choices'])}" if facts["choices"] else "a string"
            expected += "" if kind is str else ", or a table of name = number"
            raise RecipeError(f"{key}: got {value!r}, expected {expected}{suggestion(str(value), facts['choices'])}")
        return value
    return _in_range(key, kind, value, facts)


def _checked_table(key: str, kind: type, facts: Mapping[str, Any], table: Mapping[Any, Any]) -> dict[str, Any]:
    """Returns a table with its names as strings; Python callers may name classes by number."""
    return {str(name): _in_range(f"{key} of '{name}'", kind, item, facts) for name, item in table.items()}


def _in_range(name: str, kind: type, value: Any, facts: Mapping[str, Any]) -> Any:
    low, high = facts["low"], facts["high"]
    whole = kind is int
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise RecipeError(
            f"{name}: got {value!r}, expected {'a whole number' if whole else 'a number'}{range_text(facts)}"
        )
    if isinstance(value, int) and abs(value) > LARGEST:
        raise RecipeError(f"{name}: got a number above 2^63, expected less")
    # `not (low <= value)` also refuses NaN, `value < low` does not.
    if not (math.isfinite(value) and (low < value <= high if facts["above"] else low <= value <= high)):
        raise RecipeError(
            f"{name}: got {value}, expected {'a whole number' if whole else 'a number'}{range_text(facts)}"
        )
    return kind(value)


def range_text(facts: Mapping[str, Any]) -> str:
    """Returns the range as text, with a leading space: ` (above 0)`, ` (0 to 1)`, ` (none, lora_only or all)`."""
    if facts["choices"]:
        return f" ({', '.join(facts['choices'][:-1])} or {facts['choices'][-1]})"
    if facts["low"] is None:
        return ""
    start = f"above {facts['low']:g}" if facts["above"] else f"{facts['low']:g}"
    if facts["high"] == UNBOUNDED:
        return f" ({start})" if facts["above"] else f" ({start} or more)"
    return f" ({start}{', at most' if facts['above'] else ' to'} {facts['high']:g})"


def toml(value: Any) -> str:
    """Returns a value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(toml(part) for part in value) + "]"
    # TOML does not allow a bare DEL character, JSON does.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") if isinstance(value, str) else repr(value)


def split_shares(split: str) -> tuple[float, float, float]:
    """Returns the shares of train, validation and test, which add up to 1.

    Raises:
        RecipeError: `split` is not three numbers that add up to 100, the first above 0.
    """
    try:
        train, validation, test = (float(part) for part in split.split("/"))
    except ValueError:
        raise RecipeError(f"split: got '{split}', expected train/validation/test in percent such as {SPLIT}") from None
    # `not (low <= value)` also refuses NaN, `value < low` does not.
    if not (min(train, validation, test) >= 0 and train > 0 and abs(train + validation + test - 100) <= 1e-6):
        raise RecipeError(f"split: got '{split}', expected three shares of 0 or more that add up to 100, train above 0")
    return train / 100, validation / 100, test / 100


def split_with_validation(split: str, fraction: float) -> str:
    """Returns `split`; if it leaves validation out, with this fraction of the training share as validation."""
    train, validation, test = split_shares(split)
    if validation or not fraction:
        return split
    held = train * fraction
    return "/".join(f"{100 * share:.10g}" for share in (train - held, held, test))
