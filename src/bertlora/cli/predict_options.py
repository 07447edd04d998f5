"""The options of predict that depend on each other: the form of its answers, and what does not go together."""

from pathlib import Path
from typing import Any, NamedTuple

from bertlora.data.glue import SUBMISSIONS
from bertlora.errors import InputError
from bertlora.files import check_vacant_file

GLUE = "glue"  # the form of a submission


class ChosenForm(NamedTuple):
    """How predictions are written: `name` is the format; a `table` keeps the columns of a file.

    With `safe_csv` no cell is a formula for a spreadsheet.
    """

    name: str
    table: bool
    safe_csv: bool = False


def chosen_form(
    file: str | None, out: str | None, format: str | None, id_column: str | None, probabilities: bool, safe_csv: bool
) -> ChosenForm:
    """Returns the form that the options ask for.

    Raises:
        InputError: an option is only for tables, or for CSV and TSV, and there is none.
    """
    if id_column and not file:
        raise InputError("--id-column: names a column of a file; give --file too")
    from bertlora.data.table_file import TEXT_FORMATS, format_of

    named = format_of(Path(out)) if out else ""
    table = bool(file) and format != GLUE and bool(id_column or (named and not format))
    if probabilities and not table:
        raise InputError("--probabilities: adds columns to those of a file; give --file, and --out FILE.csv")
    if named in ("tsv", "parquet") and not (table or format):
        raise InputError(f"{out}: only the rows of a --file are written in this form; name a .csv or .jsonl file")
    name = format or named or "jsonl"
    if safe_csv and name not in TEXT_FORMATS:
        raise InputError("--safe-csv: is for CSV and TSV; give --format csv, or --out FILE.csv")
    return ChosenForm(name, table, safe_csv)


def check_options(
    out: str | None,
    file: str | None,
    overwrite: bool,
    form: ChosenForm,
    as_json: bool,
    explain: bool,
    options: dict[str, Any],
) -> None:
    """Finds options that do not go together before the model is loaded.

    Raises:
        InputError, OutputError: there are such options, or `out` cannot be written.
    """
    if explain and options["precision"] not in ("auto", "fp32"):
        raise InputError(f"--explain works in fp32; leave --precision {options['precision']} out")
    if options["base"] and (options["abstain"] or options["sets"] is not None):
        raise InputError("--abstain and --sets are chosen for the adapter; leave --base out")
    if options["per_class"] and options["sets"] is None:
        raise InputError("--per-class: is for label sets; give --sets too, such as --sets 0.9")
    if form.name == GLUE:
        _check_submission(out, file, explain or options["abstain"] or options["sets"] is not None)
    if explain and form.name == "csv":
        raise InputError("--explain: has no form in CSV; use --format jsonl")
    if explain and form.table:
        raise InputError("--explain: has no form in a table; use --format jsonl, without --id-column")
    if form.name == "csv" and as_json and not out:
        raise InputError("--json: prints JSON lines; leave out --json or --format csv")
    if overwrite and not out:
        raise InputError("--overwrite: replaces the file that --out names; give --out too")
    if out:
        check_vacant_file(Path(out), overwrite, [Path(file)] if file else [])


def _check_submission(out: str | None, file: str | None, more: bool) -> None:
    """Raises InputError for options that do not fit a submission to GLUE."""
    if not (out and file):
        raise InputError("--format glue: writes the answers to a test file; give --file TEST.tsv and --out CoLA.tsv")
    if Path(out).name not in SUBMISSIONS:
        raise InputError(f"--out: GLUE takes files with the names {', '.join(SUBMISSIONS)}; got '{Path(out).name}'")
    if more:
        raise InputError("--format glue: holds one answer for each row; leave out --abstain, --sets and --explain")
