"""From facts to what a reader reads: sentences, and tables whose cells are texts."""

from collections.abc import Sequence
from typing import Any

from bertlora.data.checks.naming import named_rows

Table = dict[str, Any]

LARGEST_MATRIX = 20
COMMON = 15
ROWS_NAMED = 5

MORE_FIGURES = {
    "balanced_accuracy": "balanced accuracy",
    "weighted_f1": "weighted F1",
    "matthews": "Matthews correlation",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "brier": "Brier score",
}


# What to say of rows that the run has met before.
CAUTIONS = {
    "": "",
    "validation": "Epoch and temperature were chosen by these rows, which flatters the figures a little.",
    "train": "The run has learned from these rows, so the figures say nothing of new texts.",
    "other": "The run learned from different data, which may hold these rows too; see that they do not.",
}


def verdict_view(part: Table) -> Table:
    """Returns the verdict with the table of the figures that the chart does not show."""
    caution, more = CAUTIONS[part["met"]], more_figures(part["classifiers"])
    return part | split_sentence(part["sentence"]) | {"caution": caution, "more": more}


def split_sentence(sentence: str) -> Table:
    """Returns a verdict in two: what it says in `large` letters, and the test behind it in `small` ones."""
    start, sign, end = sentence.rpartition(" (McNemar")  # a name in the sentence may hold brackets too
    if not sign:
        return {"large": sentence, "small": ""}
    return {"large": f"{start}.", "small": f"McNemar{end}".replace(")", "", 1)}


def more_figures(classifiers: Sequence[Table]) -> Table:
    """Returns the figures of each classifier that stand in no chart."""
    rows = [[c["name"], *(_figure(c[key]) for key in MORE_FIGURES)] for c in classifiers]
    return {"columns": ["", *MORE_FIGURES.values()], "rows": rows}


def confusion_view(lora: Table) -> Table:
    """Returns the confusion matrix with the share of each cell in its row, and the most frequent confusions.

    The matrix is left out where it has more classes than a page takes; the confusions where there are but two.
    """
    labels, counts = list(lora["per_class"]), lora["confusion"]
    rows = [
        {
            "label": label,
            "cells": [
                {"count": count, "share": count / max(sum(line), 1), "right": i == j} for j, count in enumerate(line)
            ],
        }
        for i, (label, line) in enumerate(zip(labels, counts, strict=True))
    ]
    mistakes = [(line[j], i, j) for i, line in enumerate(counts) for j in range(len(labels)) if i != j and line[j]]
    common = [
        [labels[i], labels[j], f"{count:,}", in_percent(count / sum(counts[i]))]
        for count, i, j in sorted(mistakes, key=lambda found: -found[0])[:COMMON]
    ]
    return {
        "labels": labels,
        "rows": rows if len(labels) <= LARGEST_MATRIX else [],
        "common": common if len(labels) > 2 else [],
    }


def class_view(lora: Table) -> Table:
    """Returns precision, recall, F1 and support of each class."""
    rows = [
        [label, *(f"{line[key]:.3f}" for key in ("precision", "recall", "f1")), f"{line['support']:,}"]
        for label, line in lora["per_class"].items()
    ]
    return {"columns": ["class", "precision", "recall", "F1", "support"], "rows": rows}


def calibration_sentence(part: Table) -> str:
    """Returns what the calibration errors say."""
    before = part["before"]["ece"]
    said = f"On average its confidence misses its accuracy by {100 * before:.1f} points as trained"
    if part["after"] is None:
        return said + "; no temperature was fitted."
    after = part["after"]["ece"]
    fitted = "" if part["met"] != "validation" else " It was fitted on these rows, which flatters the second figure."
    return said + f", and by {100 * after:.1f} at temperature {part['temperature']:.2f}, which predict uses.{fitted}"


def length_view(part: Table) -> Table:
    """Returns what of the texts is read, as a sentence and a table."""
    over = f"over {part['room']:,} tokens"
    rows = [
        ["all", f"{part['n']:,}", in_percent(1.0)],
        [over, f"{part['over']:,}", in_percent(part["over_share"])],
        ["of which something is not read", f"{part['cut']:,}", in_percent(part["cut_share"])],
        ["share of tokens not read", "", in_percent(part["tokens_lost_share"])],
    ]
    names = {"truncate": "so it is when cut", "windows": "so it is in windows"}
    rows += [[names[way], "", in_percent(found["tokens_lost_share"])] for way, found in part["ways"].items()]
    return {"sentence": length_sentence(part), "rows": rows}


