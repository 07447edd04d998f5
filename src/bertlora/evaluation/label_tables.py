"""The figures of several labels as cells of tables, for the terminal and the report."""

from collections.abc import Mapping
from typing import Any

from bertlora.confidence.label_agreement import FIGURE_NAMES

OTHERS = [key for key in FIGURE_NAMES if key != "macro_f1"]
MODEL_COLUMNS = ["macro F1", "95 % CI", *(FIGURE_NAMES[key] for key in OTHERS), "log loss", "ECE", "ECE by chance"]
MODEL_COLUMNS += ["training"]
LABEL_COLUMNS = ["label", "rows", "threshold", "precision", "recall", "F1", "95 % CI", "average precision", "ECE"]
LABEL_COLUMNS += ["ECE by chance"]


def model_row(name: str, figures: Mapping[str, Any]) -> list[str]:
    """Returns the name of a model and its figures, under `MODEL_COLUMNS`; see `label_figures`."""
    cells = [name, shown(figures["macro_f1"]), ends_shown(figures["macro_f1_ci95"])]
    cells += [shown(figures[key]) for key in (*OTHERS, "loss", "ece", "ece_floor")]
    return [*cells, f"{figures['training_seconds']:,.1f} s" if "training_seconds" in figures else ""]


def label_rows(per_label: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Returns the cells of each label under `LABEL_COLUMNS`, the lowest F1 first; without rows it is last."""
    lowest = sorted(per_label.items(), key=lambda item: (item[1]["f1"] is None, item[1]["f1"] or 0.0))
    return [
        [
            label,
            f"{one['rows']:,}",
            *(shown(one[key]) for key in ("threshold", "precision", "recall", "f1")),
            ends_shown(one["f1_ci95"]),
            *(shown(one[key]) for key in ("average_precision", "ece", "ece_floor")),
        ]
        for label, one in lowest
    ]


def shown(value: float | None) -> str:
    """Returns a figure with three decimals; empty if it is not defined."""
    return "" if value is None else f"{value:.3f}"


def ends_shown(ends: list[float] | None) -> str:
    """Returns an interval: `0.612 to 0.741`; empty if there is none."""
    return "" if ends is None else " to ".join(f"{end:.3f}" for end in ends)
