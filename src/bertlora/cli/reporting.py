"""The verb that writes reports: report."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertlora.cli.inputs import column_arguments, judged_folder, judging_flags, labelled_rows, say_met, usual_split
from bertlora.cli.judging import check_different, judged_runs
from bertlora.cli.registry import Arguments, flag, flags, verb
from bertlora.errors import BertloraError, InputError

if TYPE_CHECKING:
    from bertlora.data.inputs import Inputs
    from bertlora.data.prepared import Split
    from bertlora.evaluation.report import Material
    from bertlora.evaluation.verdict import Judged
    from bertlora.model.explain import Explanation
    from bertlora.run import Run

AUDITED = ("row", "given", "suggested", "confidence", "doubtful", "text")


@verb(
    "report",
    "judges a run and writes its report as one HTML file; several runs are compared",
    "bertlora report runs/a --split test",
    flags(
        flag("runs", "a run folder, or several to compare on the same rows", nargs="+", metavar="RUN"),
        judging_flags(
            "the (first) run",
            flag("--split", "which split to judge by; default: test, or validation where there is no test split"),
        ),
        flag("--audit", "the CSV file that 'bertlora audit DATA --out FILE' wrote, for the doubtful labels"),
        flag("--out", "the file to write; default: RUN/report.html, or RUN/comparison.html in the first of several"),
        flag("--overwrite", "replace the file that --out names", action="store_true"),
    ),
)
def report(args: Arguments) -> None:
    """Writes the report of a run, or of several."""
    from bertlora.cli import console
    from bertlora.files import check_vacant_file
    from bertlora.model.adapted import is_adapter

    several = len(args.runs) > 1
    if several:
        check_different(args.runs)
    if several and args.audit:
        raise InputError("--audit: a comparison has no doubtful labels; name one run")
    if args.out:
        check_vacant_file(Path(args.out), args.overwrite)
    elif is_adapter(Path(args.runs[0])):
        raise InputError(f"{args.runs[0]}: is an adapter, which takes no report; name a file by --out")
    path, facts = _compared(args) if several else _judged(args)
    if args.json:
        console.print_json({"report": str(path), "facts": facts})
    else:
        print(path)


def _judged(args: Arguments) -> tuple[Path, dict[str, Any]]:
    """Judges one run and writes its report."""
    from bertlora.cli.console import say
    from bertlora.evaluation.report import facts_of, render
    from bertlora.evaluation.verdict import judge_rows
    from bertlora.files import write_whole
    from bertlora.model.precision import choose_precision
    from bertlora.run import Run
    from bertlora.run.folder import REPORT

    doubtful = _read_audit(Path(args.audit)) if args.audit else None
    run = Run.load(args.runs[0], args.model or "")
    args.split = args.split or usual_split(args, run)
    rows, where = labelled_rows(args, run)
    texts, met = _texts(args, run), say_met(args, run)
    say(f"judging {len(rows):,} rows ({where})")
    judged = judge_rows(run, rows, choose_precision(args.precision, run.adapted.architecture))
    facts = facts_of(run, judged_material(run, judged, texts, rows.inputs, where, met, doubtful))
    path = Path(args.out) if args.out else run.path / REPORT
    write_whole(path, render(facts))
    return path, facts


def _compared(args: Arguments) -> tuple[Path, dict[str, Any]]:
    """Judges several runs on the same rows and writes their comparison."""
    from bertlora.evaluation.report import comparison_facts, render_comparison, short_names
    from bertlora.files import write_whole

    found, judged, where = judged_runs(args)
    names = dict(zip(args.runs, short_names(args.runs), strict=True))
    runs = {names[folder]: run for folder, run in found.items()}
    judged = {names[folder]: scored for folder, scored in judged.items()}
    facts = comparison_facts(runs, judged, where)
    path = Path(args.out) if args.out else next(iter(runs.values())).path / "comparison.html"
    write_whole(path, render_comparison(facts))
    return path, facts


def judged_material(
    run: "Run",
    judged: "Judged",
    rows: "Split",
    inputs: "Inputs",
    where: str,
    met: str = "",
    doubtful: list[dict[str, Any]] | None = None,
) -> "Material":
    """Returns what the report of a run is made from, once it is judged; the worst errors are explained here.

    Args:
        run: the run.
        judged: what base, probe and LoRA make of the rows.
        rows: the rows' texts.
        inputs: the same, tokenised.
        where: what these rows are: `test split`.
        met: see `Material`.
        doubtful: see `Material`.
    """
    from bertlora.evaluation.report import Material

    return Material(
        judged=judged,
        where=where,
        met=met,
        texts=rows.texts,
        pairs=rows.pairs,
        rows=rows.rows,
        inputs=inputs,
        lengths_where=where,
        explanations=_explanations(run, judged, rows),
        doubtful=doubtful,
        advice=run.metrics().get("advice"),
    )


def _explanations(run: "Run", judged: "Judged", rows: "Split") -> dict[int, "Explanation"]:
    """Returns the token attributions of the worst errors; none, with a word on stderr, where the model has none."""
    from bertlora.cli.console import say
    from bertlora.evaluation.report import worst_errors
    from bertlora.model.explain import explain

    worst = worst_errors(judged)
    say(f"explaining the {len(worst)} most confident errors")
    pairs = None if rows.pairs is None else [rows.pairs[row] for row in worst]
    try:
        found = explain(run.adapted, [rows.texts[row] for row in worst], pairs)
    except BertloraError as error:
        say(f"the report goes without attributions: {error}")
        return {}
    return dict(zip(worst, found, strict=True))


def _texts(args: Arguments, run: "Run") -> "Split":
    """Returns the rows that `labelled_rows` gives, as texts."""
    from bertlora.data.prepared import Prepared, read_rows

    if folder := judged_folder(args, run):
        return Prepared.load(folder).split(args.split)
    labels = run.manifest.source_labels, run.manifest.labels
    return read_rows(args.data, labels[0], aliases=labels[1], split=args.split, **column_arguments(args))


def _read_audit(path: Path) -> list[dict[str, Any]]:
    """Returns the rows that an audit doubts.

    Raises:
        InputError: the file is missing, or none that `audit --out` wrote.
    """
    from bertlora.data.delimited import FIELD_LIMIT

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
