"""The columns of a source that the user names, as options and as one object."""

from dataclasses import dataclass
from typing import TypedDict

from bertlora.errors import InputError

FLAGS = {
    "text": "--text-column",
    "text pair": "--text-pair-column",
    "label": "--label-column",
    "group": "--group-column",
    "time": "--time-column",
    "split": "--split-column",
}


class ColumnNames(TypedDict, total=False):
    """The columns of a source. A column that is not named is found by its name."""

    text_column: str | None
    text_pair_column: str | None
    label_column: str | None


class SourceColumns(ColumnNames, total=False):
    """The columns of a source that is prepared; at most one of the last three.

    `group_column`: rows with the same value stay in one split; a blank value is a group of its own. `time_column`: the
    oldest rows go to train, the latest to test; dates or numbers. `split_column`: the split of each row.
    """

    group_column: str | None
    time_column: str | None
    split_column: str | None


@dataclass(frozen=True)
class NamedColumns:
    """The columns that the user named; None for the others.

    Raises:
        InputError: two of the last three are named. Each decides the split of the rows.
    """

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    group: str | None = None
    time: str | None = None
    split: str | None = None

    def __post_init__(self) -> None:
        if len(flags := [FLAGS[part] for part in self.placing()]) > 1:
            raise InputError(f"{' and '.join(flags)}: each decides the splits in another way; name one of them")

    @classmethod
    def of(cls, columns: SourceColumns) -> "NamedColumns":
        """Returns the columns that options name."""
        return cls(**{part.removesuffix("_column"): column or None for part, column in columns.items()})  # type: ignore[arg-type]

    def placing(self) -> dict[str, str]:
        """Returns the column named for the split of the rows, by its part: `group`, `time` or `split`."""
        return placing(self.group, self.time, self.split)


def placing(group: str | None, time: str | None, split: str | None) -> dict[str, str]:
    """Returns those columns that are named, by part."""
    return {part: column for part, column in (("group", group), ("time", time), ("split", split)) if column}
