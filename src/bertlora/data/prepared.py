"""From a source to a prepared folder, in two passes that stream: survey the rows, share them out, write them.

    prepared = prepare(["reviews.csv"], Path("data"))
    prepared.rows                   # {"train": 1400, "validation": 300, "test": 300}
    prepared.split("train").texts

The second pass examines what it writes, for the checks; where these ask for other splits (`fix`), a third one writes
them. Between the passes some hundred bytes a row are held in memory, and no text.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bertlora.data.checks import LEFT_OUT, Check, Examiner, find_checks, fixed
from bertlora.data.columns import Columns, find_columns
from bertlora.data.folder import Prepared, SplitWriter, data_fingerprint, is_prepared, split_path
from bertlora.data.labels import check_labels, order_labels
from bertlora.data.rows import Split, iter_texts, read_rows, text_batches
from bertlora.data.sharing import Ids, Parts, check_train, kept_rows, parts_of, share_out
from bertlora.data.source import SPLITS, Source
from bertlora.data.sources import open_sources
from bertlora.data.survey import Survey, survey
from bertlora.errors import DataError
from bertlora.files import check_vacant, whole_folder
from bertlora.recipe import split_shares

__all__ = ["Prepared", "Split", "is_prepared", "iter_texts", "prepare", "read_rows", "source_paths"]

NO_LABEL = "-1"  # what GLUE's test sets carry


def prepare(
    specs: Sequence[str],
    out: Path,
    *,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    split: str = "70/15/15",
    sample: int = 0,
    seed: int = 42,
    overwrite: bool = False,
    strict: bool = False,
    fix: bool = False,
    more_checks: Callable[[Prepared], list[Check]] = lambda _: [],
) -> Prepared:
    """Reads, checks, splits and writes data.

    A single table is shared out by `split`. Named splits are kept; a missing validation split is cut from train, in
    the ratio that `split` gives the two; a missing test split stays missing.

    Args:
        specs: what to read, as `open_sources` takes it.
        out: the folder to make.
        text_column, text_pair_column, label_column: the columns; found by their names when None.
        split: shares of train/validation/test in percent.
        sample: rows drawn at random, each class in its share, from the table or from each split; 0 = all.
        seed: seed of sample and split.
        overwrite: whether what `out` holds may be replaced.
        strict: whether a check of severity `warning` is an error.
        fix: whether exact duplicates go, and texts that are equal or near come into one split; see `fixed`.
        more_checks: makes checks of the data as they will stand, in a folder that is not final yet.

    Raises:
        DataError: the data cannot be used, or not with `strict`; the message names the place, or the checks. Nothing is
            written then.
        HubError: the hub cannot be reached, or does not have the data set.
        OutputError, RecipeError: `out` cannot be written, or holds something; `split` is not three shares.
    """
    shares = split_shares(split)
    _check_numbers(sample, seed)
    check_vacant(out, overwrite, source_paths(specs))
    sources = open_sources(specs)
    if list(sources) == ["train"]:
        sources = {"": sources["train"]}  # a train split alone is a table like any other
    surveys, notes = _survey_all(sources, (text_column, text_pair_column, label_column))
    first, *_ = surveys.values()
    labels, unused = _labels(first)
    ids = {name: found.ids(labels, first.source.name) for name, found in surveys.items()}
    parts = share_out(ids, shares, sample, seed)
    check_train(parts, ids, labels, first.source.name)
    with whole_folder(out, overwrite) as folder:
        examiner = Examiner(pairs=first.columns.text_pair is not None)
        rows, fingerprint = _write(folder, surveys, ids, parts, labels, examiner.add)
        kept = kept_rows(ids, parts, examiner.facts())
        kept, fixes = fixed(kept, list(surveys), shares, seed) if fix else (kept, [])
        if fixes:
            parts = parts_of(kept, ids)
            check_train(parts, ids, labels, first.source.name)
            rows, fingerprint = _write(folder, surveys, ids, parts, labels)
        data = Prepared(
            folder=folder,
            labels=labels,
            rows=rows,
            fingerprint=fingerprint,
            columns=vars(first.columns),
            sources={name or "all": found.source.name for name, found in surveys.items()},
            shares=split,
            sample=sample,
            seed=seed,
            notes=[*notes, *unused, *(note for found in surveys.values() for note in found.source.notes), *fixes],
            checks=find_checks(kept, labels),
        )
        data.checks.extend(more_checks(data))
        if strict:
            _check_strictly(data, fix)
        data.write_manifest()
    return Prepared.load(out)


def source_paths(specs: Sequence[str]) -> list[Path]:
    """Returns the files and folders that specs name, the hub's aside: no output may replace them."""
    return [
        Path(spec if Path(spec).exists() else spec.split("=", 1)[-1]) for spec in specs if not spec.startswith("hub:")
    ]


