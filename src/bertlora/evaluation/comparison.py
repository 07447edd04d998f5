"""Pairs of classifiers on the same rows: which one is better, by how much, and is the difference significant?

The more pairs are compared, the more likely one of them differs by chance. So the p values and the intervals of pairs
that are compared together are corrected for their number.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from bertlora.confidence.intervals import LEVEL, Right
from bertlora.confidence.probabilities import Labels
from bertlora.data.inputs import Unread
from bertlora.errors import InputError
from bertlora.evaluation.gains import SIGNIFICANCE, AccuracyGain, ScoreGain, rows_needed, score_gains
from bertlora.evaluation.scores import leading_metric

Name = TypeVar("Name", bound=Hashable)
Answers = TypeVar("Answers")
Compared = TypeVar("Compared")


class Tested(Protocol):
    """A tested difference; a gain above 0 is LoRA's."""

    @property
    def gain(self) -> float:
        """How much better LoRA is."""
        ...

    @property
    def significant(self) -> bool:
        """Whether the test shows a difference."""
        ...


AnyTested = TypeVar("AnyTested", bound=Tested)
# LoRA's rivals, which are trained. They are compared together, the untrained base by itself.
TRAINED = "probe", "tfidf"
TOGETHER = TRAINED, ("base",)
# What LoRA is compared with, in this order, and how sentences call it.
RIVALS = {"probe": "the linear probe", "tfidf": "TF-IDF", "base": "the base model"}

# Nobody labels more rows than this to settle one comparison.
MOST_ROWS = 1_000_000
# With fewer rows, the measured difference says too little about how many rows would settle it.
FEWEST_ROWS = 30
# A smaller share of the tokens that are not read explains no difference to a rival.
LITTLE_UNREAD = 0.01


def against_lora(
    answers: Mapping[str, Answers], compare: Callable[[dict[str, tuple[Answers, Answers]]], Mapping[str, Compared]]
) -> dict[str, Compared]:
    """Returns LoRA against each other model, in the order of `RIVALS`. Those of `TOGETHER` are compared together.

    Args:
        answers: by model, `lora` among them, what it answers on the same rows.
        compare: compares pairs of another model's answers and LoRA's, and corrects for their number.
    """
    found: dict[str, Compared] = {}
    for together in TOGETHER:
        pairs = {name: (answers[name], answers["lora"]) for name in together if name in answers}
        found |= compare(pairs) if pairs else {}
    return found


