"""What columns of a source say about the split of each row: its group, its time, or the split itself.

Letters: N rows of a source.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from bertlora.data.columns import Columns
from bertlora.data.labels import normalise_label
from bertlora.data.source import SPLITS, Source
from bertlora.data.sources import SPLIT_ALIASES
from bertlora.data.splits import LEFT_OUT
from bertlora.errors import DataError, suggestion

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Placement:
    """What columns say about N rows; None for a column that was not named.

    Attributes:
        groups: (N,) int64, the same number for rows with the same group; a blank is a group of its own.
        times: (N,) float64, a number, or seconds since 1970.
        splits: (N,) int8, index in SPLITS.
    """

    groups: NDArray[np.int64] | None = None
    times: NDArray[np.float64] | None = None
    splits: NDArray[np.int8] | None = None

    def take(self, rows: NDArray[np.int64]) -> "Placement":
        """Returns the placement of some of the rows."""
        return Placement(
            None if self.groups is None else self.groups[rows],
            None if self.times is None else self.times[rows],
            None if self.splits is None else self.splits[rows],
        )


class PlacementReader:
    """Collects the placement of the rows of a source: `add` each batch in order, then call `placement`.

    Args:
        source: the source, for messages.
        columns: its columns.
    """

    def __init__(self, source: Source, columns: Columns) -> None:
        self._source, self._columns = source, columns
        self._groups, self._times, self._splits = array("q"), array("d"), array("b")
        self._kind = ("", "")  # of the first time: date or number, and its place

    def add(self, values: Mapping[str, Sequence[object]], positions: Sequence[int], faults: Sequence[str]) -> None:
        """Adds rows. Nothing is read of a row that is left out.

        Args:
            values: the values of each column, by the part that it has: `group`, `time` or `split`.
            positions: the position of each row in the source.
            faults: why each row is left out; empty for one that is used.

        Raises:
            DataError: a time is neither a date nor a number, or not of the same kind as the first one; a split has no
                known name. The message names the place.
        """
        for value in values.get("group", ()):
            self._groups.append(_group_number(group_name(value) or f"\0{self._source.name}\0{len(self._groups)}"))
        for value, position, fault in zip(values.get("time", ()), positions, faults, strict=False):
            self._times.append(np.nan if fault else self._time(value, position))
        for value, position, fault in zip(values.get("split", ()), positions, faults, strict=False):
            self._splits.append(LEFT_OUT if fault else self._split(value, position))

    def placement(self) -> Placement:
        """Returns the placement of all rows added."""
        return Placement(
            np.frombuffer(self._groups, np.int64) if self._columns.group else None,
            np.frombuffer(self._times, np.float64) if self._columns.time else None,
            np.frombuffer(self._splits, np.int8) if self._columns.split else None,
        )

    def _time(self, value: object, position: int) -> float:
        place, column = self._source.place(position), self._columns.time
        try:
            kind, time = _parsed_time(value)
        except ValueError as error:
            shown = f"holds '{str(value)[:40]}'" if group_name(value) else "is blank"
            raise DataError(
                f"{place}: '{column}' {shown}, expected a date such as 2024-05-31 or 2024-05-31T18:30:00Z, or a number"
            ) from error
        self._kind = self._kind if self._kind[0] else (kind, place)
        if kind != self._kind[0]:
            raise DataError(
                f"{place}: '{column}' holds the {kind} '{value}', but {self._kind[1]} has a {self._kind[0]}; use one "
                "kind in the whole column"
            )
        return time

    def _split(self, value: object, position: int) -> int:
        name = (group_name(value) or "").lower()
        if name not in SPLIT_ALIASES:
            shown = f"holds '{str(value)[:40]}'" if name else "is blank"
            raise DataError(
                f"{self._source.place(position)}: '{self._columns.split}' {shown}, expected "
                f"{', '.join(sorted(SPLIT_ALIASES))}{suggestion(name, SPLIT_ALIASES)}"
            )
        return SPLITS.index(SPLIT_ALIASES[name])


def group_name(value: object) -> str | None:
    """Returns a value of the group's column as text, or None if it is blank."""
    try:
        return normalise_label(value)
    except DataError:  # a list or a table
        return str(value)


def _group_number(name: str) -> int:
    """Returns a hash of 63 bits."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) >> 1


def _parsed_time(value: object) -> tuple[str, float]:
    """Returns `number` or `date`, and the time as a number. Raises ValueError if it is neither."""
    if isinstance(value, bool):
        raise ValueError(value)
    if not isinstance(value, date):  # a datetime is a date
        text = str(value).strip()
        try:
            number = float(text)
        except ValueError:
            # `2024-05` is an ISO date too, which Python does not read.
            value = datetime.fromisoformat(f"{text}-01" if len(text) == len("2024-05") else text)
        else:
            if not np.isfinite(number):
                raise ValueError(value)
            return "number", number
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    return "date", ((value if value.tzinfo else value.replace(tzinfo=UTC)) - EPOCH).total_seconds()
