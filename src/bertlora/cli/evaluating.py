"""The verbs that evaluate runs: evaluate, compare, report."""

from collections.abc import Sequence
from typing import Any

from bertlora.cli.console import say
from bertlora.cli.metrics import print_comparison, print_evaluation
from bertlora.cli.options import OVERWRITE_FILE, PATH, RUN, SPLIT, Option, rows_options
from bertlora.cli.verb import Argument, verb


@verb(
    "Evaluate base, linear probe and LoRA on the same rows.",
    "bertlora evaluate runs/a --split test",
    RUN,
    *rows_options("the run", SPLIT),
    show=print_evaluation,
)
def evaluate(run: str, **options: Any) -> dict[str, Any]:
    """Evaluates a run."""
    from bertlora.pipeline.evaluate import evaluate

    found = evaluate(run, **options)
    if found["caution"]:
        say(f"caution, {run}: {found['caution']}")
    return found


@verb(
    "Compare runs on the same rows, every pair with a paired test.",
    "bertlora compare runs/a runs/b --split test",
    Argument(
        "runs", text="run folders, or adapters that PEFT saved", nargs=-1, required=True, type=PATH, metavar="RUN..."
    ),
    *rows_options("the first run", SPLIT),
    show=print_comparison,
)
def compare(runs: Sequence[str], **options: Any) -> dict[str, Any]:
    """Compares runs."""
    from bertlora.pipeline.compare import compare

    return compare(runs, on_progress=say, **options)


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
            "the split on which to evaluate; default: test, or validation if there is no test split",
            metavar="SPLIT",
        ),
    ),
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
