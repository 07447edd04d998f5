"""The report of a run that gives several labels: its facts, tables and charts. `facts` and `page` have what is shared.

Letters: N rows, K labels.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bertlora.confidence.probabilities import event_reliability, sigmoid
from bertlora.evaluation.label_tables import LABEL_COLUMNS, MODEL_COLUMNS, label_rows, model_row
from bertlora.evaluation.multilabel import EvaluatedLabels
from bertlora.evaluation.report import tables
from bertlora.evaluation.report.calibration import bin_facts, event_picture
from bertlora.evaluation.report.charts import Picture, intervals
from bertlora.evaluation.report.mistakes import SHOWN, shown_texts
from bertlora.evaluation.report.values import model_facts

if TYPE_CHECKING:
    from bertlora.model.explain import Explanation

Table = dict[str, Any]

# In the order of the report.
NAMES = {"base": "base, untrained head", "probe": "linear probe", "tfidf": "TF-IDF", "lora": "LoRA"}
LABEL_SECTIONS = {
    "verdict": "Verdict",
    "advice": "What to do next",
    "training": "Training",
    "classes": "Label by label",
    "confusion": "Missed and added labels",
    "slices": "Slices",
    "calibration": "Calibration",
    "lengths": "Length and truncation",
    "errors": "Largest errors",
    "checks": "Data checks",
    "recipe": "Recipe",
    "origin": "Origin",
}
LABEL_NOTES = {
    "verdict": "LoRA and simpler models on the same rows: the base model with its untrained head, a linear probe on "
    "the frozen base model, TF-IDF with logistic regression. Macro F1: the mean F1 of the labels. Subset accuracy: the "
    "share of rows whose labels are all right. CI: confidence interval.",
    "advice": "Each with the measured figure behind it.",
    "training": "If the validation loss rises while the training loss falls, the model overfits. F1 in the history is "
    "of a threshold of 0.5.",
    "classes": "LoRA, the lowest F1 first. A text gets a label if its probability is at least the threshold, which was "
    "chosen on the validation rows. Whiskers: exact 95 % CIs.",
    "confusion": "Missed: the row has the label and does not get it. Added: it gets the label and does not have it.",
    "slices": "Subset accuracy of LoRA on parts of the rows, lowest p first. Slices are chosen by their number of "
    "rows, not by their errors. p: Fisher's exact test against the other rows, corrected for the number of slices by "
    "Holm's method. The intervals are not corrected.",
    "calibration": "All labels of all rows together. Below the dotted line the probabilities are too high. Points in "
    "the band are what perfect probabilities would show too. Bars show the number of decisions, whiskers 95 % CIs.",
    "lengths": "In tokens, without special tokens.",
    "errors": "Hard texts, wrong labels, or patterns that the model has not learned.",
}
MOST_BARS = 15
SHOWN_LABELS = 20  # in a table; more are folded
COMMON = 15


def several_label_facts(evaluated: EvaluatedLabels, where: str, caution: str) -> Table:
    """Returns verdict, missed and added labels, and calibration of a run that gives several labels."""
    e = evaluated
    chosen, y_true = e.chosen("lora"), e.y_true
    missed, added = (y_true & ~chosen), (chosen & ~y_true)
    calibrated, raw = e.probabilities("lora"), sigmoid(e.logits["lora"])
    curves = [bin_facts(event_reliability(p.ravel(), y_true.ravel())) for p in (raw, calibrated)]
    return {
        "verdict": model_facts(e, NAMES, where, caution),
        "labels": {
            "missed": dict(zip(e.labels, missed.sum(axis=0).tolist(), strict=True)),
            "added": dict(zip(e.labels, added.sum(axis=0).tolist(), strict=True)),
            "exchanged": _exchanged(e.labels, missed, added),
        },
        "calibration": {"before": curves[0], "after": curves[1] if e.learned.rows else None},
    }


def _exchanged(labels: Sequence[str], missed: npt.NDArray[np.bool_], added: npt.NDArray[np.bool_]) -> list[Table]:
    """Returns the pairs of a missed and an added label in most rows."""
    both = missed.T.astype(np.int64) @ added.astype(np.int64)  # (K, K)
    places = np.argsort(-both, axis=None, kind="stable")[:COMMON]
    pairs = [divmod(int(place), len(labels)) for place in places]
    return [{"missed": labels[i], "added": labels[j], "rows": int(both[i, j])} for i, j in pairs if both[i, j]]


def worst_labelled(evaluated: EvaluatedLabels, most: int = SHOWN) -> list[int]:
    """Returns the rows whose labels are not all right, those with the highest log loss first."""
    logits = evaluated.scaled("lora")
    losses = (np.logaddexp(0, logits) - evaluated.y_true * logits).sum(axis=1)
    wrong = np.flatnonzero(~evaluated.right("lora"))
    return [int(row) for row in wrong[np.argsort(-losses[wrong], kind="stable")][:most]]


def label_error_facts(
    evaluated: EvaluatedLabels,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    explanations: "Mapping[int, Explanation]",
    rows: Sequence[int] | npt.NDArray[np.int64] | None = None,
) -> Table:
    """Returns how many rows do not have exactly the right labels, and the worst of them; see `error_facts`."""
    e, shown = evaluated, []
    probabilities, chosen = e.probabilities("lora"), e.chosen("lora")
    for row in worst_labelled(e):
        own = [texts[row]] if pairs is None else [texts[row], pairs[row]]
        explanation = explanations.get(row)
        shown.append(
            {
                "row": row if rows is None else int(rows[row]),
                "given": [e.labels[k] for k in np.flatnonzero(e.y_true[row])],
                "predicted": [
                    {"label": e.labels[k], "probability": float(probabilities[row, k])}
                    for k in np.flatnonzero(chosen[row])
                ],
                "explained": None if explanation is None else explanation.label,
                "texts": shown_texts(own, explanation),
            }
        )
    count = int((~e.right("lora")).sum())
    return {"count": count, "n": len(e.y_true), "explained": bool(explanations), "shown": shown}


def label_view(facts: Table) -> Table:
    """Returns verdict, labels, slices and calibration as the template needs them."""
    part, slices, found = facts["verdict"], facts["slices"], facts["labels"]
    view: Table = {"verdict": None, "classes": None, "confusion": None, "calibration": None}
    view["slices"] = slices and tables.slice_view(slices)
    if part is None:
        return view
    first, *others = part["sentence"].split("\n")
    more = {"columns": ["", *MODEL_COLUMNS], "rows": [model_row(c["name"], c) for c in part["classifiers"]]}
    per_label = part["classifiers"][-1]["per_label"]
    rows = label_rows(per_label)
    wrong = sorted(per_label, key=lambda label: -(found["missed"][label] + found["added"][label]))
    return view | {
        "verdict": part | {"large": first, "others": others, "more": more},
        "classes": {"columns": LABEL_COLUMNS, "rows": rows, "first": rows[:SHOWN_LABELS]},
        "confusion": {
            "rows": [
                [label, f"{found['missed'][label]:,}", f"{found['added'][label]:,}"] for label in wrong[:SHOWN_LABELS]
            ],
            "exchanged": [[one["missed"], one["added"], f"{one['rows']:,}"] for one in found["exchanged"]],
        },
        "calibration": calibration_sentence(part["classifiers"][-1]),
    }


def calibration_sentence(lora: Table) -> str:
    """Returns how far the probabilities are from the shares of the labels, and what chance gives."""
    error, floor = 100 * lora["ece"], 100 * lora["ece_floor"]
    return (
        f"The probability of a label differs from the share of rows that have it by {error:.1f} points, as a mean over "
        f"the labels (ECE). With these rows, perfect probabilities would differ by {floor:.1f} points."
    )


def label_headline(task: Table, found: Table | None) -> str:
    """Returns the task, and how good LoRA is, in a line."""
    texts = "text pairs" if task["pairs"] else "texts"
    text = f"Give {texts} any of {len(task['labels'])} labels"
    if not found or found["classifiers"][-1]["macro_f1"] is None:
        return text
    return f"{text}: macro F1 {found['classifiers'][-1]['macro_f1']:.3f} on {found['n']:,} {found['rows_name']}"


def label_pictures(facts: Table) -> dict[str, Picture | None]:
    """Returns the charts of several labels by name, None if there are no facts for one."""
    found = facts["verdict"]
    return {
        "accuracy": found and f1_picture("accuracy", _models(found), "Macro F1"),
        "labels": found and f1_picture("labels", _labels(found), "F1 by label"),
        "reliability": facts["calibration"] and event_picture(facts["calibration"]),
    }


def _models(part: Table) -> list[tuple[str, float, float, float]]:
    return [(c["name"], c["macro_f1"], *c["macro_f1_ci95"]) for c in part["classifiers"] if c["macro_f1_ci95"]]


def _labels(part: Table) -> list[tuple[str, float, float, float]]:
    """Returns F1 and interval of the labels that rows have, the lowest first; at most 15."""
    found = [
        (label, one["f1"], *one["f1_ci95"])
        for label, one in part["classifiers"][-1]["per_label"].items()
        if one["rows"]
    ]
    return sorted(found, key=lambda one: one[1])[:MOST_BARS]


def f1_picture(name: str, rows: Sequence[tuple[str, float, float, float]], what: str) -> Picture | None:
    """Returns F1 with its interval, one line per model or label (name, F1, low, high); the last best one stands out."""
    if not rows:
        return None
    title = f"{what} with 95 % CI"
    best = max(range(len(rows)), key=lambda i: (rows[i][1], i))
    said = "; ".join(f"{one} {value:.3f}, from {low:.3f} to {high:.3f}" for one, value, low, high in rows)
    svg = intervals(name, title, said + ".", rows, best, form="{:.2g}".format, value="{:.3f}".format)
    cells = [[one, f"{value:.3f}", f"{low:.3f} to {high:.3f}"] for one, value, low, high in rows]
    return Picture(name, title, svg, ["", "F1", "95 % CI"], cells)
