"""An answer to uncertainty: give no label below a confidence threshold. `label_sets` has another one.

Thresholds are chosen on validation rows. Their guarantees hold for new rows from the same distribution
(exchangeability), and not for other kinds of texts.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from bertlora.confidence.intervals import exact_interval
from bertlora.confidence.probabilities import Array, Labels
from bertlora.errors import InputError

CONFIDENCE_LEVEL = 0.95
STARTS = 4
# With fewer rows, the interval of an accuracy near 90 % is more than 20 points wide.
FEW = 30


@dataclass(frozen=True)
class RiskCoverage:
    """The trade-off of abstention: at each threshold, how many rows are answered and how many of these are wrong.

    Attributes:
        thresholds: (M,) confidences, falling. A row is answered if its confidence is at least the threshold.
        coverage: (M,) fraction of the rows that are answered, rising to 1.
        risk: (M,) fraction of the answered rows that are wrong.
    """

    thresholds: npt.NDArray[np.float64]
    coverage: npt.NDArray[np.float64]
    risk: npt.NDArray[np.float64]

    @property
    def area(self) -> float:
        """Area under the curve: the mean risk over all coverages, in 0..1.

        It is low if the right rows have more confidence than the wrong ones. Geifman, Uziel and El-Yaniv 2019,
        "Bias-reduced uncertainty estimation for deep neural classifiers".
        """
        return float(np.sum(np.diff(self.coverage, prepend=0.0) * self.risk))


def risk_coverage(probabilities: Array, labels: Labels) -> RiskCoverage:
    """Returns the risk-coverage curve, with one point for each distinct confidence.

    Args:
        probabilities: (N, K).
        labels: (N,) the right classes.
    """
    confidence, wrong = _most_confident_first(probabilities, labels)
    answered = _possible_counts(confidence)
    rows = len(confidence)
    return RiskCoverage(confidence[answered - 1], answered / rows, wrong[answered - 1] / answered)


@dataclass(frozen=True)
class Threshold:
    """The lowest confidence at which a label is given, and its results on the rows that it was chosen on.

    Attributes:
        value: a label is given if the largest probability is at least this; 0 always gives one.
        rows: number of rows that it was chosen on, N.
        answered: how many of these reach it, at least one.
        accuracy: fraction of the answered rows that are right.
        accuracy_ci95: its exact 95 % confidence interval, as if the threshold had been chosen in advance.
        promise: the guarantee for new rows, in one sentence.
    """

    value: float
    rows: int
    answered: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    promise: str

    @property
    def coverage(self) -> float:
        """Fraction of the rows that are answered."""
        return self.answered / self.rows

    @property
    def note(self) -> str:
        """The threshold, its promise, and how many validation rows are behind it; for people."""
        low, high = (100 * end for end in self.accuracy_ci95)
        only = "only " if self.answered < FEW else ""
        return (
            f"a label from a confidence of {self.value:.3f}: {self.promise}; {only}{self.answered:,} of {self.rows:,} "
            f"validation rows reach it, {100 * self.accuracy:.1f} % of these are right (95 % CI {low:.1f} to "
            f"{high:.1f})"
        )

    def answers(self, probabilities: Array) -> npt.NDArray[np.bool_]:
        """Returns which rows of (B, K) reach the threshold, (B,)."""
        return np.asarray(probabilities.max(axis=1) >= self.value)


def threshold_for_coverage(probabilities: Array, labels: Labels, coverage: float) -> Threshold:
    """Returns the highest threshold that answers at least a given fraction of texts.

    N confidences leave N + 1 gaps, and the confidence of a new row falls into each gap with the same probability. The
    threshold is the quantile with few enough gaps below it (as in conformal prediction, see `label_sets`).

    Args:
        probabilities: (N, K) of validation rows.
        labels: (N,) their right classes; they are used only to report the accuracy.
        coverage: fraction of texts to answer, above 0, at most 1.

    Raises:
        InputError: there are no rows, or the coverage is out of range.
    """
    check_rows(labels)
    value = reached(probabilities.max(axis=1), check_share("coverage", coverage))
    promise = f"a new text gets a label with a probability of at least {coverage:.4g}"
    return _threshold(value, probabilities, labels, promise)


def threshold_for_accuracy(
    probabilities: Array, labels: Labels, accuracy: float, confidence_level: float = CONFIDENCE_LEVEL
) -> Threshold:
    """Returns the threshold with the highest coverage that guarantees an accuracy among the answered texts.

    Geifman and El-Yaniv 2017, "Selective classification for deep neural networks": a binomial test on the answered
    rows must reject that the accuracy is lower. Many thresholds are tested, so the error probability is split as in
    Angelopoulos et al. 2021, "Learn then test". There are four starting points, at a quarter, half, three quarters and
    all of the rows, and each gets a quarter of it. From each start, lower thresholds are tested until one fails.

    Args:
        probabilities: (N, K) of validation rows.
        labels: (N,) their right classes.
        accuracy: wanted accuracy among the answered texts, above 0 and below 1.
        confidence_level: probability, over the draw of the validation rows, that the guarantee holds.

    Raises:
        InputError: there are no rows, a value is out of range, or no threshold guarantees the accuracy.
    """
    check_share("accuracy", accuracy), check_share("confidence_level", confidence_level)
    confidence, wrong = _most_confident_first(probabilities, labels)
    answered = _possible_counts(confidence)
    p_values = binom.cdf(wrong[answered - 1], answered, 1 - accuracy)
    passes = np.asarray(p_values <= (1 - confidence_level) / STARTS)
    starts = np.searchsorted(answered, np.ceil(len(labels) * np.arange(1, STARTS + 1) / STARTS))
    kept = max((_last_of_run(passes, int(start)) for start in starts), default=-1)
    if kept < 0:
        raise InputError(
            f"accuracy {accuracy:.4g}: no threshold guarantees it on {len(labels):,} validation rows; ask for less, or "
            "validate on more rows"
        )
    # Just above the most confident row that is not answered: rows above a fixed confidence are an unbiased sample.
    count = int(answered[kept])
    value = 0.0 if count == len(labels) else float(np.nextafter(confidence[count], 2.0))
    level = f"{100 * confidence_level:.4g} %"
    promise = (
        f"at a confidence level of {level}, at least {100 * accuracy:.4g} % of the new texts that get a label are right"
    )
    return _threshold(value, probabilities, labels, promise)


def _most_confident_first(
    probabilities: Array, labels: Labels
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Returns confidences (N,), falling, and the number of wrong rows among the first 1, 2, ..., N."""
    check_rows(labels)
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    return confidence[order], np.cumsum(probabilities.argmax(axis=1)[order] != labels[order])


