"""The verb evaluate: base, linear probe and LoRA on the same rows."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from bertlora.data.text_file import FileFormat
from bertlora.pipeline.prepare import ColumnNames, Source

if TYPE_CHECKING:
    from bertlora.run.loaded import Run


def evaluate(
    run: "str | Path | Run",
    data: Source = (),
    split: str = "test",
    *,
    model: str = "",
    precision: str = "auto",
    slice_column: str | None = None,
    **columns: Unpack[ColumnNames],
) -> dict[str, Any]:
    """Evaluates base, linear probe and LoRA on the same rows.

    Args:
        run: a run folder, an adapter that PEFT saved, or a loaded run.
        data: a prepared folder or any labelled source; empty takes the data on which the run was trained.
        split: which split.
        model: where the base model is, if it has moved.
        precision: `fp32`, `bf16`, `int8` or `auto`, which is the one that `predict` takes here.
        slice_column: a column of `data`, a source, whose values are slices too.
        columns: the columns of a source.

    Returns:
        `n`, `base`, `probe`, `lora`, `verdict` and more, as `evaluate --json` prints. `slices`: see `slice_figures`.
        `where` says what the rows are, and `caution` is a sentence if the run may know them already. `notes` say
        what was left out. `precision` is the one that was used. `best_metric` is the metric that chose the adapter,
        empty if the run does not say.

    Raises:
        RunError: the run cannot be loaded.
        DataError: there are no such rows or no such column, or their labels are not the run's.
        InputError: a slice column is named, and the rows come from a prepared folder, which does not keep it.
    """
    from bertlora.pipeline.slicing import check_slice_column, figures_by_slice

    form = FileFormat.of(columns)
    check_slice_column(slice_column, data, split, form)
    from bertlora.evaluation.verdict import evaluate_rows, figures, rows_of
    from bertlora.pipeline.rows import rows_for
    from bertlora.run.loaded import Run

    run = run if isinstance(run, Run) else Run.load(run, model)
    rows = rows_for(run, data, split, **columns)
    precision = run.choose_precision(precision)
    evaluated = evaluate_rows(run, rows.examples, rows.texts, precision, rows_of(rows.where))
    slices = figures_by_slice(evaluated, rows, data, slice_column, form)
    found = {"slices": slices, "where": rows.where, "caution": rows.met.caution, "notes": list(rows.texts.notes)}
    return figures(evaluated) | found | {"precision": precision, "best_metric": _best_metric(run)}


def _best_metric(run: "Run") -> str:
    """Returns the metric that chose the adapter of a run; empty if its folder does not say."""
    recipe = run.recipe()
    return "" if recipe is None else recipe.best_metric
