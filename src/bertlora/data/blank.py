"""Blank rows of a source: those whose text or label is blank. They are left out, counted, and the first are named."""

from bertlora.data.source import Source
from bertlora.data.text_batches import TextBatch
from bertlora.errors import DataError

MOST_BLANK = 0.1
ROWS_NAMED = 3
ROWS_LISTED = 100


class BlankRows:
    """Collects the blank rows of a source: `add` each batch in order, then call `check`.

    Attributes:
        source: the source.
        rows: the number of all rows added.
        count: the number of blank ones.
        first: the first 100 of these, each as (row from 0, place, what is blank).
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.rows = self.count = 0
        self.first: list[tuple[int, str, str]] = []

    def add(self, batch: TextBatch) -> None:
        """Adds rows."""
        for i, fault in enumerate(batch.faults):
            if fault:
                self.count += 1
                if len(self.first) < ROWS_LISTED:
                    self.first.append((self.rows + i, self.source.place(batch.positions[i]), fault))
        self.rows += len(batch.faults)

    def check(self) -> None:
        """Raises DataError if more than 10 % of the rows are blank: too many to be an oversight."""
        if self.count > MOST_BLANK * self.rows:
            named = "; ".join(f"{place}: {fault}" for _, place, fault in self.first[:ROWS_NAMED])
            raise DataError(
                f"{self.source.name}: {self.count:,} of {self.rows:,} rows are blank, more than {MOST_BLANK:.0%} "
                f"({named}); remove them or fill them in, or name other columns by --text-column or --label-column"
            )

    def notes(self, treated: str = "left out") -> list[str]:
        """Returns a sentence on how the blank rows were treated, if there are any."""
        if not self.count:
            return []
        named = "; ".join(f"{place}: {fault}" for _, place, fault in self.first[:ROWS_NAMED])
        return [f"{self.source.name}: {treated}: {self.count:,} blank row{'s' if self.count > 1 else ''} ({named})"]
