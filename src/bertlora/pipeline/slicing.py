"""The slices of the rows on which a run is evaluated: by length, by a column of the source, by words."""

from typing import TYPE_CHECKING, Any

from bertlora.data.prepared import is_prepared
from bertlora.data.rows import check_column, read_column
from bertlora.data.sources import AS_FOUND
from bertlora.data.text_file import FileFormat
from bertlora.errors import InputError
from bertlora.pipeline.prepare import Source, as_specs

if TYPE_CHECKING:
    from bertlora.evaluation.verdict import AnyEvaluated
    from bertlora.pipeline.rows import Rows


def check_slice_column(column: str | None, data: Source, split: str, form: FileFormat) -> None:
    """Finds a slice column that cannot be read before the model is loaded. A hub data set is not opened.

    Raises:
        InputError: the rows come from a prepared folder, which keeps only texts and labels.
        DataError: the source does not have the column.
    """
    specs = as_specs(data)
    if column is None:
        return
    if not specs or is_prepared(specs[0]):
        folder = specs[0] if specs else "the run's own data"
        raise InputError(
            f"--slice-column: {folder} keeps only texts and labels; name a source that has the column '{column}' by "
            "--data, with rows that the run was not trained on"
        )
    if not any(spec.startswith("hub:") for spec in specs):
        check_column(specs, column, split or "test", form)


def figures_by_slice(
    evaluated: "AnyEvaluated",
    rows: "Rows",
    data: Source = (),
    column: str | None = None,
    form: FileFormat = AS_FOUND,
) -> dict[str, Any]:
    """Returns LoRA's accuracy, or its error, by slice; see `slices_of`.

    Args:
        evaluated: the outputs of the classifiers on the rows.
        rows: the rows.
        data: where they were read from.
        column: a column of this source, whose values are slices too.
        form: how its files are written, as far as the user says it.
    """
    from bertlora.evaluation.slices import column_slices, text_slices
    from bertlora.evaluation.value_slices import slices_of

    texts = rows.texts
    slices = list(text_slices(texts.texts, texts.pairs, rows.examples.inputs.whole))
    if column is not None:
        values = read_column(as_specs(data), column, rows.split or "test", form)
        slices += column_slices(column, [values[row] for row in texts.rows.tolist()])
    return slices_of(evaluated, slices)
