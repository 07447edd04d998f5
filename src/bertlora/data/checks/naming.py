"""How the rows that a check found are named to people."""

from collections.abc import Mapping
from typing import Any


def named_rows(check: Mapping[str, Any], most: int) -> str:
    """Returns the first rows that a check names, in their source, by their split: `train 5, 17; test 0`.

    Args:
        check: as `find_checks` gives it.
        most: how many rows.
    """
    by_split: dict[str, list[str]] = {}
    for split, row in list(zip(check["splits"], check["rows"], strict=True))[:most]:
        by_split.setdefault(split, []).append(str(row))
    return "; ".join(f"{split} {', '.join(rows)}" for split, rows in by_split.items())
