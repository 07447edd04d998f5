"""The verbs that evaluate runs: evaluate, compare, report."""

from collections.abc import Sequence
from typing import Any

import click

from bertlora.cli.console import say, show
from bertlora.cli.floors import Floor, FloorType, check_floors, check_not_worse
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
    click.Option(
        ["--fail-under", "floors"],
        type=FloorType(),
        multiple=True,
        metavar="METRIC=X",
        help="exit with status 1 if LoRA's metric is lower, such as accuracy=0.85; accuracy_low: the lower end of "
        "its 95 % interval; may be repeated",
    ),
    show=print_evaluation,
    messages=True,
)
def evaluate(run: str, floors: Sequence[Floor], **options: Any) -> dict[str, Any]:
    """Evaluates a run."""
    from bertlora.pipeline.evaluate import evaluate

    found = evaluate(run, **options)
    if found["caution"]:
        say(f"caution, {run}: {found['caution']}")
    for note in found["notes"]:
        say(f"note: {note}")
    check_floors(found, floors)
    return found


@verb(
    "Compare runs on the same rows, every pair with a paired test; or the shadows of a server.",
    "bertlora compare runs/a runs/b --seeds 5",
    Argument(
        "runs",
        text="run folders, or adapters that PEFT saved; or one file, which 'serve --shadow-log' wrote",
        nargs=-1,
        required=True,
        type=PATH,
        metavar="RUN...",
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
    flag("--fail-if-worse", "exit with status 1 if the first run is significantly worse than another one"),
    show=print_comparison,
    messages=True,
)
def compare(runs: Sequence[str], split: str | None, fail_if_worse: bool, **options: Any) -> dict[str, Any]:
    """Compares runs, or recipes."""
    from bertlora.cli.display import TrainingDisplay
    from bertlora.pipeline.compare import compare

    with TrainingDisplay().shown() as display:
        found = compare(runs, split=split or "", on_progress=say, on_event=display, **options)
    if fail_if_worse and "pairs" in found:
        check_not_worse(found, runs[0])
    return found


def show_report(found: dict[str, Any]) -> None:
    """Prints the path of the report."""
    show(found["report"])


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
    messages=True,
)
def report(runs: Sequence[str], split: str | None, **options: Any) -> dict[str, Any]:
    """Writes the report of a run, or of several."""
    from bertlora.pipeline.report import report

    return report(runs, split=split or "", on_progress=say, **options)
