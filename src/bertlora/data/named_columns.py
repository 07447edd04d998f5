"""The columns of a source that the user names, as options and as one object; and the other options of a source."""

from collections.abc import Sequence
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
    """The columns of a source, and how its files are written. What is not named is found.

    `text_column`, `text_pair_column`, `label_column`: found by their names if not given. `label_column` may also list
    columns of 0 and 1, one for each label, with commas between. `encoding`: a codec of Python, such as `cp1252`.
    `delimiter`: of a CSV or TSV file, one character or `tab`.
    """

    text_column: str | None
    text_pair_column: str | None
    label_column: str | None
    encoding: str | None
    delimiter: str | None


class SourceColumns(ColumnNames, total=False):
    """The columns of a source that is prepared; at most one of the last three.

    `group_column`: rows with the same value stay in one split; a blank value is a group of its own. `time_column`: the
    oldest rows go to train, the latest to test; dates or numbers. `split_column`: the split of each row.

    What is done with labels: `rename`: `old=new` pairs. `merge_label_case`: labels that differ only in case or spaces
    are one. `drop_label`: labels whose rows are left out. `label_delimiter`: what separates several labels in a cell.
    """

    group_column: str | None
    time_column: str | None
    split_column: str | None
    rename: Sequence[str] | None
    merge_label_case: bool | None
    drop_label: Sequence[str] | None
    label_delimiter: str | None


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
        named = {part.removesuffix("_column"): column for part, column in columns.items() if part.endswith("_column")}
        return cls(**{part: column or None for part, column in named.items()})  # type: ignore[arg-type]

    def placing(self) -> dict[str, str]:
        """Returns the column named for the split of the rows, by its part: `group`, `time` or `split`."""
        return placing(self.group, self.time, self.split)


def placing(group: str | None, time: str | None, split: str | None) -> dict[str, str]:
    """Returns those columns that are named, by part."""
    return {part: column for part, column in (("group", group), ("time", time), ("split", split)) if column}