def _possible_counts(confidence: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Returns how many rows a threshold can answer: rows of equal confidence are answered together."""
    return np.append(np.flatnonzero(np.diff(confidence)), len(confidence) - 1) + 1


def _last_of_run(passes: npt.NDArray[np.bool_], start: int) -> int:
    """Returns the last index of the run of passes that begins at `start`, -1 if `start` does not pass."""
    if not passes[start]:
        return -1
    fails = np.flatnonzero(~passes[start:])
    return start + int(fails[0]) - 1 if len(fails) else len(passes) - 1


def _threshold(value: float, probabilities: Array, labels: Labels, promise: str) -> Threshold:
    answered = probabilities.max(axis=1) >= value
    count, hits = int(answered.sum()), int(np.sum(probabilities.argmax(axis=1)[answered] == labels[answered]))
    return Threshold(value, len(labels), count, hits / count, exact_interval(hits, count), promise)


def reached(values: npt.NDArray[np.float64], share: float) -> float:
    """Returns the largest of N values that a new value reaches with a probability of at least `share`.

    0 if N is too small for this share: one gap of N + 1 is then more than 1 - `share`.
    """
    below = gaps_below(len(values), share)
    return float(np.sort(values)[below - 1]) if below else 0.0


def gaps_below(rows: int, share: float) -> int:
    """Returns how many of the N + 1 gaps between N values may be below a threshold that `share` of new values reach."""
    # 1e-9: a floating-point error above a whole number must not round up to the next row.
    return rows + 1 - math.ceil((rows + 1) * share - 1e-9)


def check_rows(labels: Labels) -> None:
    """Raises InputError if there are no rows to choose a threshold on."""
    if not len(labels):
        raise InputError("no rows to choose a threshold on; give at least one")


def check_share(name: str, value: float) -> float:
    """Returns the value unchanged.

    Raises:
        InputError: the value is not above 0 and at most 1.
    """
    if not 0 < value <= 1:
        raise InputError(f"{name}: got {value:.4g}, expected a fraction between 0 and 1, such as 0.9")
    return value
