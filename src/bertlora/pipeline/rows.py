"""The rows on which a run is evaluated: its own split, another prepared folder, or any labelled source."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np
import numpy.typing as npt

from bertlora.data.label_rules import LabelRules
from bertlora.data.prepared import Prepared, Split, is_prepared, read_rows
from bertlora.data.reader import Examples, split_examples
from bertlora.errors import DataError
from bertlora.evaluation.cautions import Met
from bertlora.pipeline.prepare import ColumnNames, Source, as_specs, refuse_preparing
from bertlora.run.loaded import Run
from bertlora.run.manifest import hashes
from bertlora.task import CLASSIFICATION, MULTILABEL


@dataclass(frozen=True)
class Rows:
    """Labelled rows for a run.

    Attributes:
        examples: inputs, and labels in the run's order.
        where: what the rows are, for people: `test split`.
        met: how many of them the run knows.
        texts: the same rows as texts, and what was left out of a raw source.
        split: the split that they are; empty for a single table.
    """

    examples: Examples
    where: str
    met: Met
    texts: Split
    split: str


def rows_for(run: Run, data: Source = (), split: str = "", **columns: Unpack[ColumnNames]) -> Rows:
    """Returns labelled rows for a run.

    Args:
        run: the run.
        data: a prepared folder or any source; empty takes the data on which the run was trained.
        split: which split; empty takes test, or validation if a prepared folder has no test split.
        columns: the columns of a source.

    Raises:
        DataError: the run's data is missing, the split is missing, or the labels are not the run's.
    """
    specs = as_specs(data)
    if specs and not (len(specs) == 1 and is_prepared(specs[0])):
        return _of_source(run, specs, split or "test", columns)
    refuse_preparing(specs, **columns)
    prepared, manifest = Prepared.load(Path(specs[0]) if specs else own_data(run)), run.manifest
    split = split or ("validation" if "validation" in prepared.rows and "test" not in prepared.rows else "test")
    prepared.require(split)
    if prepared.task != manifest.task:
        raise DataError(
            f"{prepared.folder}: holds {prepared.task}, and the run does {manifest.task}; name data of the same task"
        )
    run.adapted.reader.check_pairs(prepared.has_pairs)
    examples = split_examples(run.adapted.reader, prepared, split)
    if manifest.task == CLASSIFICATION:
        examples = Examples(examples.inputs, _order(prepared.labels, run)[examples.labels])
    elif manifest.task == MULTILABEL:
        examples = Examples(examples.inputs, _columns(examples.labels, _order(prepared.labels, run), run))
    return _rows(run, examples, specs, prepared.split(split), split)


def own_data(run: Run) -> Path:
    """Returns the folder of the prepared data on which a run was trained.

    Raises:
        DataError: it is missing.
    """
    if run.data_folder is None:
        raise DataError(f"{run.path}: the data it was trained on is missing; name labelled rows by --data")
    return run.data_folder


def _of_source(run: Run, specs: Sequence[str], split: str, columns: ColumnNames) -> Rows:
    manifest = run.manifest
    rules = LabelRules.from_json(Prepared.load(run.data_folder).label_rules if run.data_folder else {})
    names, task = manifest.labels, manifest.task
    found = read_rows(specs, manifest.source_labels, task=task, aliases=names, split=split, rules=rules, **columns)
    examples = Examples(run.adapted.reader.read(found.texts, found.pairs), found.labels)
    return _rows(run, examples, specs, found, found.name)


def _rows(run: Run, examples: Examples, specs: Sequence[str], texts: Split, split: str) -> Rows:
    where = ", ".join([*([" ".join(specs)] if specs else []), *([f"{split} split"] if split else [])])
    met = Met.of(hashes(texts.texts, texts.pairs), run.seen, run.manifest.task)
    return Rows(examples, where, met, texts, split)


def _columns(marks: npt.NDArray[np.bool_], order: npt.NDArray[np.int64], run: Run) -> npt.NDArray[np.bool_]:
    """Returns which of the run's labels each row has, (N, K), from those of the data."""
    found = np.zeros((len(marks), len(run.manifest.labels)), bool)
    found[:, order] = marks
    return found


def _order(labels: Sequence[str], run: Run) -> npt.NDArray[np.int64]:
    """Returns the run's class of each of the data's labels, (K,). They may have the names of the data or of the run."""
    known = {label: i for i, label in enumerate(run.manifest.source_labels)}
    known |= {label: i for i, label in enumerate(run.manifest.labels) if label not in known}
    for label in labels:
        if label not in known:
            expected = ", ".join(run.manifest.source_labels)
            raise DataError(f"label '{label}' is none of the run's: {expected}; name data with the same labels")
    return np.array([known[label] for label in labels], dtype=np.int64)
