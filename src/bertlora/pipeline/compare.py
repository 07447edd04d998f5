"""The verb compare: several runs on the same rows, every pair with a paired test."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from bertlora.errors import InputError
from bertlora.pipeline.prepare import ColumnNames, Source

if TYPE_CHECKING:
    from bertlora.evaluation.verdict import Evaluated
    from bertlora.run.loaded import Run

OTHER_DATA = "the runs were trained on different data; check that none was trained on these rows"


def compare(
    runs: Sequence[str | Path],
    data: Source = (),
    split: str = "test",
    *,
    model: str = "",
    precision: str = "fp32",
    on_progress: Callable[[str], None] = lambda _: None,
    **columns: Unpack[ColumnNames],
) -> dict[str, Any]:
    """Compares runs on the same rows.

    Args:
        runs: two or more run folders, or adapters that PEFT saved.
        data: a prepared folder or any labelled source; empty takes the data of the first run.
        split: which split.
        model: where the base model is, if it has moved.
        precision: `fp32`, `bf16` or `auto`.
        on_progress: called with a line before each run is evaluated, and with each caution.
        columns: the columns of a source.

    Returns:
        `n`, `where`, `runs` {name: figures} and `pairs`, as `compare --json` prints.

    Raises:
        InputError: fewer than two different runs.
        RunError, DataError: a run cannot be loaded, or there are no such rows.
    """
    check_different(runs)
    from bertlora.evaluation.side_by_side import side_by_side

    _, found, where = evaluated_runs(runs, data, split, model, precision, on_progress, **columns)
    return side_by_side(found) | {"where": where}


def check_different(runs: Sequence[str | Path]) -> None:
    """Raises InputError for fewer than two runs, and for a folder that is named twice in any way."""
    if len(runs) < 2 or len({Path(name).resolve() for name in runs}) < len(runs):
        raise InputError(f"RUN: got {' '.join(map(str, runs))}, expected two or more different runs")


def evaluated_runs(
    names: Sequence[str | Path],
    data: Source,
    split: str,
    model: str,
    precision: str,
    on_progress: Callable[[str], None],
    **columns: Unpack[ColumnNames],
) -> "tuple[dict[str, Run], dict[str, Evaluated], str]":
    """Returns the runs, their logits on the same rows, both by folder, and what the rows are."""
    from bertlora.evaluation.verdict import Evaluated
    from bertlora.pipeline.rows import own_data, rows_for
    from bertlora.run.loaded import Run

    runs, evaluated, where = {}, {}, ""
    own = not data
    for name in map(str, names):
        run = runs[name] = Run.load(name, model)
        data = data or [str(own_data(run))]
        rows = rows_for(run, data, split, **columns)
        split = split or rows.split
        where = where or (f"{split} split of the data of {name}" if own else rows.where)
        if rows.caution:
            on_progress(f"caution, {name}: {rows.caution}")
        on_progress(f"evaluating {len(rows.examples):,} rows by {name}")
        logits = run.adapted.logits(rows.examples.inputs, precision=precision)
        evaluated[name] = Evaluated(run.manifest.labels, rows.examples.labels, {"lora": logits}, run.calibration)
    # For prepared data each run's own caution has said it.
    if rows.from_source and len({run.manifest.data.get("fingerprint") for run in runs.values()}) > 1:
        on_progress(OTHER_DATA)
    return runs, evaluated, where
