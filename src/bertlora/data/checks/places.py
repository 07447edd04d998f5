"""Where the rows of a check are, in the words that people read: `reviews.csv line 17`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bertlora.data.checks.find import Check

if TYPE_CHECKING:
    from bertlora.data.folder import Prepared


def with_places(data: "Prepared", checks: Sequence[Check]) -> list[Check]:
    """Returns the checks with `places`: where each of `rows` is in the source, such as `reviews.csv line 17`."""
    wanted: dict[str, set[int]] = {}
    missing = [check for check in checks if "places" not in check]
    for check in missing:
        for split, row in zip(check["splits"], check["rows"], strict=True):
            wanted.setdefault(split, set()).add(row)
    places = {split: dict(zip(rows, data.places(split, list(rows)), strict=True)) for split, rows in wanted.items()}
    return [
        {"places": [places[split][row] for split, row in zip(check["splits"], check["rows"], strict=True)], **check}
        if "places" not in check
        else check
        for check in checks
    ]


def named_rows(check: Mapping[str, Any], most: int) -> str:
    """Returns the first rows of a check as people read them: `reviews.csv lines 5, 17; pos/3_1.txt`.

    Args:
        check: an object of `find_checks`. Without `places` (data prepared by an old version) it names splits and rows.
        most: how many rows.
    """
    places = check.get("places") or [
        f"{split} row {row}" for split, row in zip(check["splits"], check["rows"], strict=True)
    ]
    return grouped_places(places[:most])


def grouped_places(places: Sequence[str]) -> str:
    """Returns places with each file named once: `a.csv line 5` and `a.csv line 17` are `a.csv lines 5, 17`."""
    numbers: dict[str, list[str]] = {}
    for place in places:
        source, _, number = place.rpartition(" ")
        if source and number.isdecimal():
            numbers.setdefault(source, []).append(number)
        else:
            numbers[place] = []
    many = {source: "s" if len(found) > 1 else "" for source, found in numbers.items()}
    return "; ".join(f"{source}{many[source]} {', '.join(found)}".rstrip() for source, found in numbers.items())
