"""Base, linear probe, TF-IDF and LoRA as regressions on the same rows, and how often LoRA's intervals are right."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from bertlora.confidence.agreement import agreement_figures
from bertlora.confidence.intervals import exact_interval
from bertlora.confidence.probabilities import Array
from bertlora.confidence.spread import COVERAGE, LEVELS, Spread
from bertlora.data.inputs import ALL_READ, Unread
from bertlora.evaluation.comparison import RIVALS, against_lora
from bertlora.evaluation.paired_errors import ErrorComparison, compare_errors
from bertlora.task import REGRESSION


@dataclass(frozen=True)
class EvaluatedValues:
    """The numbers that a run's models predict for the same N rows.

    Attributes:
        labels: the name of the number.
        y_true: (N,) float64, the right numbers.
        values: numbers (N,) of `base` (the mean of the training targets), `probe` and `tfidf` (if the run has them) and
            `lora`.
        spread: chooses LoRA's intervals.
        rows_name: what the sentences call the rows, such as `test rows`.
        seconds: by model, how long its training took, where that is known.
        unread: what the encoder does not read of the rows.
    """

    labels: list[str]
    y_true: Array
    values: dict[str, Array]
    spread: Spread = field(default_factory=Spread.without_rows)
    rows_name: str = "rows"
    seconds: Mapping[str, float] = field(default_factory=dict)
    unread: Unread = ALL_READ
    predicts = "numbers"

    @property
    def names(self) -> list[str]:
        """The models."""
        return list(self.values)

    @cached_property
    def _figures(self) -> dict[str, dict[str, Any]]:
        return {name: agreement_figures(values, self.y_true) for name, values in self.values.items()}

    def figures(self, name: str) -> dict[str, Any]:
        """Returns a model's correlations and errors with their intervals, and `training_seconds` if that is known."""
        timed = {"training_seconds": self.seconds[name]} if name in self.seconds else {}
        return self._figures[name] | timed

    @cached_property
    def comparisons(self) -> dict[str, ErrorComparison]:
        """LoRA against each other model. Two trained rivals are compared together; see `compare_errors`."""
        return against_lora(self.values, lambda pairs: compare_errors(self.y_true, pairs))

    @cached_property
    def coverage(self) -> list[dict[str, Any]]:
        """Of intervals for 50 %, 80 %, 90 % and 95 %: how many contain the truth.

        Each has `level`, `half_width`, `covered` and `covered_ci95` (exact). Levels for which the validation rows are
        too few are left out.
        """
        found, errors = [], np.abs(self.values["lora"] - self.y_true)
        for level in LEVELS:
            if (half := self.spread.half_width(level)) is not None:
                hits = int(np.sum(errors <= half))
                ends = exact_interval(hits, len(errors))
                line = {"level": level, "half_width": half, "covered": hits / len(errors), "covered_ci95": list(ends)}
                found.append(line)
        return found

    def headline(self, opening: str) -> str:
        """Returns how good LoRA is, in a sentence that begins with `opening`."""
        lora = self.figures("lora")
        low, high = lora["rmse_ci95"]
        text = (
            f"{opening} predicts {self.labels[0]} on {len(self.y_true):,} {self.rows_name} with an RMSE of "
            f"{lora['rmse']:.4g}, 95 % CI {low:.4g} to {high:.4g}"
        )
        if lora["pearson"] is None:
            return f"{text}. The correlation is not defined."
        low, high = lora["pearson_ci95"]
        return f"{text}. Pearson's correlation is {lora['pearson']:.3f}, 95 % CI {low:.3f} to {high:.3f}."

    @property
    def coverage_sentence(self) -> str:
        """How many of the 90 % intervals contain the truth; empty if there are none."""
        line = next((line for line in self.coverage if line["level"] == COVERAGE), None)
        if line is None:
            return ""
        low, high = (100 * end for end in line["covered_ci95"])
        return (
            f"Of LoRA's {100 * COVERAGE:.0f} % intervals, plus or minus {line['half_width']:.3g}, "
            f"{100 * line['covered']:.1f} % contain the true number (95 % CI {low:.1f} to {high:.1f})."
        )


def value_figures(e: EvaluatedValues) -> dict[str, Any]:
    """Returns `task`, `n`, the figures of `base`, `probe`, `tfidf` and `lora`, `comparisons`, and `coverage`.

    Each model has `pearson`, `spearman`, `r2`, `mae` and `rmse`, with intervals such as `rmse_ci95`. `comparisons`: see
    `ErrorComparison.figures`. `coverage`: see `EvaluatedValues.coverage`.
    """
    found: dict[str, Any] = {"base": None, "probe": None, "tfidf": None, "lora": None}
    found |= {name: e.figures(name) for name in e.names}
    return {
        "task": REGRESSION,
        "n": len(e.y_true),
        **found,
        "comparisons": {name: pair.figures((RIVALS[name], "LoRA")) for name, pair in e.comparisons.items()},
        "coverage": e.coverage,
    }
