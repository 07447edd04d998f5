"""Evaluations and comparisons as people read them."""

from collections.abc import Mapping
from typing import Any

NAMES = {"base": "base", "probe": "linear probe", "lora": "LoRA"}
METRICS = {"macro_f1": "macro F1", "matthews": "Matthews", "roc_auc": "ROC AUC", "loss": "log loss", "ece": "ECE"}


def print_evaluation(result: dict[str, Any]) -> None:
    """Prints the verdict, the classifiers, LoRA's metrics by class, its confusion matrix, and four summary lines."""
    from bertlora.evaluation.verdict import legacy_lines

    print(result["verdict"])
    print(f"\n{result['n']:,} rows ({result['where']})\n")
    print_classifiers({name: result[key] for key, name in NAMES.items() if result[key]})
    _print_classes(result["lora"])
    print("\n".join(legacy_lines(result)))


def print_comparison(result: dict[str, Any]) -> None:
    """Prints the runs by rank, and every pair with its test."""
    from bertlora.cli.console import print_table
    from bertlora.evaluation.side_by_side import PAIR_COLUMNS, pair_note, pair_rows

    print(f"Ranking on {result['n']:,} rows ({result['where']}):\n")
    print_classifiers({run: result["runs"][run] for run in result["ranking"]})
    print("Every pair of runs:\n")
    print_table(PAIR_COLUMNS, pair_rows(result["ranking"], result["pairs"]))
    print(pair_note(len(result["pairs"])))


def print_classifiers(classifiers: Mapping[str, dict[str, Any]]) -> None:
    """Prints a table with a row for each classifier: accuracy with its interval, and other metrics."""
    from bertlora.cli.console import print_table

    rows = []
    for name, figures in classifiers.items():
        low, high = figures["accuracy_ci95"]
        row = [name, f"{100 * figures['accuracy']:.2f} %", f"{100 * low:.1f} to {100 * high:.1f}"]
        rows.append([*row, *("" if figures[key] is None else f"{figures[key]:.4f}" for key in METRICS)])
    print_table(["", "accuracy", "95 % CI", *METRICS.values()], rows)


def _print_classes(figures: dict[str, Any]) -> None:
    """Prints the metrics by class, and the confusion matrix."""
    from bertlora.cli.console import print_table

    rows = [
        [label, f"{f['precision']:.3f}", f"{f['recall']:.3f}", f"{f['f1']:.3f}", f["support"]]
        for label, f in figures["per_class"].items()
    ]
    print_table(["LoRA, class", "precision", "recall", "F1", "support"], rows)
    labels = list(figures["per_class"])
    confusion = [[label, *row] for label, row in zip(labels, figures["confusion"], strict=True)]
    print_table(["true \\ predicted", *labels], confusion)
