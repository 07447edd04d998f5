"""Evaluations and comparisons as people read them."""

from collections.abc import Mapping
from typing import Any

from bertlora.cli.console import show
from bertlora.task import MULTILABEL, REGRESSION

NAMES = {"base": "base", "probe": "linear probe", "tfidf": "TF-IDF", "lora": "LoRA"}
METRICS = {
    "macro_f1": "macro F1",
    "matthews": "Matthews",
    "roc_auc": "ROC AUC",
    "loss": "log loss",
    "ece": "ECE",
    "ece_floor": "ECE by chance",
}
SLICES_SHOWN = 5


def print_evaluation(result: dict[str, Any]) -> None:
    """Prints the verdict, the classifiers, LoRA's metrics by class and slice, its confusion matrix, and four lines."""
    from bertlora.evaluation.verdict import legacy_lines

    show(result["verdict"])
    show(f"\n{result['n']:,} rows ({result['where']}), in {result['precision']}\n")
    if result["task"] == REGRESSION:
        _print_values(result)
        return
    if result["task"] == MULTILABEL:
        _print_labels(result)
        return
    print_classifiers({name: result[key] for key, name in NAMES.items() if result[key]})
    _print_choosing(result.get("best_metric", ""), result["lora"])
    _print_classes(result["lora"])
    _print_slices(result["slices"])
    show("\n".join(legacy_lines(result)))


def _print_values(result: dict[str, Any]) -> None:
    """Prints the models of a regression, the coverage of the intervals, and LoRA's errors by slice."""
    from bertlora.cli.console import print_table
    from bertlora.evaluation.value_slices import VALUE_SLICE_COLUMNS, error_slice_rows

    print_models({name: result[key] for key, name in NAMES.items() if result[key]})
    if result["coverage"]:
        columns = ["intervals for", "contain the truth", "95 % CI", "plus or minus"]
        print_table(columns, [_coverage_cells(line) for line in result["coverage"]])
    show(f"{result['slices']['verdict']}\n")
    if result["slices"]["worse"]:
        print_table(VALUE_SLICE_COLUMNS, error_slice_rows(result["slices"]["found"][:SLICES_SHOWN]))


def _coverage_cells(line: dict[str, Any]) -> list[str]:
    low, high = line["covered_ci95"]
    covered = [f"{100 * line['covered']:.1f} %", f"{100 * low:.1f} to {100 * high:.1f}"]
    return [f"{100 * line['level']:.0f} %", *covered, f"{line['half_width']:.4g}"]


def print_models(models: Mapping[str, dict[str, Any]]) -> None:
    """Prints a table with a row for each model of a regression: RMSE with its interval, and other figures."""
    from bertlora.cli.console import print_table
    from bertlora.confidence.agreement import FIGURE_NAMES

    others = [key for key in FIGURE_NAMES if key != "rmse"]
    rows = []
    for name, figures in models.items():
        low, high = figures["rmse_ci95"]
        row = [name, f"{figures['rmse']:.4g}", f"{low:.4g} to {high:.4g}"]
        row += ["" if figures[key] is None else f"{figures[key]:.4g}" for key in others]
        rows.append([*row, f"{figures['training_seconds']:,.1f} s" if "training_seconds" in figures else ""])
    print_table(["", "RMSE", "95 % CI", *(FIGURE_NAMES[key] for key in others), "training"], rows)


def _print_labels(result: dict[str, Any]) -> None:
    """Prints the models of several labels, LoRA's figures of each label, and its subset accuracy by slice."""
    from bertlora.cli.console import print_table
    from bertlora.evaluation.label_tables import LABEL_COLUMNS, label_rows

    print_label_models({name: result[key] for key, name in NAMES.items() if result[key]})
    print_table(["LoRA, label", *LABEL_COLUMNS[1:]], label_rows(result["lora"]["per_label"]))
    _print_slices(result["slices"])


def print_label_models(models: Mapping[str, dict[str, Any]]) -> None:
    """Prints a table with a row for each model of several labels: macro F1 with its interval, and other figures."""
    from bertlora.cli.console import print_table
    from bertlora.evaluation.label_tables import MODEL_COLUMNS, model_row

    print_table(["", *MODEL_COLUMNS], [model_row(name, figures) for name, figures in models.items()])


def print_comparison(result: dict[str, Any]) -> None:
    """Prints the runs by rank, every pair with its test, and what choosing the best costs; or shadows."""
    if "shadows" in result:
        _print_shadows(result)
        return
    show(f"Ranking on {result['n']:,} rows ({result['where']}):\n")
    if "seeds" in result:
        _print_recipes(result)
    elif result.get("task") == REGRESSION:
        _print_value_runs(result)
    elif result.get("task") == MULTILABEL:
        _print_label_runs(result)
    else:
        _print_runs(result)
    show("\n".join(filter(None, [(result.get("choice") or {}).get("sentence"), result["note"]])))


def _print_shadows(result: dict[str, Any]) -> None:
    """Prints how often each candidate agreed with its adapter, and whether to promote it."""
    from bertlora.cli.console import print_table

    columns = ["adapter", "candidate", "texts", "agreed", "disagreed", "labelled", "unlabelled"]
    rows = [[found[key] for key in columns] for found in result["shadows"]]
    for row, found in zip(rows, result["shadows"], strict=True):
        row.append("" if found["agreement"] is None else f"{100 * found['agreement']:.2f} %")
    print_table([*columns, "agreement"], rows)
    for found in result["shadows"]:
        show(f"{found['adapter']}: {found['verdict']}")
    show(result["note"])