def length_sentence(part: Table) -> str:
    """Returns in a sentence or two what of the texts is read."""
    start = f"The median text has {part['median']:,.0f} tokens, the longest {part['longest']:,}."
    if not part["over"]:
        return f"{start} All fit into {part['max_length']:,} tokens with the special ones: nothing is cut."
    over = f"{in_percent(part['over_share'])} of the texts are longer than the {part['room']:,} that fit"
    lost = f"{in_percent(part['tokens_lost_share'])} of all tokens"
    if part["long_texts"] == "windows":
        rest = f"{lost} lie between the windows of very long texts" if part["cut"] else "nothing is lost"
        return f"{start} {over} and are read in overlapping windows: {rest}. {_cost_of_windows(part)}"
    ends = {"right": "their end is", "left": "their start is", "head-tail": "their middle is"}[part["truncation"]]
    return f"{start} {over}; {ends} cut, which loses {lost}. {_cost_of_windows(part)}".rstrip()


def _cost_of_windows(part: Table) -> str:
    """Returns in a sentence how much more windows run; nothing where texts cannot be read in them."""
    if "windows" not in part["ways"]:
        return ""
    times = part["ways"]["windows"]["run_share"] / part["ways"]["truncate"]["run_share"]
    return f"Windows run {times:.2f} times the tokens that cutting runs."


def doubtful_view(rows: list[Table] | None) -> Table | list[Any] | None:
    """Returns the doubtful labels as a table."""
    if not rows:
        return rows
    columns = ["row", "given", "suggested", "confidence"]
    cells = [[f"{r['row']:,}", str(r["given"]), str(r["suggested"]), f"{r['confidence']:.3f}"] for r in rows]
    if any(r.get("text") for r in rows):
        columns.insert(1, "text")
        for line, row in zip(cells, rows, strict=True):
            line.insert(1, opening(row.get("text") or ""))
    words = [i for i, name in enumerate(columns) if name in ("text", "given", "suggested")]
    return {"columns": columns, "rows": cells, "words": words}


def check_view(part: Table) -> Table:
    """Returns what was found in the data as a table."""
    sizes = ", ".join(f"{n:,} {split}" for split, n in part["rows"].items())
    found = [
        [check["name"].replace("_", " "), check["severity"], f"{check['count']:,}", _rows(check), check["advice"]]
        for check in part["found"]
    ]
    return {"sentence": f"{sum(part['rows'].values()):,} rows: {sizes}.", "found": found, "notes": part["notes"]}


def recipe_view(rows: list[Table]) -> Table:
    """Returns the recipe as two tables: what differs from the recipe `default`, and every key."""
    return {
        "changed": [[r["key"], opening(r["value"], 100), r["usual"], r["help"]] for r in rows if r["differs"]],
        "all": [[r["key"], r["value"], r["help"]] for r in rows],
    }


def origin_view(part: Table) -> list[tuple[str, str]]:
    """Returns name and value of what the run was made from."""
    versions = ", ".join(f"{name} {version}" for name, version in part["versions"].items())
    lines = [
        ("Base model", part["base"] + (f", revision {part['revision']}" if part["revision"] else "")),
        ("SHA-256 of its weights", part["sha256"]),
        ("Fingerprint of the data", part["fingerprint"]),
        ("Labels, in the order of the logits", ", ".join(part["labels"])),
        ("Seed", str(part["seed"])),
        ("Versions", versions),
        ("Run finished", part["finished"] or ""),
        ("Report written", part["written"]),
    ]
    return [(name, value) for name, value in lines if value]


def opening(text: str, most: int = 160) -> str:
    """Returns the start of a text in one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[:most].rsplit(" ", 1)[0] + " …"


def in_percent(share: float) -> str:
    """Returns a fraction as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def interval(ends: Sequence[float]) -> str:
    """Returns an interval of fractions in per cent: `81.0 to 85.9`."""
    return " to ".join(f"{100 * end:.1f}" for end in ends)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _rows(check: Table) -> str:
    """Returns the first rows of a check as people read them: `train 12, 40; test 3, …`."""
    return named_rows(check, ROWS_NAMED) + (", …" if len(check["rows"]) > ROWS_NAMED else "")
