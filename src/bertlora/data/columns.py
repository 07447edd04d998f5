"""The columns of a source: text, second text and label, found by name or named by the user; and those of the split."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bertlora.data.named_columns import FLAGS, NamedColumns, placing
from bertlora.data.source import Source
from bertlora.errors import DataError, suggestion


def _names(names: str) -> frozenset[str]:
    return frozenset(names.split())


# Names are compared in lower case, with spaces and dashes as underscores. A name of the second set counts only if there
# is none of the first. If a source has two names of one set, the user must choose.
TEXT_NAMES: tuple[frozenset[str], ...] = (
    _names(
        "text texts review reviews review_text review_body sentence sent content contents comment comment_text tweet "
        "tweet_text body message msg document doc utterance post passage statement input_text"
    ),
    _names("title headline subject summary description question query phrase snippet input prompt"),
)
LABEL_NAMES: tuple[frozenset[str], ...] = (
    _names(
        "label labels sentiment target class class_label class_index class_name category polarity gold_label "
        "is_duplicate quality intent topic emotion verdict spam"
    ),
    _names("label_text label_name rating ratings stars star_rating score y output"),
)
PAIR_NAMES: tuple[tuple[str, str], ...] = (
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("sentence_a", "sentence_b"),
    ("question", "sentence"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("text", "text_pair"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("text_1", "text_2"),
    ("#1_string", "#2_string"),
    ("query", "passage"),
    ("query", "document"),
    ("question", "passage"),
    ("question", "answer"),
    ("question", "context"),
)
NO_COLUMNS: Mapping[str, str] = {}
# Never taken as the only column left: GLUE's test files have an index and a sentence, and no label.
ROW_NAMES = frozenset(["", "id", "idx", "index", "row", "row_id", "guid", "uid", "unnamed:_0"])


@dataclass(frozen=True)
class Columns:
    """Names of the columns of the text, the second text (None without pairs) and the label (None if not needed).

    Also of the group, time or split of the rows, if the user named one. `marks` are the columns of 0 and 1 if there is
    one for each label; `label` then lists them.
    """

    text: str
    text_pair: str | None = None
    label: str | None = None
    group: str | None = None
    time: str | None = None
    split: str | None = None
    marks: tuple[str, ...] = ()

    def texts(self) -> list[str]:
        """Returns the columns of text: one, or two for pairs."""
        return [self.text] if self.text_pair is None else [self.text, self.text_pair]

    def labels(self) -> list[str]:
        """Returns the columns of the label: one, or several of 0 and 1; none if no label is needed."""
        return list(self.marks) or ([self.label] if self.label else [])

    def every(self) -> list[str]:
        """Returns all columns that are read."""
        return [*self.texts(), *self.labels(), *self.placing().values()]

    def placing(self) -> dict[str, str]:
        """Returns the column of group, time or split, by its part, if the user named one."""
        return placing(self.group, self.time, self.split)

    def described(self) -> dict[str, str | None]:
        """Returns the names by part, as a prepared folder keeps them."""
        return {"text": self.text, "text_pair": self.text_pair, "label": self.label, **self.placing()}


def find_columns(
    source: Source,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | None = None,
    need_label: bool = True,
    others: Mapping[str, str] = NO_COLUMNS,
) -> Columns:
    """Finds the columns of a source.

    Args:
        source: the table.
        text: the text's column; found by its name if None.
        text_pair: the second text's column; if None, it is looked for only if `text` is None too.
        label: the label's column; found by its name if None. Or several with commas between: columns of 0 and 1.
        need_label: whether a source without a label is an error.
        others: columns of the group, time or split that the user named, by part.

    Raises:
        DataError: a named column does not exist, no column has a known name, or several have.
    """
    marks = _marks(source, label)
    named = [("text", text), ("text pair", text_pair), *(("label", column) for column in marks or [label])]
    named += others.items()
    given = [column for _, column in named if column]
    for part, column in named:
        if column:
            _check_named(source, part, column, given)
    free = [column for column in source.columns if column not in given and _plain(column) not in ROW_NAMES]
    labels = _best(free, LABEL_NAMES)
    if not label and (need_label or len(labels) == 1):
        label = _only(source, "label", [[name] for name in labels])
    # A column with a label's name is never taken as a text.
    free = [column for column in free if column not in labels]
    if not text:
        text, text_pair = _find_text(source, free, text_pair)
        if text is None and len(free) == 1 and (label or not need_label):
            text = free[0]
    free = [column for column in free if column not in (text, text_pair)]
    if need_label and not label and text and len(free) == 1:
        label = free[0]
    if not text:
        raise _not_found(source, "text")
    if need_label and not label:
        raise _not_found(source, "label")
    return Columns(text, text_pair or None, label or None, **others, marks=marks)


def columns_of_splits(
    sources: Mapping[str, Source], named: NamedColumns, notes: list[str]
) -> Iterator[tuple[str, Source, Columns]]:
    """Finds the columns of each split. A test split without a label column is left out, with a note in `notes`.

    Yields:
        (name, source, columns) in the order of the sources.

    Raises:
        DataError: a column is not found, one split has pairs of texts and another has not, or a column names the split
            of each row though the source has splits.
    """
    if named.split and "" not in sources:
        raise DataError(f"--split-column: the source has the splits {', '.join(sources)} already; leave it out")
    columns: Columns | None = None
    for name, source in sources.items():
        found = columns
        if columns is None or not set(columns.every()) <= set(source.columns):
            # The columns of splits may have different names, as in GLUE's CoLA.
            if name == "test" and not _has_label(source, named):
                notes.append(unlabelled(source))
                continue
            found = find_columns(source, named.text, named.text_pair, named.label, others=named.placing())
            if columns is not None and (columns.text_pair is None) != (found.text_pair is None):
                raise DataError(f"{source.name}: has {_texts(found)}, expected {_texts(columns)} as in train")
            columns = columns or found
        assert found is not None
        yield name, source, found


def unlabelled(source: Source) -> str:
    """Returns the note on a test split without labels."""
    return f"{source.name}: has no labels, so there is no test split"


def _marks(source: Source, label: str | None) -> tuple[str, ...]:
    """Returns the columns that `label` lists, if it is no column itself and one of them is."""
    if not label or label in source.columns:
        return ()
    parts = tuple(part.strip() for part in label.split(","))
    return parts if len(parts) > 1 and any(part in source.columns for part in parts) else ()


def _find_text(source: Source, free: Sequence[str], text_pair: str | None) -> tuple[str | None, str | None]:
    """Returns the columns of a text and its pair, among those that are free."""
    by_plain = {_plain(column): column for column in free}
    if text_pair:
        firsts = [by_plain[a] for a, b in PAIR_NAMES if b == _plain(text_pair) and a in by_plain]
        return _only(source, "text", [[column] for column in firsts[:1] or _best(free, TEXT_NAMES)]), text_pair
    pairs = [[by_plain[a], by_plain[b]] for a, b in PAIR_NAMES if a in by_plain and b in by_plain]
    in_pairs = {column for pair in pairs for column in pair}
    others = [column for column in free if column not in in_pairs]
    # Next to a pair, a title or description is ignored; another column of text makes the choice unclear.
    singles = _best(others, TEXT_NAMES[:1] if pairs else TEXT_NAMES)
    _only(source, "text", [*pairs, *([column] for column in singles)])
    if pairs:
        return pairs[0][0], pairs[0][1]
    return (singles[0] if singles else None), None


def _best(columns: Sequence[str], names: Sequence[Collection[str]]) -> list[str]:
    """Returns the columns with a name of the first set that has any."""
    matches = ([column for column in columns if _plain(column) in known] for known in names)
    return next((found for found in matches if found), [])


def _only(source: Source, part: str, candidates: Sequence[Sequence[str]]) -> str | None:
    """Returns the first column of the only candidate, or None without one. Several are an error."""
    if len(candidates) > 1:
        listed = " or ".join(" with ".join(f"'{column}'" for column in columns) for columns in candidates)
        raise DataError(f"{source.name}: the {part} may be {listed}; name one with {FLAGS[part]}")
    return candidates[0][0] if candidates else None


def _check_named(source: Source, part: str, column: str, given: Sequence[str]) -> None:
    if column not in source.columns:
        raise DataError(
            f"{source.name}: {FLAGS[part]} '{column}' is not one of its columns, {_listed(source)}"
            f"{suggestion(column, source.columns)}"
        )
    if given.count(column) > 1:
        raise DataError(f"{source.name}: column '{column}' is named twice, expected another column for {FLAGS[part]}")


def _not_found(source: Source, part: str) -> DataError:
    return DataError(
        f"{source.name}: no column has a known name for the {part}; name it with {FLAGS[part]}, one of "
        f"{_listed(source)} (the first line of a CSV or TSV file must hold the column names)"
    )


def _listed(source: Source) -> str:
    return ", ".join(f"'{column}'" for column in source.columns)


def _plain(column: str) -> str:
    return re.sub(r"[\s-]+", "_", column.strip().lower())


def _has_label(source: Source, named: NamedColumns) -> bool:
    if named.label:
        return named.label in source.columns or bool(_marks(source, named.label))
    return find_columns(source, named.text, named.text_pair, need_label=False).label is not None


def _texts(columns: Columns) -> str:
    return " and ".join(f"'{column}'" for column in columns.texts())
