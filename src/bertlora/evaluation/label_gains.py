"""The chosen labels of two models on the same rows: which has the higher macro F1, by how much, is it significant?

All draws of a paired bootstrap take the same rows for both. Pairs that are compared together are corrected for their
number, as classifiers are; see `comparison`.

Letters: N rows, K labels, R resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from bertlora.confidence.agreement import LEVEL, percentiles, resamples
from bertlora.confidence.label_agreement import Chosen, LabelAgreement
from bertlora.confidence.probabilities import Array
from bertlora.evaluation.comparison import Comparison, Name, holm
from bertlora.evaluation.gains import AccuracyGain, ScoreGain
from bertlora.evaluation.paired_errors import RESAMPLES, two_sided


@dataclass(frozen=True)
class LabelGain(ScoreGain):
    """The gain of a second model over a first one in macro F1, on the same rows.

    Attributes:
        draws: (R,) of a paired bootstrap: macro F1 of the second minus macro F1 of the first, in points.
    """

    draws: Array
    test = "paired bootstrap"

    @classmethod
    def of(cls, rows: int, gain: float, draws: Array) -> "LabelGain":
        """Returns the gain with its standard error and its p; `gain` and `draws` are in points."""
        return cls("macro_f1", rows, gain, float(draws.std()), two_sided(draws), draws)

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Returns the gain's percentile bootstrap interval in points."""
        return percentiles(self.draws, level)


def compare_labels(
    y_true: Chosen, pairs: Mapping[Name, tuple[Chosen, Chosen]], seed: int = 0
) -> dict[Name, Comparison]:
    """Compares pairs of models on the same rows by macro F1, and corrects for the number of pairs.

    `Comparison.accuracy` compares the rows whose labels are all right (subset accuracy) by McNemar's test.

    Args:
        y_true: (N, K) the right labels. At least one row has a label.
        pairs: by name, the labels (N, K) that the first model of a pair chooses, and those of the second.
        seed: seed of the resampling.
    """
    agreements = {
        name: [LabelAgreement(chosen, chosen.astype(np.float64), y_true) for chosen in pair]
        for name, pair in pairs.items()
    }
    draws: dict[Name, list[Array]] = {name: [] for name in pairs}
    for times in resamples(len(y_true), seed, RESAMPLES):
        for name, pair in agreements.items():
            draws[name].append(_gains(pair, times))
    once = np.ones((1, len(y_true)))
    gains = [
        LabelGain.of(len(y_true), float(_gains(agreements[name], once)[0]), _defined(draws[name])) for name in pairs
    ]
    rights = [[(chosen == y_true).all(axis=1) for chosen in pair] for pair in pairs.values()]
    corrections = holm([gain.p for gain in gains])
    return {
        name: Comparison(gain, AccuracyGain.of(*right), partial(_scores, gain), len(pairs), p, tests)
        for name, gain, right, (p, tests) in zip(pairs, gains, rights, corrections, strict=True)
    }


def _scores(gain: LabelGain) -> dict[str, ScoreGain]:
    return {gain.metric: gain}


def _gains(pair: list[LabelAgreement], times: Array) -> Array:
    """Returns the gains (R,) in points, for rows that occur `times` (R, N)."""
    first, second = (one.macro_f1(times) for one in pair)
    return np.asarray(100 * (second - first))


def _defined(draws: list[Array]) -> Array:
    """Returns the draws in which a row has a label: without one, F1 is not defined."""
    found = np.concatenate(draws)
    return np.asarray(found[np.isfinite(found)])
