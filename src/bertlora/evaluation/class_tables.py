"""The figures of classes as tables that people can read, also for 1,000 classes: the worst first, with a cut.

Letters: K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bertlora.evaluation.scores import LARGEST_MATRIX

Figures = Mapping[str, Any]

# More classes are sorted and cut, and their confusion matrix is not drawn.
FEW = 20
CLASS_COLUMNS = ["class", "precision", "recall", "F1", "support"]
CONFUSION_COLUMNS = ["true class", "predicted", "rows", "share of the class"]


def class_rows(per_class: Mapping[str, Figures]) -> list[list[str]]:
    """Returns the cells of all classes under `CLASS_COLUMNS`; over 20 classes by rising F1, those without rows last.

    Args:
        per_class: as `classification_metrics` returns it.
    """
    lines = list(per_class.items())
    if len(lines) > FEW:
        lines.sort(key=lambda line: (not line[1]["support"], line[1]["f1"], -line[1]["support"]))
    return [
        [label, *(f"{line[key]:.3f}" for key in ("precision", "recall", "f1")), f"{line['support']:,}"]
        for label, line in lines
    ]


def class_sentence(classes: int) -> str:
    """Returns what the first rows of `class_rows` are; empty up to 20 classes."""
    return f"These {FEW} of {classes:,} classes have the lowest F1." if classes > FEW else ""


def first_sentence(figures: Figures) -> str:
    """Returns how often the right class is among LoRA's first 3 and first 5; empty with fewer than 10 classes."""
    if "top_3_accuracy" not in figures:
        return ""
    shares = []
    for first in (3, 5):
        low, high = figures[f"top_{first}_accuracy_ci95"]
        share = f"{100 * figures[f'top_{first}_accuracy']:.1f} %"
        shares.append(f"{share} (95 % CI {100 * low:.1f} to {100 * high:.1f})")
    return (
        f"The right class is among LoRA's first 3 for {shares[0]} of the rows, and among its first 5 for {shares[1]}."
    )


def foldable(rows: Sequence[Any]) -> Sequence[Any]:
    """Returns the rows that are shown when the table is unfolded: all, or none over 100 classes."""
    return rows if FEW < len(rows) <= LARGEST_MATRIX else []


def confusion_rows(figures: Figures) -> list[list[str]]:
    """Returns the cells of the most frequent confusions, under `CONFUSION_COLUMNS`; none for two classes."""
    if len(figures["per_class"]) < 3:
        return []
    return [
        [one["true"], one["predicted"], f"{one['rows']:,}", f"{100 * one['share']:.1f} %"]
        for one in figures["top_confusions"]
    ]


def confusion_sentence(figures: Figures) -> str:
    """Returns how many wrong rows are in other confusions than the most frequent ones; empty if none is."""
    others = figures["other_confusions"]
    return f"{others:,} more wrong rows are in less frequent confusions." if others else ""
