"""The verb evaluate: base, linear probe and LoRA on the same rows."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from bertlora.pipeline.prepare import ColumnNames, Source

if TYPE_CHECKING:
    from bertlora.run.loaded import Run


def evaluate(
    run: "str | Path | Run",
    data: Source = (),
    split: str = "test",
    *,
    model: str = "",
    precision: str = "fp32",
    **columns: Unpack[ColumnNames],
) -> dict[str, Any]:
    """Evaluates base, linear probe and LoRA on the same rows.

    Args:
        run: a run folder, an adapter that PEFT saved, or a loaded run.
        data: a prepared folder or any labelled source; empty takes the data on which the run was trained.
        split: which split.
        model: where the base model is, if it has moved.
        precision: `fp32`, `bf16` or `auto`.
        columns: the columns of a source.

    Returns:
        `n`, `base`, `probe`, `lora`, `verdict` and more, as `evaluate --json` prints; `where` says what the rows are,
        and `caution` is a sentence if the run may know them already.

    Raises:
        RunError: the run cannot be loaded.
        DataError: there are no such rows, or their labels are not the run's.
    """
    from bertlora.evaluation.verdict import evaluate_rows, figures, rows_of
    from bertlora.pipeline.rows import rows_for
    from bertlora.run.loaded import Run

    run = run if isinstance(run, Run) else Run.load(run, model)
    rows = rows_for(run, data, split, **columns)
    found = figures(evaluate_rows(run, rows.examples, precision, rows_of(rows.where)))
    return found | {"where": rows.where, "caution": rows.caution}
