"""The verb that exports a run: export."""

from typing import Any

from bertlora.cli.options import MODEL, OVERWRITE, RUN, OneOf, Option, required
from bertlora.cli.verb import verb


def show_export(found: dict[str, Any]) -> None:
    """Prints the sizes, and the parity check."""
    from bertlora.files import megabytes

    sizes = f"{megabytes(found['bytes'])}; the full base model: {megabytes(found['base_bytes'])}"
    print(f"{found['to']}: {found['format']}, {sizes}")
    if "largest_difference" in found:
        difference = f"logits differ by at most {found['largest_difference']:.2g}, labels agree"
        print(f"parity on {found['texts']} texts: {difference}")


@verb(
    "Write a run in another format.",
    "bertlora export runs/a --to models/a --format merged",
    RUN,
    required("--to", "the folder to write", "DIR"),
    Option(
        "--format",
        "merged: a plain transformers model, kept only if its results are the same; adapter: only PEFT's folder",
        type=OneOf(("merged", "adapter")),
        default="merged",
    ),
    OVERWRITE,
    MODEL,
    show=show_export,
)
def export(run: str, model: str, to: str, **options: Any) -> dict[str, Any]:
    """Exports a run."""
    from bertlora.run.loaded import Run

    return Run.load(run, model).export(to, **options)
