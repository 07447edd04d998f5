"""Base, linear probe, TF-IDF and LoRA on the same rows, where a text may have several labels.

Letters: N rows, K labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from bertlora.confidence.intervals import exact_interval
from bertlora.confidence.label_agreement import Chosen, LabelAgreement, average_precision
from bertlora.confidence.probabilities import Array, CalibrationError, sigmoid
from bertlora.confidence.thresholds import DEFAULT, Thresholds
from bertlora.data.inputs import ALL_READ, Unread
from bertlora.evaluation.comparison import RIVALS, Comparison, against_lora
from bertlora.evaluation.label_gains import compare_labels
from bertlora.task import MULTILABEL


@dataclass(frozen=True)
class EvaluatedLabels:
    """The outputs of a run's models on the same N rows.

    Attributes:
        labels: names of the K labels.
        y_true: (N, K) which labels the rows have.
        logits: (N, K) of `base` (with its untrained head), `probe` and `tfidf` (if the run has them) and `lora`.
        learned: temperatures and thresholds of LoRA.
        thresholds: (K,) of the other models; 0.5 of one that is not there.
        rows_name: what the sentences call the rows, such as `test rows`.
        seconds: by model, how long its training took, where that is known.
        unread: what the encoder does not read of the rows.
    """

    labels: list[str]
    y_true: Chosen
    logits: dict[str, Array]
    learned: Thresholds
    thresholds: Mapping[str, Array] = field(default_factory=dict)
    rows_name: str = "rows"
    seconds: Mapping[str, float] = field(default_factory=dict)
    unread: Unread = ALL_READ
    predicts = "several labels"

    @property
    def names(self) -> list[str]:
        """The models."""
        return list(self.logits)

    def scaled(self, name: str) -> Array:
        """Returns a model's logits (N, K) as used in prediction: LoRA's are divided by the temperatures."""
        return self.learned.scaled(self.logits[name]) if name == "lora" else self.logits[name]

    def probabilities(self, name: str) -> Array:
        """Returns a model's probabilities (N, K) of each label."""
        return sigmoid(self.scaled(name))

    def chosen(self, name: str) -> Chosen:
        """Returns which labels (N, K) a model gives each row."""
        if name == "lora":
            return self.learned.chosen(self.logits[name])
        return np.asarray(self.probabilities(name) >= self.thresholds.get(name, DEFAULT))

    def right(self, name: str) -> Chosen:
        """Returns which rows get exactly the right labels by a model, (N,)."""
        return np.asarray((self.chosen(name) == self.y_true).all(axis=1))

    @cached_property
    def _figures(self) -> dict[str, dict[str, Any]]:
        return {name: self._measured(name) for name in self.names}

    def _measured(self, name: str) -> dict[str, Any]:
        chosen, probabilities, logits = self.chosen(name), self.probabilities(name), self.scaled(name)
        limits = self.learned.thresholds if name == "lora" else self.thresholds.get(name)
        each = label_metrics(chosen, probabilities, self.y_true)
        for k, found in enumerate(each):
            found["threshold"] = DEFAULT if limits is None else float(limits[k])
        return {
            **LabelAgreement(chosen, probabilities, self.y_true).with_intervals(),
            "loss": float(np.mean(np.logaddexp(0, logits) - self.y_true * logits)),
            **{key: float(np.mean([one[key] for one in each])) for key in ("ece", "ece_floor")},
            "per_label": dict(zip(self.labels, each, strict=True)),
        }

    def figures(self, name: str) -> dict[str, Any]:
        """Returns a model's figures, with `training_seconds` if that is known; see `label_figures`."""
        timed = {"training_seconds": self.seconds[name]} if name in self.seconds else {}
        return self._figures[name] | timed

    @cached_property
    def comparisons(self) -> dict[str, Comparison]:
        """LoRA against each other model; none if no row has a label. Two trained rivals are compared together."""
        chosen = {name: self.chosen(name) for name in self.names} if self.y_true.any() else {}
        return against_lora(chosen, lambda pairs: compare_labels(self.y_true, pairs))

    @property
    def chance(self) -> float | None:
        """The macro F1 of giving every row every label; None if no row has a label."""
        shares = self.y_true.mean(axis=0)
        shares = shares[shares > 0]
        return float(np.mean(2 * shares / (1 + shares))) if len(shares) else None

    def headline(self, opening: str) -> str:
        """Returns how good LoRA is, in sentences; the first begins with `opening`."""
        lora, rows = self.figures("lora"), f"{len(self.y_true):,} {self.rows_name}"
        exact = f"{100 * lora['subset_accuracy']:.1f} %"
        if lora["macro_f1"] is None:
            return f"{opening} gives {exact} of {rows} no label, which is right: none of them has one."
        low, high = lora["macro_f1_ci95"]
        absent = int((~self.y_true.any(axis=0)).sum())
        left_out = f" {absent} of {len(self.labels)} labels are in no row; macro F1 leaves them out." if absent else ""
        return (
            f"{opening} has a macro F1 of {lora['macro_f1']:.3f} on {rows}, 95 % CI {low:.3f} to {high:.3f}; giving "
            f"every label to every row has {self.chance:.3f}. LoRA gives {exact} of them exactly the right labels."
            f"{left_out}"
        )


