"""How a CSV or TSV file is written: its delimiter, whether quotes mark fields, and whether it has a header."""

import csv
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bertlora.data.glue import is_glue_header, is_headless_cola
from bertlora.data.text_file import TextFile

# After an unclosed quote, the rest of the file is one field: this limit stops it before memory runs out. The csv
# module's own limit, 131,072, is too small for some texts.
FIELD_LIMIT = 16_000_000
SAMPLE_CHARACTERS = 1_000_000
DETECTION_CHARACTERS = 200_000
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
ONE_COLUMN = "\x1f"  # a character that no text has


@dataclass(frozen=True)
class Dialect:
    """How a file is written: its delimiter, whether quotes mark fields, and whether it starts with a header."""

    delimiter: str
    quoted: bool
    header: bool = True

    @property
    def sign(self) -> str:
        """The delimiter as people call it: `comma`."""
        return (DELIMITERS | {ONE_COLUMN: "none"}).get(self.delimiter, f"'{self.delimiter}'")


def csv_dialect(file: TextFile, delimiter: str | None) -> Dialect:
    """Returns the dialect of a CSV file; without a `delimiter` it is detected."""
    return Dialect(delimiter or _detected(file.sample(DETECTION_CHARACTERS), ","), quoted=True)


def tsv_dialect(file: TextFile, delimiter: str | None) -> Dialect:
    """Returns the dialect of a TSV file. GLUE's have quotes that are plain text, and CoLA's no header.

    The quotes of a few rows of GLUE may pair up by chance, over several rows too. So its header decides, not its rows.
    """
    sample = file.sample(SAMPLE_CHARACTERS)
    first = sample[0][0].rstrip("\r\n").split("\t") if sample[0] else []
    if delimiter in (None, "\t") and is_headless_cola(first):
        return Dialect("\t", quoted=False, header=False)
    if delimiter is None and is_glue_header(first):
        return Dialect("\t", quoted=False)
    if delimiter is None and len(first) == 1:
        delimiter = _detected(sample, "\t")
    if (delimiter or "\t") != "\t":
        return Dialect(delimiter or "\t", quoted=True)
    return Dialect("\t", quoted=_well_quoted(*sample))


def reader(lines: Iterable[str], dialect: Dialect) -> Any:  # the type of csv readers has no public name
    """Returns Python's csv reader of lines, in strict mode."""
    csv.field_size_limit(FIELD_LIMIT)
    if dialect.quoted:
        return csv.reader(lines, delimiter=dialect.delimiter, strict=True)
    return csv.reader(lines, delimiter=dialect.delimiter, quoting=csv.QUOTE_NONE)


def _detected(sample: tuple[list[str], bool], usual: str) -> str:
    """Returns the delimiter with which most records have as many fields as the header, at least two.

    If the header has one field with every delimiter, it is the usual one. But if the rows then differ, the file has one
    column of texts without quotes.
    """
    counts = {delimiter: _field_counts(*sample, delimiter) for delimiter in DELIMITERS}
    shares = {sign: found.count(found[0]) / len(found) for sign, found in counts.items() if found and found[0] > 1}
    if shares:
        return max(shares, key=lambda delimiter: (shares[delimiter], delimiter == usual))
    return ONE_COLUMN if len({*counts[usual][1:]} - {0}) > 1 else usual


def _field_counts(lines: list[str], whole: bool, delimiter: str) -> list[int]:
    """Returns the number of fields of each record, the header first; 0 at the end if a record is broken."""
    records = reader(iter(lines), Dialect(delimiter, quoted=True))
    counts: list[int] = []
    try:
        for fields in records:
            counts += [len(fields)] if fields else []
    except csv.Error as error:  # with a wrong delimiter, text goes on after a closing quote
        cut = not whole and "end of data" in str(error)
        counts += [] if counts and cut else [0]
    return counts


def _well_quoted(lines: list[str], whole: bool) -> bool:
    """Returns whether the quotes in the first lines of a TSV mark fields. In SST-2's files they are plain text."""
    if not re.search(r'(^|\t)"', "".join(lines), flags=re.MULTILINE):
        return False
    records = reader(iter(lines), Dialect("\t", quoted=True))
    fields_of_row: Counter[int] = Counter()
    start, joined = 0, False
    try:
        for fields in records:
            fields_of_row[len(fields)] += 1
            joined = joined or records.line_num > start + 1
            start = records.line_num
    except csv.Error as error:
        # The sample may end inside a quoted text of several lines, which is no error.
        cut = not whole and "end of data" in str(error) and start > 0.9 * len(lines)
        if not cut:
            return False
    # If every line has all fields, a quote that would join lines is one that closes another by chance.
    whole_lines = len({line.count("\t") for line in lines if line.strip()}) == 1
    return len(fields_of_row.keys() - {0}) == 1 and not (joined and whole_lines)
