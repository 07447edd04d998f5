"""The verbs that judge runs: evaluate, compare."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertlora.cli.inputs import judged_folder, judging_flags, labelled_rows, own_data, say_met, usual_split
from bertlora.cli.registry import RUN, Arguments, flag, flags, verb
from bertlora.errors import InputError

if TYPE_CHECKING:
    from bertlora.evaluation.verdict import Judged
    from bertlora.run import Run

SPLIT = flag("--split", "which split to judge by; default: test", default="test")


@verb(
    "evaluate",
    "base, linear probe and LoRA on the same rows",
    "bertlora evaluate runs/a --split test",
    flags(
        RUN,
        judging_flags("the run", SPLIT),
    ),
)
def evaluate(args: Arguments) -> None:
    """Judges a run."""
    from bertlora.cli import console
    from bertlora.evaluation.verdict import figures, judge_rows
    from bertlora.model.precision import choose_precision
    from bertlora.run import Run

    run = Run.load(args.run, args.model or "")
    rows, name = labelled_rows(args, run)
    say_met(args, run)
    result = figures(judge_rows(run, rows, choose_precision(args.precision, run.adapted.architecture)))
    if args.json:
        console.print_json(result)
    else:
        print_evaluation(result, name)


@verb(
    "compare",
    "runs side by side on the same rows, every pair with a paired test",
    "bertlora compare runs/a runs/b --split test",
    flags(
        flag("runs", "run folders, or adapters that PEFT saved", nargs="+", metavar="RUN"),
        judging_flags("the first run", SPLIT),
    ),
)
def compare(args: Arguments) -> None:
    """Compares runs."""
    from bertlora.cli import console
    from bertlora.evaluation.side_by_side import side_by_side

    check_different(args.runs)
    _, judged, name = judged_runs(args)
    result = side_by_side(judged)
    if args.json:
        console.print_json(result)
        return
    print(f"{result['n']:,} rows ({name})\n")
    print_figures(result["runs"])
    for pair in result["pairs"]:
        holm = f" With {len(result['pairs'])} pairs tested, p = {pair['mcnemar_p_holm']:.2g} (Holm)."
        print(pair["verdict"] + (holm if len(result["pairs"]) > 1 else ""))


def check_different(runs: Sequence[str]) -> None:
    """Raises InputError for fewer than two runs, and for a folder named twice, in whatever way."""
    if len(runs) < 2 or len({Path(name).resolve() for name in runs}) < len(runs):
        raise InputError(f"RUN: got {' '.join(runs)}, expected two different runs or more")


def judged_runs(args: Arguments) -> tuple[dict[str, "Run"], dict[str, "Judged"], str]:
    """Returns the runs and what each makes of the same rows, by the folders they were named by; and what the rows are.

    The rows are those of `--data`, or of the first run.
    """
    from bertlora.cli.console import say
    from bertlora.evaluation.verdict import Judged
    from bertlora.model.precision import choose_precision
    from bertlora.run import Run

    runs, judged, where, own = {}, {}, "", not args.data
    for name in args.runs:
        run = runs[name] = Run.load(name, args.model or "")
        args.split = args.split or usual_split(args, run)
        args.data = args.data or [str(own_data(run))]
        rows, where = labelled_rows(args, run)
        say_met(args, run)
        say(f"judging {len(rows):,} rows by {name}")
        scores = run.adapted.logits(rows.inputs, precision=choose_precision(args.precision, run.adapted.architecture))
        judged[name] = Judged(run.manifest.labels, rows.labels, {"lora": scores}, run.adapted.temperature)
    sources = judged_folder(args, run) is None  # of prepared data, `say_met` has told it of each run
    if sources and len({run.manifest.data.get("fingerprint") for run in runs.values()}) > 1:
        say("the runs learned from different data; see that none has learned from these rows")
    return runs, judged, f"{args.split} split of the data of {args.runs[0]}" if own else where


def print_evaluation(result: dict[str, Any], where: str) -> None:
    """Prints base, probe and LoRA: the four lines, the table, the report a class, the confusion matrix, the verdict."""
    from bertlora.evaluation.report.facts import NAMES

    base, lora = result["base"]["accuracy"], result["lora"]["accuracy"]
    print(f"{result['n']:,} rows ({where})\n")
    print(f"Base BERT Accuracy: {base:.4f} ({100 * base:.2f}%)")
    print(f"BERT + LoRA Accuracy: {lora:.4f} ({100 * lora:.2f}%)")
    print(f"Improvement: {result['improvement_points']:.2f} percentage points")
    relative = result["improvement_relative_percent"]
    print(f"Relative Improvement: {'not defined, the base is never right' if relative is None else f'{relative:.2f}%'}")
    print_figures({name: result[key] for key, name in NAMES.items() if result[key]})
    _print_classes(result["lora"])
    print(result["verdict"])


def print_figures(judged: dict[str, dict[str, Any]]) -> None:
    """Prints a table of classifiers, a line each: accuracy with its interval, and the other figures."""
    from bertlora.cli import console

    others = {"macro_f1": "macro F1", "matthews": "Matthews", "roc_auc": "ROC AUC", "loss": "log loss", "ece": "ECE"}
    rows = []
    for name, figures in judged.items():
        low, high = figures["accuracy_ci95"]
        row = [name, f"{100 * figures['accuracy']:.2f} %", f"{100 * low:.1f} to {100 * high:.1f}"]
        rows.append([*row, *("" if figures[key] is None else f"{figures[key]:.4f}" for key in others)])
    console.print_table(["", "accuracy", "95 % interval", *others.values()], rows)


def _print_classes(figures: dict[str, Any]) -> None:
    from bertlora.cli import console

    rows = [
        [label, f"{f['precision']:.3f}", f"{f['recall']:.3f}", f"{f['f1']:.3f}", f["support"]]
        for label, f in figures["per_class"].items()
    ]
    console.print_table(["LoRA, class", "precision", "recall", "F1", "support"], rows)
    labels = list(figures["per_class"])
    console.print_table(
        ["given \\ predicted", *labels],
        [[label, *row] for label, row in zip(labels, figures["confusion"], strict=True)],
    )
