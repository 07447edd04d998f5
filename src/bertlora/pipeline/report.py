"""The verb report: evaluates a run, or several, and writes one HTML file."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from bertlora.data.dialect import FIELD_LIMIT
from bertlora.data.text_file import FileFormat
from bertlora.errors import BertloraError, InputError
from bertlora.files import check_vacant_file, write_whole
from bertlora.model.adapter_files import is_adapter
from bertlora.pipeline.compare import check_different, choice_note, evaluated_runs
from bertlora.pipeline.prepare import ColumnNames, Source
from bertlora.pipeline.slicing import check_slice_column, figures_by_slice
from bertlora.run.folder import REPORT

if TYPE_CHECKING:
    from bertlora.evaluation.report import Material
    from bertlora.evaluation.verdict import AnyEvaluated
    from bertlora.model.explain import Explanation
    from bertlora.pipeline.rows import Rows
    from bertlora.run.loaded import Run

COMPARISON = "comparison.html"
AUDITED = ("row", "given", "suggested", "confidence", "doubtful", "text")
Progress = Callable[[str], None]


def report(
    runs: str | Path | Sequence[str | Path],
    data: Source = (),
    split: str = "",
    *,
    out: str | Path | None = None,
    audit: str | Path | None = None,
    slice_column: str | None = None,
    overwrite: bool = False,
    model: str = "",
    precision: str = "auto",
    on_progress: Progress = lambda _: None,
    **columns: Unpack[ColumnNames],
) -> dict[str, Any]:
    """Evaluates a run and writes its report as one HTML file. Several runs are compared.

    Args:
        runs: a run folder, or several.
        data: a prepared folder or any labelled source; empty takes the data of the (first) run.
        split: which split; empty takes test for one run and validation for several, or the other if it is missing.
        out: the file to write; None is RUN/report.html, or RUN/comparison.html in the first of several runs.
        audit: the CSV file of `audit`, whose doubtful labels the report shows.
        slice_column: a column of `data`, a source, whose values are slices too.
        overwrite: replace the file that `out` names.
        model: where the base model is, if it has moved.
        precision: `fp32`, `bf16`, `int8` or `auto`.
        on_progress: called with a line before each step that takes a while, and with each caution.
        columns: the columns of a source.

    Returns:
        `report`, the path of the file, and `facts`, what it says.

    Raises:
        InputError: the options do not fit together, or the audit's file cannot be read.
        RunError, DataError: a run cannot be loaded, or there are no such rows.
        OutputError: the file cannot be written.
    """
    names = [runs] if isinstance(runs, str | Path) else list(runs)
    if len(names) > 1:
        check_different(names)
        if audit:
            raise InputError("--audit: a comparison has no doubtful labels; name one run")
        if slice_column is not None:
            raise InputError("--slice-column: a comparison has no slices; name one run")
    check_slice_column(slice_column, data, split, FileFormat.of(columns))
    if out is not None:
        check_vacant_file(Path(out), overwrite)
    elif is_adapter(Path(names[0])):
        raise InputError(f"{names[0]}: is an adapter, which takes no report; name a file by --out")
    doubtful = read_audit(Path(audit)) if audit else None
    if len(names) > 1:
        path, facts = _compared(names, data, split, out, model, precision, on_progress, columns)
    else:
        path, facts = _one_run(
            names[0], data, split, out, doubtful, slice_column, model, precision, on_progress, columns
        )
    return {"report": str(path), "facts": facts}


def _one_run(
    name: str | Path,
    data: Source,
    split: str,
    out: str | Path | None,
    doubtful: list[dict[str, Any]] | None,
    slice_column: str | None,
    model: str,
    precision: str,
    on_progress: Progress,
    columns: ColumnNames,
) -> tuple[Path, dict[str, Any]]:
    from bertlora.evaluation.report import facts_of, render
    from bertlora.evaluation.verdict import evaluate_rows, rows_of
    from bertlora.pipeline.rows import rows_for
    from bertlora.run.loaded import Run

    run = Run.load(name, model)
    rows = rows_for(run, data, split, **columns)
    if rows.met.caution:
        on_progress(f"caution, {run.path}: {rows.met.caution}")
    on_progress(f"evaluating {len(rows.examples):,} rows ({rows.where})")
    evaluated = evaluate_rows(run, rows.examples, rows.texts, precision, rows_of(rows.where))
    for note in rows.texts.notes:
        on_progress(f"note: {note}")
    slices = figures_by_slice(evaluated, rows, data, slice_column, FileFormat.of(columns))
    facts = facts_of(run, report_material(run, evaluated, rows, slices, doubtful, on_progress))
    path = run.path / REPORT if out is None else Path(out)
    write_whole(path, render(facts))
    return path, facts


def _compared(
    names: Sequence[str | Path],
    data: Source,
    split: str,
    out: str | Path | None,
    model: str,
    precision: str,
    on_progress: Progress,
    columns: ColumnNames,
) -> tuple[Path, dict[str, Any]]:
    from bertlora.evaluation.report import comparison_facts, render_comparison, short_names
    from bertlora.evaluation.verdict import Evaluated

    found = list(evaluated_runs(names, data, split, model, precision, on_progress, **columns))
    short = short_names([folder for folder, *_ in found])
    runs = {name: run for name, (_, run, _, _) in zip(short, found, strict=True)}
    classes = {name: rows for name, (_, _, rows, _) in zip(short, found, strict=True) if isinstance(rows, Evaluated)}
    if len(classes) < len(found):
        raise InputError(
            "report: a page on several runs is for classes; 'bertlora compare' compares regressions and several labels"
        )
    where = found[0][3]
    facts = comparison_facts(runs, classes, where, choice_note(where))
    path = next(iter(runs.values())).path / COMPARISON if out is None else Path(out)
    write_whole(path, render_comparison(facts))
    return path, facts


def report_material(
    run: "Run",
    evaluated: "AnyEvaluated",
    rows: "Rows",
    slices: dict[str, Any],
    doubtful: list[dict[str, Any]] | None = None,
    on_progress: Progress = lambda _: None,
) -> "Material":
    """Returns what the report of a run is made from. The most confident errors are explained here.

    Args:
        run: the run.
        evaluated: the logits of base, linear probe and LoRA on the rows.
        rows: the rows.
        slices: LoRA's accuracy by slice, as `figures_by_slice` returns it.
        doubtful: rows whose label an audit doubts.
        on_progress: called with a line before the explanations.
    """
    from bertlora.evaluation.report import Material

    texts = rows.texts
    return Material(
        evaluated=evaluated,
        where=rows.where,
        met=rows.met,
        texts=texts.texts,
        pairs=texts.pairs,
        rows=texts.rows,
        inputs=rows.examples.inputs,
        lengths_where=rows.where,
        slices=slices,
        explanations=_explanations(run, evaluated, texts.texts, texts.pairs, on_progress),
        doubtful=doubtful,
        advice=run.metrics().get("advice"),
    )


def _explanations(
    run: "Run", evaluated: "AnyEvaluated", texts: Sequence[str], pairs: Sequence[str] | None, on_progress: Progress
) -> "dict[int, Explanation]":
    """Returns token attributions of the worst errors, by row; none if the model cannot be explained."""
    from bertlora.evaluation.report import worst_rows
    from bertlora.model.explain import explain

    worst = worst_rows(evaluated)
    on_progress(f"explaining the {len(worst)} worst errors")
    seconds = None if pairs is None else [pairs[row] for row in worst]
    try:
        found = explain(run.adapted, [texts[row] for row in worst], seconds)
    except BertloraError as error:
        on_progress(f"the report has no attributions: {error}")
        return {}
    return dict(zip(worst, found, strict=True))


def read_audit(path: Path) -> list[dict[str, Any]]:
    """Returns the doubtful rows of an audit's CSV file.

    Raises:
        InputError: the file is missing, or `audit --out` did not write it.
    """
    fault = f"{path}: expected the CSV file that 'bertlora audit DATA --out FILE' wrote"
    csv.field_size_limit(FIELD_LIMIT)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file)
            if missing := [name for name in AUDITED if name not in (lines.fieldnames or ())]:
                raise InputError(f"{fault}, but it has no column '{missing[0]}'")
            return [
                {**line, "row": int(line["row"]), "confidence": float(line["confidence"])}
                for line in lines
                if line["doubtful"] == "true"
            ]
    except OSError as error:
        raise InputError(f"{fault}, but it cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{fault}, but a line cannot be read ({error})") from error
