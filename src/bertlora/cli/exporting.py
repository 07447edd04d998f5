"""The verb that ships a run: export."""

from pathlib import Path

from bertlora.cli.registry import MODEL, OVERWRITE, RUN, Arguments, flag, flags, verb


@verb(
    "export",
    "writes the run in another format; merged is checked for parity before it is kept",
    "bertlora export runs/a --to models/a --format merged",
    flags(
        RUN,
        flag("--to", "the folder to write", required=True),
        flag("--format", "merged: a plain transformers model; adapter: PEFT's folder alone", default="merged"),
        OVERWRITE,
        MODEL,
    ),
)
def export(args: Arguments) -> None:
    """Exports a run."""
    from bertlora.cli import console
    from bertlora.deploy.export import export_run
    from bertlora.files import megabytes
    from bertlora.run import Run

    result = export_run(Run.load(args.run, args.model or ""), Path(args.to), args.format, args.overwrite)
    if args.json:
        console.print_json(result)
        return
    sizes = f"{megabytes(result['bytes'])}; the full base model: {megabytes(result['base_bytes'])}"
    print(f"{args.to}: {args.format}, {sizes}")
    if "largest_difference" in result:
        apart = f"logits differ by at most {result['largest_difference']:.2g}, labels agree"
        print(f"parity on {result['texts']} texts: {apart}")
