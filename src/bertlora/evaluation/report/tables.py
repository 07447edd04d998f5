"""From facts to text: sentences, and tables whose cells are strings."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from bertlora.data.checks import named_rows
from bertlora.evaluation.class_tables import (
    CLASS_COLUMNS,
    CONFUSION_COLUMNS,
    FEW,
    class_rows,
    class_sentence,
    confusion_rows,
    confusion_sentence,
    first_sentence,
    foldable,
)
from bertlora.evaluation.scores import LARGEST_MATRIX
from bertlora.evaluation.slices import SLICE_COLUMNS, slice_rows
from bertlora.evaluation.verdict import source_of

Table = dict[str, Any]

ROWS_NAMED = 5
SLICES = 10  # shown; the others are folded
MOST_NAMED = 4  # classes in a headline

MORE_FIGURES = {
    "top_3_accuracy": "top 3 accuracy",
    "top_5_accuracy": "top 5 accuracy",
    "balanced_accuracy": "balanced accuracy",
    "weighted_f1": "weighted F1",
    "matthews": "Matthews correlation",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "brier": "Brier score",
}


def headline(facts: Table, best: str = "") -> str:
    """Returns the task, the data and the accuracy; `best` names the best of several runs."""
    task, found = facts["task"], facts["verdict"]
    text = f"{task_name(task)}: "
    if not found:
        return text + (f"trained on {task['data']}" if task["data"] else "no accuracy measured")
    accuracy = in_percent(found["classifiers"][-1]["accuracy"])
    rows = f"{accuracy} accuracy{best and f' with {best}'} on {found['n']:,} {found['rows_name']}"
    source = source_of(found["where"])
    data = _short(source) if source else task["data"]
    return text + rows + (f" of {data}" if data else "")


def _short(source: str) -> str:
    """Returns the file name of a source; several sources are returned unchanged."""
    return source if " " in source else PurePath(source).name


def task_name(task: Table) -> str:
    """Returns the task in words: `Classify texts as negative or positive`, `Classify text pairs into 14 classes`."""
    texts, labels = "text pairs" if task["pairs"] else "texts", [opening(label, 30) for label in task["labels"]]
    if len(labels) > MOST_NAMED:
        return f"Classify {texts} into {len(labels)} classes"
    return f"Classify {texts} as {', '.join(labels[:-1])} or {labels[-1]}"


def verdict_view(part: Table) -> Table:
    """Returns the verdict by sentences, and the metrics that the chart does not show."""
    first, *others = part["sentence"].split("\n")
    others += filter(None, [first_sentence(part["classifiers"][-1])])
    return part | {"large": first, "others": others, "more": more_figures(part["classifiers"])}


def more_figures(classifiers: Sequence[Table]) -> Table:
    """Returns the metrics of each classifier that no chart shows, and how long it took to train if that is known."""
    timed = any("training_seconds" in c for c in classifiers)
    names = {key: name for key, name in MORE_FIGURES.items() if any(key in c for c in classifiers)}
    rows = [[c["name"], *(_figure(c.get(key)) for key in names), *[_seconds(c)] * timed] for c in classifiers]
    return {"columns": ["", *names.values(), *["training"] * timed], "rows": rows}


def _seconds(classifier: Table) -> str:
    return f"{classifier['training_seconds']:,.1f} s" if "training_seconds" in classifier else ""


def confusion_view(lora: Table) -> Table:
    """Returns the confusion matrix, with each cell's share of its row, and the most frequent confusions.

    The matrix is left out if there are more than 20 classes, the confusions if there are only two.
    """
    labels = list(lora["per_class"])
    rows = [
        {
            "label": label,
            "cells": [
                {"count": count, "share": count / max(sum(line), 1), "right": i == j} for j, count in enumerate(line)
            ],
        }
        for i, (label, line) in enumerate(zip(labels, lora["confusion"] or [], strict=False))
    ]
    return {
        "labels": labels,
        "rows": rows if len(labels) <= FEW else [],
        "columns": CONFUSION_COLUMNS,
        "common": confusion_rows(lora),
        "others": confusion_sentence(lora),
    }


def class_view(lora: Table) -> Table:
    """Returns precision, recall, F1 and support of each class; over 20 classes the worst 20, and all up to 100."""
    rows = class_rows(lora["per_class"])
    return {
        "columns": CLASS_COLUMNS,
        "first": rows[:FEW],
        "all": foldable(rows),
        "sentence": " ".join(filter(None, [class_sentence(len(rows)), _elsewhere(len(rows))])),
    }


def _elsewhere(classes: int) -> str:
    return "The command evaluate --json gives all of them." if classes > LARGEST_MATRIX else ""


def slice_view(part: Table) -> Table:
    """Returns the slices as a sentence and a table: the first ten, and all."""
    rows = slice_rows(part["found"])
    return {"sentence": part["verdict"], "columns": SLICE_COLUMNS, "first": rows[:SLICES], "all": rows}


def length_view(part: Table) -> Table:
    """Returns how much of the texts is read, as a sentence and a table."""
    over = f"over {part['room']:,} tokens"
    rows = [
        ["all", f"{part['n']:,}", in_percent(1.0)],
        [over, f"{part['over']:,}", in_percent(part["over_share"])],
        ["not read completely", f"{part['cut']:,}", in_percent(part["cut_share"])],
        ["tokens not read", "", in_percent(part["tokens_lost_share"])],
    ]
    names = {"truncate": "tokens not read, if cut", "windows": "tokens not read, in windows"}
    rows += [[names[way], "", in_percent(found["tokens_lost_share"])] for way, found in part["ways"].items()]
    return {"sentence": length_sentence(part), "rows": rows}


def length_sentence(part: Table) -> str:
    """Returns how much of the texts is read, in one to three sentences."""
    start = f"The median text has {part['median']:,.0f} tokens, the longest {part['longest']:,}."
    if not part["over"]:
        return f"{start} All texts fit into {part['max_length']:,} tokens (with special tokens): nothing is cut."
    over = f"{in_percent(part['over_share'])} of the texts are longer than {part['room']:,} tokens"
    lost = f"{in_percent(part['tokens_lost_share'])} of all tokens"
    if part["long_texts"] == "windows":
        rest = f"{lost} are not read, in very long texts" if part["cut"] else "all tokens are read"
        return f"{start} {over} and are read in overlapping windows: {rest}. {_cost_of_windows(part)}"
    ends = {"right": "The end", "left": "The start", "head-tail": "The middle"}[part["truncation"]]
    return f"{start} {over}. {ends} is cut: {lost} are lost. {_cost_of_windows(part)}".rstrip()


def _cost_of_windows(part: Table) -> str:
    """Returns how many more tokens windows process; empty if the texts cannot be read in windows."""
    if "windows" not in part["ways"]:
        return ""
    times = part["ways"]["windows"]["run_share"] / part["ways"]["truncate"]["run_share"]
    process = "process" if part["long_texts"] == "windows" else "would process"
    return f"Windows {process} {times:.2f} times as many tokens as truncation."


def doubtful_view(rows: list[Table] | None) -> Table | list[Any] | None:
    """Returns the doubtful labels as a table."""
    if not rows:
        return rows
    columns = ["row", "label", "suggested", "confidence"]
    cells = [[f"{r['row']:,}", str(r["given"]), str(r["suggested"]), f"{r['confidence']:.3f}"] for r in rows]
    if any(r.get("text") for r in rows):
        columns.insert(1, "text")
        for line, row in zip(cells, rows, strict=True):
            line.insert(1, opening(row.get("text") or ""))
    words = [i for i, name in enumerate(columns) if name in ("text", "label", "suggested")]
    return {"columns": columns, "rows": cells, "words": words}


def check_view(part: Table) -> Table:
    """Returns the findings in the data as a table."""
    sizes = ", ".join(f"{n:,} {split}" for split, n in part["rows"].items())
    found = [
        [check["name"].replace("_", " "), check["severity"], f"{check['count']:,}", _rows(check), check["advice"]]
        for check in part["found"]
    ]
    return {"sentence": f"{sum(part['rows'].values()):,} rows: {sizes}.", "found": found, "notes": part["notes"]}


def recipe_view(rows: list[Table]) -> Table:
    """Returns the recipe as two tables: the keys that differ from the recipe `default`, and all keys."""
    return {
        "changed": [[r["key"], opening(r["value"], 100), r["usual"], r["help"]] for r in rows if r["differs"]],
        "all": [[r["key"], r["value"], r["help"]] for r in rows],
    }


def origin_view(part: Table) -> list[tuple[str, str]]:
    """Returns names and values of the origin of a run."""
    versions = ", ".join(f"{name} {version}" for name, version in part["versions"].items())
    lines = [
        ("Base model", part["base"] + (f", revision {part['revision']}" if part["revision"] else "")),
        ("SHA-256 of its weights", part["sha256"]),
        ("Fingerprint of the data", part["fingerprint"]),
        ("Labels, in the order of the logits", _listed(part["labels"])),
        ("Seed", str(part["seed"])),
        ("Versions", versions),
        ("Run finished", part["finished"] or ""),
        ("Report written", part["written"]),
    ]
    return [(name, value) for name, value in lines if value]


def _listed(labels: Sequence[str]) -> str:
    """Returns labels as a list, cut where no one reads on."""
    more = f" and {len(labels) - LARGEST_MATRIX:,} more, in run.json" if len(labels) > LARGEST_MATRIX else ""
    return ", ".join(labels[:LARGEST_MATRIX]) + more


def opening(text: str, most: int = 160) -> str:
    """Returns the beginning of a text on one line, at most `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[:most].rsplit(" ", 1)[0] + " …"


def in_percent(share: float) -> str:
    """Returns a fraction as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def interval(ends: Sequence[float]) -> str:
    """Returns an interval of fractions in percent: `81.0 to 85.9`."""
    return " to ".join(f"{100 * end:.1f}" for end in ends)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _rows(check: Table) -> str:
    """Returns the first rows of a check as text: `train 12, 40; test 3, …`."""
    return named_rows(check, ROWS_NAMED) + (", …" if len(check["rows"]) > ROWS_NAMED else "")
