"""When one label is too much to say: abstain below a confidence, or give the set of labels that may be right.

Thresholds are chosen on validation rows. What they promise holds for new rows drawn like these (in any order, from the
same source), and not for texts of another kind.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from bertlora.errors import InputError
from bertlora.evaluation.intervals import exact_interval
from bertlora.model.predict import Array

Labels = npt.NDArray[np.int64]

SURENESS = 0.95
STARTS = 4


@dataclass(frozen=True)
class RiskCoverage:
    """What abstaining buys: answering the surest rows alone, how many are answered and how many of these are wrong.

    Attributes:
        thresholds: (M,) confidences, falling: answer where the confidence is as large or larger.
        coverage: (M,) share of the rows answered, rising to 1.
        risk: (M,) share of these that is wrong.
    """

    thresholds: npt.NDArray[np.float64]
    coverage: npt.NDArray[np.float64]
    risk: npt.NDArray[np.float64]

    @property
    def area(self) -> float:
        """Area under the curve: the mean risk over all coverages, in 0..1; low where confidence tells right from wrong.

        After Geifman, Uziel and El-Yaniv 2019, "Bias-reduced uncertainty estimation for deep neural classifiers".
        """
        return float(np.sum(np.diff(self.coverage, prepend=0.0) * self.risk))


def risk_coverage(probabilities: Array, labels: Labels) -> RiskCoverage:
    """Returns the risk-coverage curve, a point for each confidence that occurs.

    Args:
        probabilities: (N, K).
        labels: (N,) the right classes.
    """
    confidence, wrong = _surest_first(probabilities, labels)
    answered = _separable(confidence)
    rows = len(confidence)
    return RiskCoverage(confidence[answered - 1], answered / rows, wrong[answered - 1] / answered)


@dataclass(frozen=True)
class Threshold:
    """The least confidence to answer with, and what it gives on the rows that it was chosen on.

    Attributes:
        value: answer where the largest probability is at least this; 0 answers always.
        coverage: share of the rows answered.
        accuracy: share of these that is right; None where none is answered.
        accuracy_ci95: its exact 95 % interval, as if the threshold had been chosen beforehand.
        promise: what holds for new rows, in one sentence.
    """

    value: float
    coverage: float
    accuracy: float | None
    accuracy_ci95: tuple[float, float] | None
    promise: str

    def answers(self, probabilities: Array) -> npt.NDArray[np.bool_]:
        """Returns which rows of (B, K) are sure enough to answer, (B,)."""
        return np.asarray(probabilities.max(axis=1) >= self.value)


def threshold_for_coverage(probabilities: Array, labels: Labels, coverage: float) -> Threshold:
    """Returns the highest threshold that answers at least a wanted share of texts.

    A new row is as likely to fall in any of the N + 1 gaps between the confidences of N rows, so the threshold is the
    one with few enough gaps below it (the quantile of conformal prediction, see `label_floor`).

    Args:
        probabilities: (N, K) of validation rows.
        labels: (N,) their right classes, which only tell the accuracy.
        coverage: the share to answer, above 0, at most 1.

    Raises:
        InputError: there are no rows, or the share is out of its range.
    """
    value = _reached(probabilities.max(axis=1), check_share("coverage", coverage))
    promise = f"a new text is answered with a probability of at least {coverage:.4g}"
    return _threshold(value, probabilities, labels, promise)


def threshold_for_accuracy(
    probabilities: Array, labels: Labels, accuracy: float, sureness: float = SURENESS
) -> Threshold:
    """Returns the threshold that answers most, of those shown to keep a wanted accuracy among the texts answered.

    In the way of Geifman and El-Yaniv 2017, "Selective classification for deep neural networks", a threshold is shown
    to keep it when so few errors among the rows answered would be too lucky otherwise (a binomial test). Many
    thresholds are tried, so luck is shared out as in Angelopoulos et al. 2021, "Learn then test": four starts, at a
    quarter, half, three quarters and all of the rows, have a quarter of it each, and from each start lower thresholds
    are tried until one fails.

    Args:
        probabilities: (N, K) of validation rows.
        labels: (N,) their right classes.
        accuracy: wanted among the texts answered, above 0 and below 1.
        sureness: of the promise, over the draw of the validation rows.

    Raises:
        InputError: there are no rows, a share is out of its range, or no threshold can be shown to keep the accuracy.
    """
    check_share("accuracy", accuracy), check_share("sureness", sureness)
    confidence, wrong = _surest_first(probabilities, labels)
    answered = _separable(confidence)
    luck = binom.cdf(wrong[answered - 1], answered, 1 - accuracy)
    passes = np.asarray(luck <= (1 - sureness) / STARTS)
    starts = np.searchsorted(answered, np.ceil(len(labels) * np.arange(1, STARTS + 1) / STARTS))
    kept = max((_last_of_run(passes, int(start)) for start in starts), default=-1)
    if kept < 0:
        raise InputError(
            f"accuracy {accuracy:.4g}: no threshold can be shown to keep it on {len(labels):,} validation rows; ask "
            "for less, or validate on more rows"
        )
    # Just above the surest row that is not answered: the rows above a given confidence are a fair sample.
    count = int(answered[kept])
    value = 0.0 if count == len(labels) else float(np.nextafter(confidence[count], 2.0))
    kept_share, sure = f"{100 * accuracy:.4g} %", f"{100 * sureness:.4g} %"
    promise = f"with {sure} sureness, at least {kept_share} of the new texts that are answered are right"
    return _threshold(value, probabilities, labels, promise)


def label_floor(probabilities: Array, labels: Labels, coverage: float) -> float:
    """Returns the least probability a label needs to be in the set, so that sets hold the right label often enough.

    Split conformal prediction with the score 1 - p of the right label, after Sadinle, Lei and Wasserman 2019, "Least
    ambiguous set-valued classifiers with bounded error levels": over draws of the validation rows and of a new row, its
    set holds the right label with a probability of at least `coverage`. This is so over all rows, not for each class.

    Args:
        probabilities: (N, K) of validation rows.
        labels: (N,) their right classes.
        coverage: wanted, above 0, at most 1.

    Returns:
        The probability, for `label_sets`; 0 (all labels) where N is too small for this coverage.

    Raises:
        InputError: there are no rows, or the coverage is out of its range.
    """
    return _reached(probabilities[np.arange(len(labels)), labels], check_share("coverage", coverage))


def label_sets(probabilities: Array, floor: float) -> npt.NDArray[np.bool_]:
    """Returns which labels are in each row's set, (B, K): those as probable as `floor`, and the most probable always.

    Without the latter some sets would be empty; with it the right label is held more often than was asked for where the
    model is right more often than that.
    """
    sets: npt.NDArray[np.bool_] = probabilities >= floor
    sets[np.arange(len(sets)), probabilities.argmax(axis=1)] = True
    return sets


def _surest_first(probabilities: Array, labels: Labels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Returns confidences (N,), falling, and the number of wrong rows among the first 1, 2, ..., N."""
    if not len(labels):
        raise InputError("no rows to choose by; give at least one")
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    return confidence[order], np.cumsum(probabilities.argmax(axis=1)[order] != labels[order])