def _check_numbers(sample: int, seed: int) -> None:
    if sample < 0:
        raise DataError(f"sample: got {sample}, expected a number of rows, or 0 for all")
    if seed < 0:
        raise DataError(f"seed: got {seed}, expected a whole number (0 or more)")


def _survey_all(
    sources: Mapping[str, Source], named: tuple[str | None, str | None, str | None]
) -> tuple[dict[str, Survey], list[str]]:
    """Reads every source once; a test split without labels, as GLUE's are, is left out with a note."""
    if "" not in sources and "train" not in sources:
        raise DataError(f"the splits are {', '.join(sources)}, expected a train split among them; add train=FILE")
    surveys: dict[str, Survey] = {}
    notes = []
    columns: Columns | None = None
    for name, source in sources.items():
        unlabelled = f"{source.name}: carries no labels, so there is no test split"
        if columns is None or not {*columns.texts(), columns.label} <= set(source.columns):
            # Splits may name their columns differently, as GLUE's CoLA does.
            if name == "test" and not _has_label(source, named):
                notes.append(unlabelled)
                continue
            found = find_columns(source, *named)
            if columns is not None and (columns.text_pair is None) != (found.text_pair is None):
                raise DataError(f"{source.name}: has {_texts(found)}, expected {_texts(columns)} as in train")
            columns = found if columns is None else columns
        else:
            found = columns
        result = survey(source, found)
        if name == "test" and set(result.first_places) == {NO_LABEL} and NO_LABEL not in surveys["train"].first_places:
            notes.append(unlabelled)
            continue
        surveys[name] = result
    return surveys, notes


def _has_label(source: Source, named: tuple[str | None, str | None, str | None]) -> bool:
    text, text_pair, label = named
    if label:
        return label in source.columns
    return find_columns(source, text, text_pair, need_label=False).label is not None


def _texts(columns: Columns) -> str:
    return " and ".join(f"'{column}'" for column in columns.texts())


def _labels(first: Survey) -> tuple[list[str], list[str]]:
    """Returns the labels of the table or of train, in order, and a note on each that the source names without a row."""
    name = first.source.name
    named = first.source.class_names.get(first.columns.label or "", [])
    labels = order_labels(first.first_places, named)
    check_labels(labels, len(first.label_ids), name)
    return labels, [f"{name}: no row has the label '{one}', so it was left out" for one in named if one not in labels]


def _check_strictly(data: Prepared, fixed: bool) -> None:
    found = [check for check in data.checks if check["severity"] != "note"]
    if found:
        listed = ", ".join(f"{check['name']} ({check['count']:,})" for check in found)
        advice = "" if fixed else ", or let --fix drop exact duplicates and split without leakage"
        names = ", ".join(dict.fromkeys(data.sources.values()))
        raise DataError(f"{names}: found {listed}, which --strict forbids; see rows and advice without it{advice}")


def _write(
    folder: Path,
    surveys: dict[str, Survey],
    ids: Ids,
    parts: Parts,
    labels: list[str],
    examine: Callable[[str, str | None], None] = lambda text, pair: None,
) -> tuple[dict[str, int], str]:
    """Reads every source again and writes its rows; returns the rows of each split and the fingerprint.

    `examine` is given each text that is written, in the order of the sources.
    """
    for split in SPLITS:  # fixing may leave nothing of one that stood there
        split_path(folder, split).unlink(missing_ok=True)
    present = np.unique(np.concatenate(list(parts.values())))
    pairs = next(iter(surveys.values())).columns.text_pair is not None
    writers = {part: SplitWriter(split_path(folder, SPLITS[part]), labels, pairs) for part in present if part >= 0}
    for name, found in surveys.items():
        row = 0
        for batch in text_batches(found.source, found.columns, with_labels=False):
            whose = parts[name][row : row + len(batch.texts)]
            if len(whose) < len(batch.texts):
                raise _changed(found.source)
            for i in np.flatnonzero(whose != LEFT_OUT):
                pair = batch.pairs[i] if batch.pairs else None
                examine(batch.texts[i], pair)
                writers[whose[i]].add(batch.texts[i], pair, int(ids[name][row + i]), int(row + i))
            row += len(batch.texts)
        if row < len(parts[name]):
            raise _changed(found.source)
    digests = {SPLITS[part]: writer.close() for part, writer in writers.items()}
    return {SPLITS[part]: writer.rows for part, writer in writers.items()}, data_fingerprint(digests, labels)


def _changed(source: Source) -> DataError:
    return DataError(f"{source.name}: changed between the two times it was read; prepare it again")
