"""The verbs that evaluate runs: evaluate, compare, report."""

from collections.abc import Sequence
from typing import Any

from bertlora.cli.console import say
from bertlora.cli.metrics import print_comparison, print_evaluation
from bertlora.cli.options import OVERWRITE_FILE, PATH, RUN, SPLIT, Option, Whole, flag, rows_options
from bertlora.cli.verb import Argument, verb

SLICE_COLUMN = Option(
    "--slice-column",
    "a column of --data, a source, whose values are slices too; a prepared folder does not keep other columns",
    metavar="NAME",
)


@verb(
    "Evaluate base, linear probe and LoRA on the same rows.",
    "bertlora evaluate runs/a --split test",
    RUN,
    *rows_options("the run", SPLIT),
    SLICE_COLUMN,
    show=print_evaluation,
)
def evaluate(run: str, **options: Any) -> dict[str, Any]:
    """Evaluates a run."""
    from bertlora.pipeline.evaluate import evaluate

    found = evaluate(run, **options)
    if found["caution"]:
        say(f"caution, {run}: {found['caution']}")
    for note in found["notes"]:
        say(f"note: {note}")
    return found


@verb(
    "Compare runs on the same rows, every pair with a paired test.",
    "bertlora compare runs/a runs/b --seeds 5",
    Argument(
        "runs", text="run folders, or adapters that PEFT saved", nargs=-1, required=True, type=PATH, metavar="RUN..."
    ),
    Option(
        "--seeds",
        "compare the recipes of the runs under this number of seeds, 3 or more, as 'train --seeds' made them",
        type=Whole(1),
        default=1,
    ),
    flag("--train-missing", "train the seeds that a run does not have"),
    *rows_options(
        "the first run",
        Option(
            "--split",
            "the split on which to evaluate; default: validation, or test if there is no validation split",
            metavar="SPLIT",
        ),
    ),
    show=print_comparison,
)
def compare(runs: Sequence[str], split: str | None, **options: Any) -> dict[str, Any]:
    """Compares runs, or recipes."""
    from bertlora.cli.display import TrainingDisplay
    from bertlora.pipeline.compare import compare

    with TrainingDisplay().shown() as display:
        return compare(runs, split=split or "", on_progress=say, on_event=display, **options)


def show_report(found: dict[str, Any]) -> None:
    """Prints the path of the report."""
    print(found["report"])


@verb(
    "Evaluate a run, or several, and write one HTML file.",
    "bertlora report runs/a --split test",
    Argument(
        "runs",
        text="a run folder, or several to compare on the same rows",
        nargs=-1,
        required=True,
        type=PATH,
        metavar="RUN...",
    ),
    *rows_options(
        "the (first) run",
        Option(
            "--split",
            "the split on which to evaluate; default: test for one run, validation for several",
            metavar="SPLIT",
        ),
    ),
    SLICE_COLUMN,
    Option(
        "--audit",
        "the CSV file that 'bertlora audit DATA --out FILE' wrote, for the doubtful labels",
        type=PATH,
        metavar="FILE",
    ),
    Option(
        "--out",
        "the file to write; default: RUN/report.html, or RUN/comparison.html in the first of several runs",
        type=PATH,
        metavar="FILE",
    ),
    OVERWRITE_FILE,
    show=show_report,
)
def report(runs: Sequence[str], split: str | None, **options: Any) -> dict[str, Any]:
    """Writes the report of a run, or of several."""
    from bertlora.pipeline.report import report

    return report(runs, split=split or "", on_progress=say, **options)