def _separable(confidence: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Returns the numbers of rows that a threshold can answer: rows of the same confidence go together."""
    return np.append(np.flatnonzero(np.diff(confidence)), len(confidence) - 1) + 1


def _last_of_run(passes: npt.NDArray[np.bool_], start: int) -> int:
    """Returns the last place of the unbroken run of passes from `start` on, -1 where `start` does not pass."""
    if not passes[start]:
        return -1
    fails = np.flatnonzero(~passes[start:])
    return start + int(fails[0]) - 1 if len(fails) else len(passes) - 1


def _reached(values: npt.NDArray[np.float64], share: float) -> float:
    """Returns the largest of N values that a new one reaches with a probability of at least `share`; 0 if none is."""
    if not len(values):
        raise InputError("no rows to choose by; give at least one")
    # 0.9 * 10 and its like must not be rounded up to the next row.
    below = len(values) + 1 - math.ceil((len(values) + 1) * share - 1e-9)
    return float(np.sort(values)[below - 1]) if below else 0.0


def _threshold(value: float, probabilities: Array, labels: Labels, promise: str) -> Threshold:
    answered = probabilities.max(axis=1) >= value
    count, hits = int(answered.sum()), int(np.sum(probabilities.argmax(axis=1)[answered] == labels[answered]))
    if not count:
        return Threshold(value, 0.0, None, None, promise)
    return Threshold(value, count / len(labels), hits / count, exact_interval(hits, count), promise)


def check_share(name: str, value: float) -> float:
    """Returns a share as it came.

    Raises:
        InputError: it is not above 0 and at most 1.
    """
    if not 0 < value <= 1:
        raise InputError(f"{name}: got {value:.4g}, expected a share between 0 and 1, such as 0.9")
    return value
