"""The verb that uses a run: predict."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bertlora.cli.console import print_json, say, show
from bertlora.cli.options import (
    MODEL,
    OVERWRITE_FILE,
    PATH,
    PRECISION,
    SAFE_CSV,
    TEXT_COLUMNS,
    OneOf,
    Option,
    flag,
)
from bertlora.cli.predict_options import GLUE, ChosenForm, check_options, chosen_form
from bertlora.cli.predicted import answers, form_of, output, print_every
from bertlora.cli.texts import Chunks, text_chunks
from bertlora.cli.verb import Argument, verb
from bertlora.errors import InputError
from bertlora.task import REGRESSION

if TYPE_CHECKING:
    from bertlora.cli.answers import Form
    from bertlora.cli.predicted import AnyRun
    from bertlora.pipeline.predict import FileRows

# Lines of stdin in one call: enough for full speed, few enough that answers come while the rest is read.
CHUNK_TEXTS = 1024


@verb(
    "Label texts, one answer a text, in order.",
    'bertlora predict runs/a "A joy from start to finish."',
    Argument(
        "run",
        text="a run folder, an adapter that PEFT saved, or http://HOST:PORT[/ADAPTER], where 'bertlora serve' runs; "
        "its API key is taken from BERTLORA_API_KEY",
        type=PATH,
        metavar="RUN",
    ),
    Argument("texts", text="texts to label; without any, lines are read from stdin", nargs=-1, metavar="[TEXT]..."),
    click.Option(
        ["--pair", "pairs"], nargs=2, multiple=True, metavar="A B", help="a pair of texts to label; may be repeated"
    ),
    Option("--file", "label the texts of a file: any that prepare reads, or plain text, a line each", type=PATH),
    Option("--split", "the split of the file, if it has several", default="test", metavar="SPLIT"),
    *TEXT_COLUMNS,
    Option("--id-column", "with --file: the only column that stays next to the predictions", metavar="NAME"),
    Option(
        "--out",
        "a file to write instead of stdout, whole or not at all; with --file, a name in .csv, .tsv, .jsonl or "
        ".parquet keeps all columns, and adds predicted_label and confidence",
        type=PATH,
        metavar="FILE",
    ),
    OVERWRITE_FILE,
    flag("--probabilities", "with --file and --out: also add a column for each label's probability"),
    Option(
        "--format",
        "the form of the answers; default: by the name of --out, otherwise jsonl, on a terminal a table. glue: a file "
        "of a submission to GLUE, such as --out CoLA.tsv",
        type=OneOf(("jsonl", "csv", GLUE)),
    ),
    SAFE_CSV,
    flag("--base", "use the base model with its untrained head"),
    flag("--explain", "show how much each word counts for the label, in fp32; in colour on a terminal"),
    flag("--raw", "give probabilities without calibration"),
    Option(
        "--abstain",
        "give no label if the confidence is too low: accuracy=0.95, or coverage=0.8 of the texts",
        metavar="NAME=X",
        default="",
    ),
    Option(
        "--sets",
        "also give the labels that may be right, so that this share of sets (0 to 1) contains the right one. For "
        "numbers: the share of intervals that contain the true one",
        type=float,
        metavar="X",
    ),
    flag("--per-class", "with --sets: the share holds for the texts of each class, not only over all texts"),
    MODEL,
    PRECISION,
    messages=True,
)
def predict(
    run: str,
    texts: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    file: str | None,
    id_column: str | None,
    out: str | None,
    overwrite: bool,
    probabilities: bool,
    format: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Labels texts as they arrive."""
    where = {name: options.pop(name) for name in ("split", "text_column", "text_pair_column", "encoding", "delimiter")}
    notes: list[str] = []
    model, explain = options.pop("model"), options.pop("explain")
    form = chosen_form(file, out, format, id_column, probabilities, options.pop("safe_csv"))
    check_options(out, file, overwrite, form, as_json, explain, options)
    rows = _opened_rows(form, file, id_column, notes, where) if file else None
    chunks = iter(()) if rows else text_chunks(texts, pairs, file, CHUNK_TEXTS, notes=notes, **where)
    loaded = _loaded(run, model, form, options["precision"], notes)
    if loaded.manifest.pairs and not (file or pairs):
        raise InputError(f"{run}: was trained on pairs of texts; give --pair A B, or --file with both columns")
    _say_notes(loaded, options)
    terminal = sys.stdout.isatty() and not (out or format or as_json)
    if explain and terminal:
        print_every(loaded, chunks, options)
        _say_all(notes)
        return
    if rows:
        count = _write_rows(loaded, rows, out, form, probabilities, options)
    else:
        count = _write_lines(loaded, chunks, out, form_of(loaded, form, terminal), explain, options)
    _say_all(notes)
    if out and as_json:
        print_json({"out": out, "texts": count})
    elif out:
        show(f"{out}: {count:,} texts")


def _loaded(run: str, model: str, form: ChosenForm, precision: str, notes: list[str]) -> "AnyRun":
    """Returns a run, or an adapter of a server, whose notes go to `notes`."""
    from bertlora.cli.remote import RemoteRun, check_remote, is_url

    if is_url(run):
        check_remote(form.name, model, precision)
        remote = RemoteRun(run, notes)
        click.get_current_context().call_on_close(remote.close)
        return remote
    from bertlora.run.loaded import Run

    return Run.load(run, model)


def _opened_rows(
    form: ChosenForm, file: str, id_column: str | None, notes: list[str], where: dict[str, Any]
) -> "FileRows | None":
    """Returns the rows of a file if columns of the file are written too; None if only the answers are."""
    if form.name == GLUE:
        from bertlora.pipeline.submission import submission_rows

        return submission_rows(file, id_column, **where)
    if form.table:
        from bertlora.pipeline.predict import FileRows

        return FileRows.open(file, id_column, notes=notes, **where)
    return None


def _write_rows(
    run: "AnyRun", rows: "FileRows", out: str | None, form: ChosenForm, probabilities: bool, options: dict[str, Any]
) -> int:
    """Writes the rows with their answers, and returns how many."""
    if form.name == GLUE and out:
        from bertlora.pipeline.submission import write_submission
        from bertlora.run.loaded import Run

        assert isinstance(run, Run)  # `check_remote` refuses servers
        return write_submission(run, rows, Path(out), **options)
    from bertlora.pipeline.predict import write_predictions

    target = Path(out) if out else sys.stdout
    return write_predictions(
        run, rows, target, form.name, probabilities=probabilities, safe_csv=form.safe_csv, **options
    )


def _write_lines(
    run: "AnyRun", chunks: Chunks, out: str | None, form: "Form", explain: bool, options: dict[str, Any]
) -> int:
    """Writes one answer a text, and returns how many."""
    count = 0
    with output(out) as write:
        for lines in answers(run, chunks, explain, options):
            write(form(lines))
            count += len(lines)
    return count


def _say_all(notes: Sequence[str]) -> None:
    """Prints notes on the file on stderr."""
    for note in dict.fromkeys(notes):
        say(f"note: {note}")


def _say_notes(run: "AnyRun", options: dict[str, Any]) -> None:
    """Prints on stderr how a threshold was chosen, and which labels are in every set. A server says it with answers."""
    from bertlora.cli.remote import RemoteRun

    if isinstance(run, RemoteRun):
        return
    chosen = {name: options[name] for name in ("abstain", "sets", "per_class")}
    if run.manifest.task == REGRESSION and options["base"]:
        return
    for note in run.predictions(raw=options["raw"] or options["base"], **chosen).notes:
        say(note)
