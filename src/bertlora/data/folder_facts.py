"""What the values of a prepared folder's dataset.json must be. A file that was changed by hand may hold anything."""

from collections.abc import Callable, Mapping
from typing import Any

from bertlora.data.source import SPLITS
from bertlora.task import TASKS


def check_facts(facts: Mapping[str, Any]) -> None:
    """Checks the values of dataset.json.

    Raises:
        ValueError: one is of another type, or out of its range; the message names its key.
    """
    for key, fits in _KINDS.items():
        if key in facts and not fits(facts[key]):
            raise ValueError(f"'{key}' has a value of the wrong type or range")


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _table(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(fits(one) for one in value.values())


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _columns(value: Any) -> bool:
    return _table(value, lambda one: one is None or _text(one)) and {"text", "text_pair", "label"} <= value.keys()


def _checks(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


_KINDS: dict[str, Callable[[Any], bool]] = {
    "labels": lambda value: _texts(value) and len(value) > 0,
    "rows": lambda value: _table(value, _count) and value.keys() <= set(SPLITS),
    "fingerprint": _text,
    "columns": _columns,
    "sources": lambda value: _table(value, _text),
    "split": _text,
    "sample": _count,
    "seed": _count,
    "notes": _texts,
    "checks": _checks,
    "label_rules": lambda value: isinstance(value, dict),
    "task": lambda value: isinstance(value, str) and value in TASKS,
}