@dataclass(frozen=True)
class Comparison:
    """A second classifier against a first one on the same rows.

    Attributes:
        difference: the measured difference, by accuracy or by a score.
        accuracy: the difference by accuracy.
        scores: computes the differences by the scores of `evaluation.scores`; there are none if only right and wrong
            are known.
        pairs: how many pairs were compared together, this one included.
        p: p value of the test of `difference`, corrected for the number of pairs.
        tests: the number of tests that the correction counts for this pair; see `holm`.
    """

    difference: AccuracyGain | ScoreGain
    accuracy: AccuracyGain
    scores: Callable[[], Mapping[str, ScoreGain]] = dict
    pairs: int = 1
    p: float = 1.0
    tests: int = 1

    @classmethod
    def of(cls, first: Right, second: Right) -> "Comparison":
        """Compares two classifiers by the rows that each gets right, (N,) and (N,).

        Raises:
            InputError: there are no rows.
        """
        gain = AccuracyGain.of(_some(first), second)
        return cls(gain, gain, p=gain.p)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.accuracy.rows

    @property
    def gain(self) -> float:
        """The second classifier minus the first, in points."""
        return self.difference.gain

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The gain's confidence interval in points: 95 %, and wider if the test counts other pairs too.

        A pair that is tested as one of M counts as different if its own p is below 0.05 / M. The interval excludes the
        same differences, so its confidence level is 1 - 0.05 / M.
        """
        return self.difference.interval(1 - (1 - LEVEL) / self.tests)

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.interval[0]

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.interval[1]

    @property
    def significant(self) -> bool:
        """Whether the corrected p is below 0.05 and the interval excludes zero.

        The test and the interval are different methods. Near p = 0.05 they can disagree; the difference then counts as
        not significant.
        """
        return self.p < SIGNIFICANCE and self.excludes_zero

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0

    @property
    def rows_for_a_point(self) -> int | None:
        """About how many rows would detect a gain of 1 point of accuracy; None with fewer than 30 rows."""
        return two_digits(rows_needed(self.accuracy.discordant)) if self.rows >= FEWEST_ROWS else None

    @property
    def rows_to_settle(self) -> int | None:
        """About how many rows would detect a true gain as large as the measured one, with 80 % power.

        None if the difference is significant, if the gain is zero, or with fewer than 30 rows.
        """
        needed = self.difference.rows_needed(SIGNIFICANCE / self.tests)
        return None if self.significant or self.rows < FEWEST_ROWS or needed is None else two_digits(needed)

    @property
    def test(self) -> str:
        """The test and its p: `McNemar's exact test, p = 0.03`."""
        return f"{self.difference.test}, p = {self.p:.2g}"

    def sentence(self, names: tuple[str, str]) -> str:
        """Returns which is better and by how much, or that the difference is not significant.

        Args:
            names: of the first classifier and of the second.
        """
        corrected = f"; p and interval are corrected for {self.pairs} comparisons" if self.pairs > 1 else ""
        test, unit = f"({self.test}{corrected})", self.difference.unit
        shown = test if self.significant else f"{test}{self._borderline}"
        return gain_sentence(names, self.gain, self.interval, unit, shown, self.significant)

    @property
    def _borderline(self) -> str:
        if self.excludes_zero:
            return ", a borderline case: the interval excludes zero, but the test does not reject"
        return ", a borderline case: the test rejects, but the interval includes zero" if self.p < SIGNIFICANCE else ""

    @property
    def open_sentence(self) -> str:
        """How many rows would settle the measured gap; empty if the difference is significant."""
        gap = f"{abs(self.gain):.1f}" if abs(self.gain) >= 0.05 else f"{abs(self.gain):.1g}"
        return "" if self.significant else settling(f"{gap} {self.difference.unit}", self.rows, self.rows_to_settle)

    def figures(self, names: tuple[str, str]) -> dict[str, Any]:
        """Returns the comparison for JSON.

        Args:
            names: of the first classifier and of the second.

        Returns:
            - `rows`; `only_first` and `only_second`, the rows that only one gets right.
            - `gain_points`, `gain_points_ci95`, `mcnemar_p`: the gain in accuracy, without correction.
            - `macro_f1`, `balanced_accuracy`, `matthews`: likewise `gain`, `ci95` and `p` of these scores, if they are
              known.
            - `tested`: what the words are about: `metric`, and with correction for `pairs` pairs `gain_points`,
              `gain_points_ci95` and `p`.
            - `significant`, `rows_for_a_point`, `rows_to_settle`, `verdict`.
        """
        accuracy = self.accuracy
        return {
            "rows": self.rows,
            "only_first": accuracy.lost,
            "only_second": accuracy.won,
            "gain_points": accuracy.gain,
            "gain_points_ci95": list(accuracy.interval()),
            "mcnemar_p": accuracy.p,
            **{name: score.figures() for name, score in self.scores().items()},
            "tested": {
                "metric": self.difference.metric,
                "pairs": self.pairs,
                "gain_points": self.gain,
                "gain_points_ci95": list(self.interval),
                "p": self.p,
            },
            "significant": self.significant,
            "rows_for_a_point": self.rows_for_a_point,
            "rows_to_settle": self.rows_to_settle,
            "verdict": " ".join(part for part in (self.sentence(names), self.open_sentence) if part),
        }


def compare_all(y_true: Labels, pairs: Mapping[Name, tuple[Labels, Labels]], classes: int) -> dict[Name, Comparison]:
    """Compares pairs of classifiers on the same rows, and corrects for the number of pairs.

    The pairs are compared by accuracy, or by macro F1 if the classes of the rows are imbalanced (`leading_metric`).

    Args:
        y_true: (N,) the right classes.
        pairs: by name, the classes (N,) that the first classifier of a pair predicts, and those of the second.
        classes: number of classes, K.

    Raises:
        InputError: there are no rows.
    """
    metric = leading_metric(_some(y_true))
    accuracies = [AccuracyGain.of(first == y_true, second == y_true) for first, second in pairs.values()]
    # They take a while, and only the figures need all of them.
    scores = [cache(partial(score_gains, y_true, *pair, classes)) for pair in pairs.values()]
    gains: Sequence[AccuracyGain | ScoreGain] = accuracies
    if metric != "accuracy":
        gains = [score()[metric] for score in scores]
    corrections = holm([gain.p for gain in gains])
    return {
        name: Comparison(gain, accuracy, score, len(pairs), p, tests)
        for name, gain, accuracy, score, (p, tests) in zip(pairs, gains, accuracies, scores, corrections, strict=True)
    }


def gain_sentence(
    names: tuple[str, str], gain: float, interval: tuple[float, float], unit: str, test: str, significant: bool
) -> str:
    """Returns which of two is better and by how much, or that the difference is not significant.

    Args:
        names: of the first and of the second.
        gain: of the second over the first.
        interval: of the gain.
        unit: such as `points`.
        test: the test, in brackets.
        significant: whether it rejects that they are equal.
    """
    low, high = interval
    if not significant:
        return (
            f"{names[1]} and {names[0]} do not differ significantly: {gain:+z.1f} {unit}, 95 % CI {low:+z.1f} to "
            f"{high:+z.1f} {test}."
        )
    verb, sign = ("beats", 1) if gain > 0 else ("is worse than", -1)
    low, high = sorted((sign * low, sign * high))
    return f"{names[1]} {verb} {names[0]} by {abs(gain):.1f} {unit}, 95 % CI {low:.1f} to {high:.1f} {test}."


def settling(gap: str, rows: int, needed: int | None) -> str:
    """Returns how many rows would settle a gap that is not significant.

    Args:
        gap: the measured gap with its unit.
        rows: the number of rows on which it was measured.
        needed: the number that would show it; None if the gap is zero.
    """
    if rows < FEWEST_ROWS:
        return f"{rows} rows are too few to say how many would settle it."
    if needed is None:
        return "The measured gap is zero: more rows would only make the interval narrower."
    if needed > MOST_ROWS:
        return f"A gap of {gap} is too small to settle: it would take more than {MOST_ROWS:,} rows."
    return f"If the true gap is {gap}, about {needed:,} rows would show it."


def unbeaten_of(rivals: Mapping[str, AnyTested]) -> dict[str, AnyTested]:
    """Returns those of the rivals that LoRA is not shown to beat, in their order."""
    return {name: found for name, found in rivals.items() if not (found.significant and found.gain > 0)}


def to_try(unread: Unread) -> str:
    """Returns what to try if a rival is not beaten: `more training rows, or another base model`, and to read more.

    Args:
        unread: what is not read of the texts.
    """
    longer = (
        [f"{unread.remedy} ({unread.share:.0%} of the tokens are not read)"] if unread.share > LITTLE_UNREAD else []
    )
    return f"{', '.join([*longer, 'more training rows'])}, or another base model"


def holm(values: Sequence[float]) -> list[tuple[float, int]]:
    """Corrects p values for their number; returns in their order the corrected p, and how many tests it counts.

    Holm 1979, "A simple sequentially rejective multiple test procedure". The smallest p counts all tests, the next one
    all but one, and each further one a test less. From the first p on that is not significant, the number stays.
    """
    order = np.argsort(values, kind="stable")
    tests = np.arange(len(values), 0, -1)
    corrected = np.minimum(np.maximum.accumulate(np.array(values)[order] * tests), 1.0)
    counted = np.maximum(tests, len(values) - np.sum(corrected < SIGNIFICANCE))
    ranks = np.argsort(order)
    return [(float(corrected[rank]), int(counted[rank])) for rank in ranks]


def two_digits(rows: float) -> int:
    """Returns a number of rows with two significant digits."""
    return math.ceil(float(f"{rows:.1e}"))


def _some(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if not len(rows):
        raise InputError("no rows to evaluate; give at least one")
    return rows
