"""The verb demo: all steps on the embedded reviews."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bertlora.data.reviews import SAMPLE_TEXTS, embedded_specs
from bertlora.files import check_vacant, size_of
from bertlora.pipeline.train import train
from bertlora.training.events import Checked, Event, Listener


def demo(
    out: str | Path,
    overwrite: bool = False,
    on_event: Listener = lambda _: None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Trains on the embedded reviews with the embedded model, evaluates the run and writes its report.

    Args:
        out: the run folder to write.
        overwrite: replace what `out` holds.
        on_event: as in `train`.
        on_progress: called with a line about the reviews, and before each step that takes a while.

    Returns:
        What `train` returns; `evaluation`, what `evaluate` returns; `report`, the path of the report; and `sizes` in
        bytes of `adapter`, `base` and `run`.

    Raises:
        OutputError: `out` is not empty, or cannot be written.
    """
    check_vacant(Path(out), overwrite)  # `train` would offer to resume

    def listen(event: Event) -> None:
        if isinstance(event, Checked):
            rows = ", ".join(f"{n:,} {split}" for split, n in event.rows.items())
            total = sum(event.rows.values())
            on_progress(f"{total:,} film reviews written for bertlora: {rows}; model {event.recipe.model}")
        on_event(event)

    precision = "fp32"  # in which every machine gives the figures of the README
    metrics = train(
        embedded_specs(), out, overwrite=overwrite, on_event=listen, precision=precision, samples=SAMPLE_TEXTS
    )
    from bertlora.evaluation.report import write_report
    from bertlora.evaluation.verdict import evaluate_rows, figures
    from bertlora.pipeline.report import report_material
    from bertlora.pipeline.rows import rows_for
    from bertlora.pipeline.slicing import figures_by_slice
    from bertlora.run.loaded import Run

    run = Run.load(out)
    rows = rows_for(run)
    evaluated = evaluate_rows(run, rows.examples, rows.texts, precision, "test reviews")
    slices = figures_by_slice(evaluated, rows)
    report = write_report(run, report_material(run, evaluated, rows, slices, on_progress=on_progress))
    adapter = (run.path / "adapter" / "adapter_model.safetensors").stat().st_size
    sizes = {"adapter": adapter, "base": run.adapted.base.weight_bytes, "run": size_of(run.path)}
    evaluation = figures(evaluated) | {"slices": slices, "where": rows.where, "caution": "", "notes": []}
    evaluation |= {"precision": precision}
    return metrics | {"evaluation": evaluation, "report": str(report), "sizes": sizes}
