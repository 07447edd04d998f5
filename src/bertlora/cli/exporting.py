"""The verbs for what leaves bertlora: export and verify."""

from typing import Any

from bertlora.cli.console import show
from bertlora.cli.options import MODEL, OVERWRITE, PRECISION, RUN, OneOf, Option, required
from bertlora.cli.verb import verb


def show_export(found: dict[str, Any]) -> None:
    """Prints the sizes, and the comparison with the run."""
    from bertlora.files import megabytes

    sizes = f"{megabytes(found['bytes'])}; the full base model: {megabytes(found['base_bytes'])}"
    show(f"{found['to']}: {found['format']}, {sizes}")
    if "lost_points" in found:
        before, after = _figures(found["before"]), _figures(found["after"])
        show(f"on {found['rows']:,} validation rows: {before} before, {after} after")
    if "largest_difference" in found:
        difference = f"logits differ by at most {found['largest_difference']:.2g}, labels agree"
        show(f"parity on {found['texts']} texts: {difference}")
    for note in found.get("notes", ()):
        show(note)


def _figures(found: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in found.items())


@verb(
    "Write a run in another format.",
    "bertlora export runs/a --to models/a --format merged",
    RUN,
    required("--to", "the folder to write", "DIR"),
    Option(
        "--format",
        "merged: a plain transformers model; onnx: for ONNX Runtime; onnx-int8: the same with weights and activations "
        "in 8 bits; openvino: for OpenVINO; adapter: only PEFT's folder. It is kept only if it gives the run's answers",
        type=OneOf(("merged", "onnx", "onnx-int8", "openvino", "adapter")),
        default="merged",
    ),
    Option(
        "--tolerance",
        "with onnx-int8: points of accuracy that it may lose on the validation rows",
        type=float,
        default=0.5,
        metavar="POINTS",
    ),
    OVERWRITE,
    MODEL,
    show=show_export,
)
def export(run: str, model: str, to: str, **options: Any) -> dict[str, Any]:
    """Exports a run."""
    from bertlora.run.loaded import Run

    return Run.load(run, model).export(to, **options)


def show_verified(found: dict[str, Any]) -> None:
    """Prints what the certificate's replay found."""
    show(
        f"{found['path']}: {found['format']}, {found['files']} files unchanged; on {found['texts']} texts, logits in "
        f"{found['precision']} differ by at most {found['largest_difference']:.2g} (allowed: {found['tolerance']:.2g})"
    )


@verb(
    "Replay the certificate of an export or a run on this machine.",
    "bertlora verify models/a",
    RUN,
    PRECISION,
    MODEL,
    show=show_verified,
)
def verify(run: str, model: str, precision: str) -> dict[str, Any]:
    """Verifies an export."""
    from pathlib import Path

    from bertlora.export.exported import verify
    from bertlora.run.loaded import Run

    loaded = Run.load(run, model, replays=False)
    return {"path": run} | verify(Path(run), loaded.model, loaded.model.choose_precision(precision))