def label_metrics(chosen: Chosen, probabilities: Array, y_true: Chosen) -> list[dict[str, Any]]:
    """Returns the figures of each of K labels; see `label_figures`.

    Args:
        chosen: (N, K) which labels a model gives.
        probabilities: (N, K) of each label.
        y_true: (N, K) the right labels.
    """
    columns = zip(chosen.T, probabilities.T, y_true.T, strict=True)
    return [_one_label(*column) for column in columns]


def _one_label(chosen: Chosen, probabilities: Array, y_true: Chosen) -> dict[str, Any]:
    """Returns the figures of a label; all arguments are (N,)."""
    having, named, hits = int(y_true.sum()), int(chosen.sum()), int((chosen & y_true).sum())
    found: dict[str, Any] = {
        "rows": having,
        "chosen": named,
        "precision": hits / named if named else None,
        "recall": hits / having if having else None,
        "f1": 2 * hits / (named + having) if having else None,
        "f1_ci95": list(f1_interval(hits, named, having)) if having else None,
        "average_precision": None,
    }
    if having:
        found["average_precision"] = float(
            average_precision(np.ones((len(y_true), 1), np.float32), probabilities, y_true)[0]
        )
    return found | CalibrationError.of_events(probabilities, y_true).figures()


def f1_interval(hits: int, named: int, having: int) -> tuple[float, float]:
    """Returns the exact 95 % confidence interval of the F1 of a label.

    Of the rows that have the label or get it, a share J has and gets it, and F1 is 2 J / (1 + J). Given the number of
    these rows, their hits are binomial; so the ends follow from the exact interval of J (Clopper and Pearson 1934).

    Args:
        hits: rows that have the label and get it.
        named: rows that get it.
        having: rows that have it, at least one.
    """
    low, high = (2 * end / (1 + end) for end in exact_interval(hits, named + having - hits))
    return low, high


def label_figures(e: EvaluatedLabels) -> dict[str, Any]:
    """Returns `task`, `n`, the figures of `base`, `probe`, `tfidf` and `lora`, `chance_macro_f1`, and `comparisons`.

    `chance_macro_f1` is the figure of giving every row every label. Each model has:

    - `macro_f1`, `micro_f1`, `subset_accuracy` and `average_precision`, with 95 % bootstrap intervals such as
      `macro_f1_ci95`; None if no row has a label. See `LabelAgreement`.
    - `loss`: the mean log loss of the N K decisions, in nats.
    - `ece`, `ece_floor`: the calibration error of a label's probability and what chance gives, means over the labels.
    - `per_label` {label: figures}. `threshold`; `rows`, how many have the label; `chosen`, how many get it.
      `precision` is None if no row gets the label. `recall`, `f1`, `f1_ci95` (exact; see `f1_interval`) and
      `average_precision` are None if no row has it. And what `CalibrationError.figures` returns.

    `comparisons` is by macro F1; see `Comparison.figures`. Its figures on accuracy are on subset accuracy.
    """
    found: dict[str, Any] = {"base": None, "probe": None, "tfidf": None, "lora": None}
    found |= {name: e.figures(name) for name in e.names}
    return {
        "task": MULTILABEL,
        "n": len(e.y_true),
        **found,
        "chance_macro_f1": e.chance,
        "comparisons": {name: pair.figures((RIVALS[name], "LoRA")) for name, pair in e.comparisons.items()},
    }
