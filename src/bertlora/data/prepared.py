"""From a source to a prepared folder, in two passes: scan the labels, assign the splits, write the rows.

    prepared = prepare(["reviews.csv"], Path("data"))
    prepared.rows                   # {"train": 1400, "validation": 300, "test": 300}
    prepared.split("train").texts

Both passes read in batches. Between them about 300 bytes a row are in memory, and no text. The second pass collects
what the checks need. If `fix` changes the splits, a third pass writes them.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Unpack

import numpy as np

from bertlora.data.assignment import Assigned, assign_splits, check_train, sample_notes
from bertlora.data.checks import (
    Check,
    Examiner,
    KeptRows,
    Similar,
    TextFacts,
    WordFile,
    blank_check,
    draw_rows,
    find_checks,
    fixed,
    label_checks,
    near_groups,
    shift_checks,
    shortcut_checks,
    token_checks,
    with_places,
)
from bertlora.data.columns import columns_of_splits
from bertlora.data.folder import Prepared, data_fingerprint, is_prepared
from bertlora.data.label_rules import LabelRules
from bertlora.data.labels import quoted
from bertlora.data.named_columns import NamedColumns, SourceColumns
from bertlora.data.placement import group_name
from bertlora.data.reader import Reader
from bertlora.data.rows import Split, iter_texts, read_rows
from bertlora.data.scanned import Scanned, scan_all
from bertlora.data.source import SPLITS, Source
from bertlora.data.sources import open_sources
from bertlora.data.split_file import SplitWriter, row_places, split_path
from bertlora.data.splits import LEFT_OUT, Splits
from bertlora.data.table_source import TableSpec
from bertlora.data.text_batches import text_batches
from bertlora.data.text_file import FileFormat
from bertlora.errors import DataError
from bertlora.files import check_vacant, whole_folder
from bertlora.options import split_shares
from bertlora.recipe import Recipe
from bertlora.task import CLASSIFICATION, MULTILABEL, REGRESSION

__all__ = ["Prepared", "Split", "check_sources", "is_prepared", "iter_texts", "prepare", "read_rows", "source_paths"]


class _Written(NamedTuple):
    """What is in the Parquet files."""

    rows: dict[str, int]
    fingerprint: str


def prepare(
    specs: Sequence[str],
    out: Path,
    *,
    split: str = Recipe.split,
    sample: int = Recipe.sample,
    sample_from: str = Recipe.sample_from,
    seed: int = Recipe.seed,
    task: str = Recipe.task,
    overwrite: bool = False,
    strict: bool = False,
    fix: bool = False,
    reader: Reader | None = None,
    **columns: Unpack[SourceColumns],
) -> Prepared:
    """Reads, checks, splits and writes data.

    A single table is split by `split`. Named splits stay as they are. A missing validation split is cut from train, in
    the ratio that `split` gives the two. A missing test split stays missing.

    Args:
        specs: what to read; see `open_sources`.
        out: the folder to make.
        split: shares of train/validation/test in percent.
        sample: rows drawn at random, stratified by class; 0 = all. Numbers are stratified by ten ranges.
        sample_from: what they are drawn from; see `assign_splits`.
        seed: seed of sample and split.
        task: `classification`, `multilabel`, `regression`, or `auto`; see `find_task`.
        overwrite: whether `out` may be replaced.
        strict: whether a check of severity `warning` is an error.
        fix: whether to remove exact duplicates and put similar texts into one split; see `fixed`.
        reader: counts what truncation cuts and what the tokenizer does not know, and keeps the tokens in the folder;
            without it these two checks are left out.
        columns: the columns of the source; see `SourceColumns`.

    Raises:
        DataError: the data cannot be used, or `strict` is set and a check found something. The message names the place
            or the checks. Nothing is written.
        InputError: the reader reads pairs of texts and the data hold single ones, or the reverse; or two of
            `group_column`, `time_column` and `split_column` are given.
        HubError: the hub cannot be reached, or does not have the data set.
        OutputError: `out` cannot be written, or exists and is not empty.
        RecipeError: `split` is not three shares.
    """
    shares = split_shares(split)
    _check_numbers(sample, seed)
    check_vacant(out, overwrite, source_paths(specs))
    named = NamedColumns.of(columns)
    rules = LabelRules.of(columns)
    table, notes = scan_all(_open(specs, FileFormat.of(columns)), named, rules, task)
    placements = {name: found.placement for name, found in table.scans.items()}
    assigned = assign_splits(table.ids, placements, table.names, shares, sample, seed, sample_from)
    _check_train(table, assigned.splits)
    with whole_folder(out, overwrite) as folder:
        kept, written, fixes = _write_fixed(folder, table, assigned, shares, seed, fix)
        if sample_from == "split" and (one := placements.get("")) and one.splits is None:
            fixes += sample_notes(written.rows, sample)
        data = Prepared(
            folder=folder,
            task=table.task,
            labels=table.labels,
            rows=written.rows,
            fingerprint=written.fingerprint,
            columns=table.first.columns.described(),
            sources={name or "all": source for name, source in table.names.items()},
            shares=split,
            sample=sample,
            seed=seed,
            notes=[*notes, *(note for found in table.scans.values() for note in found.source.notes), *fixes],
            checks=[],
            label_rules=table.rules.to_json(),
        )
        drawn = draw_rows(data, kept)
        shortcuts = shortcut_checks(drawn, table.classes) if table.classes else []
        labelling = [*blank_check(table.scans), *_label_checks(table, kept)]
        found = [*labelling, *find_checks(kept, table.classes), *shortcuts]
        data.checks.extend(with_places(data, [*found, *shift_checks(drawn, table.strata)]))
        data.checks.extend(token_checks(data, reader) if reader else [])
        if strict:
            _check_strictly(data, fix)
        data.write_manifest()
    return Prepared.load(out)


def check_sources(specs: Sequence[str], **columns: Unpack[SourceColumns]) -> None:
    """Opens what the user named and finds its columns, without reading the rows. So a wrong name is found at once.

    A prepared folder is opened too. A hub data set is not, since that takes seconds: `prepare` opens it.

    Raises:
        DataError: a file is missing, of an unknown type or broken at its start, or a column is not found.
        InputError: two columns are named that both decide the splits, or the encoding is unknown.
    """
    named = NamedColumns.of(columns)
    FileFormat.of(columns)
    LabelRules.of(columns)
    if any(spec.startswith("hub:") for spec in specs):
        return
    if len(specs) == 1 and is_prepared(specs[0]):
        Prepared.load(Path(specs[0]))
        return
    for _ in columns_of_splits(_open(specs, FileFormat.of(columns)), named, []):
        pass


def source_paths(specs: Sequence[str]) -> list[Path]:
    """Returns the files and folders that specs name: no output may replace them."""
    files = [spec for spec in specs if not spec.startswith("hub:") and not isinstance(spec, TableSpec)]
    return [Path(spec if Path(spec).exists() else spec.split("=", 1)[-1]) for spec in files]


def _check_numbers(sample: int, seed: int) -> None:
    if sample < 0:
        raise DataError(f"sample: got {sample}, expected a number of rows, or 0 for all")
    if seed < 0:
        raise DataError(f"seed: got {seed}, expected a whole number (0 or more)")


def _open(specs: Sequence[str], form: FileFormat) -> dict[str, Source]:
    """Returns the sources by split; a train split without others is one table."""
    sources = open_sources(specs, form)
    if list(sources) == ["train"]:
        return {"": sources["train"]}
    if "" not in sources and "train" not in sources:
        raise DataError(f"the splits are {', '.join(sources)}, expected a train split among them; add train=FILE")
    return sources


def _check_strictly(data: Prepared, fixed: bool) -> None:
    found = [check for check in data.checks if check["severity"] != "note"]
    if found:
        listed = ", ".join(f"{check['name']} ({check['count']:,})" for check in found)
        advice = "" if fixed else ", or use --fix to remove exact duplicates and to split without leakage"
        names = ", ".join(dict.fromkeys(data.sources.values()))
        raise DataError(f"{names}: --strict forbids {listed}; run without it to see rows and advice{advice}")


def _write_fixed(
    folder: Path, table: Scanned, assigned: Assigned, shares: tuple[float, float, float], seed: int, fix: bool
) -> tuple[KeptRows, _Written, list[str]]:
    """Writes the rows; with `fix` once more if the splits change. Returns the rows kept, and notes on the changes."""
    written, facts, similar = _examined(folder, table, assigned.splits)
    kept = KeptRows.of(table.ids, assigned, facts, similar)
    if not fix:
        return kept, written, []
    kept, notes = fixed(kept, shares, seed, lambda split, rows: row_places(split_path(folder, split), rows))
    if notes:
        splits = kept.by_source(table.ids)
        _check_train(table, splits)
        written = _write(folder, table, splits)
    return kept, written, notes


def _examined(folder: Path, table: Scanned, splits: Splits) -> tuple[_Written, TextFacts, Similar]:
    """Writes the rows. Returns what the checks need to know of their texts, and which are similar."""
    with ExitStack() as stack:
        words = [stack.enter_context(WordFile(folder)) for _ in range(1 + table.pairs)]
        examiner = Examiner(table.pairs, words)
        written = _write(folder, table, splits, examiner.add)
        facts = examiner.facts()
        near = near_groups(facts.hashes, facts.signatures)
        facts = facts.without_signatures()
        return written, facts, Similar.of(facts.hashes, near, words)


def _write(
    folder: Path,
    table: Scanned,
    splits: Splits,
    examine: Callable[[str, str | None], None] = lambda text, pair: None,
) -> _Written:
    """Reads every source again and writes its rows. `examine` gets each text that is written, in the same order."""
    for split in SPLITS:  # `fix` may leave no row of a split that was written before
        split_path(folder, split).unlink(missing_ok=True)
    present = np.unique(np.concatenate(list(splits.values())))
    writers = {
        part: SplitWriter(split_path(folder, SPLITS[part]), table.task, table.labels, table.pairs, table.groups)
        for part in present
        if part >= 0
    }
    for name, found in table.scans.items():
        row = 0
        for batch in text_batches(found.source, found.columns, with_labels=False):
            assigned = splits[name][row : row + len(batch.texts)]
            if len(assigned) < len(batch.texts):
                raise _changed(found.source)
            for i in np.flatnonzero(assigned != LEFT_OUT):
                pair, at = batch.pairs[i] if batch.pairs else None, int(row + i)
                examine(batch.texts[i], pair)
                place = found.source.place(batch.positions[i])
                group = group_name(batch.placing["group"][i]) if table.groups else None
                writers[assigned[i]].add(batch.texts[i], pair, table.target(name, at), at, place, group)
            row += len(batch.texts)
        if row < len(splits[name]):
            raise _changed(found.source)
    digests = {SPLITS[part]: writer.close() for part, writer in writers.items()}
    rows = {SPLITS[part]: writer.rows for part, writer in writers.items()}
    return _Written(rows, data_fingerprint(digests, table.labels))


def _label_checks(table: Scanned, kept: KeptRows) -> Iterable[Check]:
    """Returns what the checks of labels find; numbers have none."""
    if table.task == REGRESSION:
        return ()
    if table.task == CLASSIFICATION:
        return label_checks(kept, table.labels)
    parts = [table.targets[name][kept.rows[kept.sources == i]] for i, name in enumerate(table.targets)]
    return label_checks(kept, table.labels, np.concatenate(parts).astype(np.bool_))


def _check_train(table: Scanned, splits: Splits) -> None:
    """Raises DataError if a class, or a label, has no row in train."""
    name = table.first.source.name
    check_train(splits, table.ids, table.classes, name)
    if table.task == MULTILABEL:
        split, marks = next(iter(table.targets)), next(iter(table.targets.values()))
        missing = [
            label for label, used in zip(table.labels, marks[splits[split] == 0].any(axis=0), strict=True) if not used
        ]
        if missing:
            raise DataError(
                f"{name}: no row to train on has the label {quoted(missing)}; give more rows, or leave out the label "
                "by --drop-label"
            )


def _changed(source: Source) -> DataError:
    return DataError(f"{source.name}: changed between the two times it was read; prepare it again")