def _print_runs(result: dict[str, Any]) -> None:
    from bertlora.cli.console import print_table
    from bertlora.evaluation.side_by_side import PAIR_COLUMNS, pair_note, pair_rows

    print_classifiers({run: result["runs"][run] for run in result["ranking"]})
    show("Every pair of runs:\n")
    print_table(PAIR_COLUMNS, pair_rows(result["ranking"], result["pairs"]))
    show(pair_note(len(result["pairs"]), result["metric"]))


def _print_value_runs(result: dict[str, Any]) -> None:
    from bertlora.cli.console import print_table
    from bertlora.evaluation.value_pairs import VALUE_PAIR_COLUMNS, VALUE_PAIR_NOTE, value_pair_rows

    print_models({run: result["runs"][run] for run in result["ranking"]})
    show("Every pair of runs:\n")
    print_table(VALUE_PAIR_COLUMNS, value_pair_rows(result["ranking"], result["pairs"]))
    show(VALUE_PAIR_NOTE)


def _print_label_runs(result: dict[str, Any]) -> None:
    from bertlora.cli.console import print_table
    from bertlora.evaluation.label_pairs import LABEL_PAIR_NOTE
    from bertlora.evaluation.side_by_side import PAIR_COLUMNS, pair_rows

    print_label_models({run: result["runs"][run] for run in result["ranking"]})
    show("Every pair of runs:\n")
    print_table(PAIR_COLUMNS, pair_rows(result["ranking"], result["pairs"]))
    show(LABEL_PAIR_NOTE)


def _print_recipes(result: dict[str, Any]) -> None:
    """Prints the recipes by their mean over seeds, and every pair with its test."""
    from bertlora.cli.console import print_table
    from bertlora.evaluation.side_by_side import PAIR_COLUMNS, by_rank, pair_cells

    rows = [[name, *_seed_cells(result["runs"][name])] for name in result["ranking"]]
    columns = [f"mean {result['metric'].replace('_', ' ')}", "95 % CI over seeds", "lowest", "highest"]
    print_table(["", *columns], rows)
    show(f"Every pair, under the seeds {', '.join(map(str, result['seeds']))}:\n")
    pairs = by_rank(result["ranking"], result["pairs"])
    print_table(PAIR_COLUMNS[:-1], [pair_cells(result["ranking"], pair) for pair in pairs])
    show("\n".join(pair["verdict"] for pair in pairs))


def _seed_cells(found: dict[str, Any]) -> list[str]:
    low, high = found["mean_ci95"]
    shown = [f"{100 * value:.2f} %" for value in (found["mean"], min(found["accuracies"]), max(found["accuracies"]))]
    return [shown[0], f"{100 * low:.1f} to {100 * high:.1f}", *shown[1:]]


def print_classifiers(classifiers: Mapping[str, dict[str, Any]]) -> None:
    """Prints a table with a row for each classifier: accuracy with its interval, and other metrics."""
    from bertlora.cli.console import print_table

    rows = []
    for name, figures in classifiers.items():
        low, high = figures["accuracy_ci95"]
        row = [name, f"{100 * figures['accuracy']:.2f} %", f"{100 * low:.1f} to {100 * high:.1f}"]
        row += ["" if figures[key] is None else f"{figures[key]:.4f}" for key in METRICS]
        rows.append([*row, f"{figures['training_seconds']:,.1f} s" if "training_seconds" in figures else ""])
    print_table(["", "accuracy", "95 % CI", *METRICS.values(), "training"], rows)


def _print_choosing(metric: str, figures: dict[str, Any]) -> None:
    """Prints the metric that chose the adapter with its interval, if the table does not have both."""
    names = {"matthews": "Matthews correlation", "f1": f"F1 of '{list(figures['per_class'])[1]}'"}
    if metric in names:
        low, high = figures[f"{metric}_ci95"]
        show(
            f"LoRA's {names[metric]}, which chose the adapter: {figures[metric]:.4f}, 95 % CI {low:.3f} to {high:.3f}\n"
        )


def _print_classes(figures: dict[str, Any]) -> None:
    """Prints the metrics by class and the confusion matrix; over 20 classes the worst ones of both."""
    from bertlora.cli.console import print_table
    from bertlora.evaluation.class_tables import (
        CLASS_COLUMNS,
        CONFUSION_COLUMNS,
        FEW,
        class_rows,
        class_sentence,
        confusion_rows,
        confusion_sentence,
        first_sentence,
    )

    if found := first_sentence(figures):
        show(f"{found}\n")
    labels, rows = list(figures["per_class"]), class_rows(figures["per_class"])
    print_table(["LoRA, class", *CLASS_COLUMNS[1:]], rows[:FEW])
    if len(labels) > FEW:
        show(f"{class_sentence(len(labels))} --json gives all of them.\n\nThe most frequent confusions:\n")
        print_table(CONFUSION_COLUMNS, confusion_rows(figures))
        show(f"{confusion_sentence(figures)}\n")
        return
    confusion = [[label, *row] for label, row in zip(labels, figures["confusion"], strict=True)]
    print_table(["true \\ predicted", *labels], confusion)


def _print_slices(part: dict[str, Any]) -> None:
    """Prints how many slices are worse than the rest, and the first five slices if any is."""
    from bertlora.cli.console import print_table
    from bertlora.evaluation.slices import SLICE_COLUMNS, slice_rows

    show(f"{part['verdict']}\n")
    if part["worse"]:
        print_table(SLICE_COLUMNS, slice_rows(part["found"][:SLICES_SHOWN]))
