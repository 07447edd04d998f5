"""Probabilities of logits, and how well they match outcomes: cross-entropy, Brier score, reliability curve, ECE.

Letters: N rows, K classes, B bins of confidence that have rows, R resamples.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]
Events = npt.NDArray[np.bool_]

BINS = 15
RESAMPLES = 1000
RANGE95 = [2.5, 97.5]


def softmax(logits: Array) -> Array:
    """Returns probabilities for logits (N, K)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def sigmoid(logits: Array) -> Array:
    """Returns the probability of each label, for logits of any shape; it does not overflow."""
    return np.asarray((1 + np.tanh(logits / 2)) / 2)


def row_losses(logits: Array, y_true: Labels) -> Array:
    """Returns the negative log-likelihood (N,) of each label (N,) under logits (N, K), in nats."""
    top = logits.max(axis=1, keepdims=True)
    log_sums = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
    return np.asarray(log_sums - logits[np.arange(len(y_true)), y_true])


def cross_entropy(logits: Array, y_true: Labels) -> float:
    """Returns the mean negative log-likelihood of labels (N,) under logits (N, K), in nats."""
    return float(np.mean(row_losses(logits, y_true)))


def brier_score(probabilities: Array, labels: Labels) -> float:
    """Returns the Brier score: the squared error of the probabilities, summed over classes, averaged over rows.

    In 0..2, as in Brier 1950, "Verification of forecasts expressed in terms of probability". For two classes it is
    twice the common score that uses one class only.
    """
    errors = probabilities.copy()
    errors[np.arange(len(labels)), labels] -= 1
    return float(np.mean(np.sum(errors**2, axis=1)))


@dataclass(frozen=True)
class Bin:
    """The rows whose confidence is in low..high: their mean confidence, and their accuracy.

    Of events such as a label of several, `confidence` is the mean probability, and `accuracy` the share of rows with
    the event.

    Attributes:
        low: lower edge of the bin, in 0..1.
        high: upper edge.
        count: number of rows, at least one.
        confidence: mean probability of the predicted class.
        accuracy: fraction of the rows that are right.
        accuracy_ci95: exact 95 % confidence interval of the accuracy.
        perfect_range95: 95 % of the accuracies that perfect probabilities would show with this number of rows.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float
    accuracy_ci95: tuple[float, float]
    perfect_range95: tuple[float, float]


def reliability(probabilities: Array, labels: Labels, bins: int = BINS) -> list[Bin]:
    """Returns the reliability curve of the predicted classes; see `event_reliability`.

    Args:
        probabilities: (N, K).
        labels: (N,) the right classes.
        bins: number of bins of equal width in 0..1.
    """
    return event_reliability(*_predicted(probabilities, labels), bins)


def event_reliability(confidence: Array, happened: Events, bins: int = BINS) -> list[Bin]:
    """Returns the reliability curve of events: the bins that have rows, by rising confidence.

    The range of perfect probabilities is the consistency bar of Bröcker and Smith 2007, "Increasing the reliability of
    reliability diagrams". Here it is computed from the binomial distribution.

    Args:
        confidence: (N,) probability of an event, such as that the predicted class is right.
        happened: (N,) whether it happened.
        bins: number of bins of equal width in 0..1.
    """
    # Not at the top: scipy takes a second to import, and predictions do not need it.
    from scipy.stats import binom

    from bertlora.confidence.intervals import exact_interval

    curve = []
    found = _binned(confidence, happened, bins)
    for place, count, hits, mean in zip(*(part.tolist() for part in found), strict=True):
        low, high = (float(binom.ppf(share, count, mean)) / count for share in (0.025, 0.975))
        interval, edges = exact_interval(hits, count), (place / bins, (place + 1) / bins)
        curve.append(Bin(*edges, count, mean, hits / count, interval, (max(low, 0.0), high)))
    return curve


def calibration_error(probabilities: Array, labels: Labels, bins: int = BINS) -> float:
    """Returns the expected calibration error: the mean of |accuracy - confidence| over bins, weighted by their rows.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", with bins of equal width. Even perfect probabilities
    have an error above 0, because it cannot be negative; the fewer the rows, the larger it is. See `CalibrationError`.
    """
    return _binned(*_predicted(probabilities, labels), bins).error


@dataclass(frozen=True)
class CalibrationError:
    """The expected calibration error of N rows, and what chance gives with these rows.

    Attributes:
        value: the measured error, in 0..1.
        ci95: its 95 % confidence interval, for new rows from the same distribution.
        floor: the mean error that perfect probabilities would show with these confidences.
        floor_range95: 95 % of the errors of perfect probabilities are in this range.
    """

    value: float
    ci95: tuple[float, float]
    floor: float
    floor_range95: tuple[float, float]

    @classmethod
    def of(cls, probabilities: Array, labels: Labels, bins: int = BINS, seed: int = 0) -> "CalibrationError":
        """Measures the error of the predicted classes; see `of_events`.

        Args:
            probabilities: (N, K), N at least 1.
            labels: (N,) the right classes.
            bins: number of bins of equal width in 0..1.
            seed: seed of the resampling.
        """
        return cls.of_events(*_predicted(probabilities, labels), bins, seed)

    @classmethod
    def of_events(cls, confidence: Array, happened: Events, bins: int = BINS, seed: int = 0) -> "CalibrationError":
        """Measures the error of events, and resamples what chance gives.

        The floor is the consistency resampling of Bröcker and Smith 2007, "Increasing the reliability of reliability
        diagrams": labels are drawn from the probabilities themselves.

        The error is biased upwards (Roelofs et al. 2022, "Mitigating bias in calibration error estimation"), so
        percentiles of a bootstrap would miss the truth. The interval follows from the triangle inequality. Let e be the
        noise of a bin, as a fraction of all rows. The measured error is at most the true one plus the sum of all |e|.
        It is at least the true one plus the sum of all e, each with the sign of its bin's gap. The bootstrap over rows
        gives 97.5 % bounds of both sums. So the coverage is 95 % or more.

        Args:
            confidence: (N,) probability of an event, N at least 1.
            happened: (N,) whether it happened.
            bins: number of bins of equal width in 0..1.
            seed: seed of the resampling.
        """
        found, rng = _binned(confidence, happened, bins), np.random.default_rng(seed)
        perfect = _perfect_errors(found, rng)
        low, high = (float(end) for end in np.percentile(perfect, RANGE95))
        return cls(found.error, _interval(found, rng), float(perfect.mean()), (low, high))

    @property
    def above_chance(self) -> bool:
        """Whether the error is above the range that perfect probabilities would show, and its interval excludes zero.

        The range and the interval are different methods. If they disagree, it counts as not above chance.
        """
        return self.value > self.floor_range95[1] and self.ci95[0] > 0

    def figures(self) -> dict[str, Any]:
        """Returns the error for JSON, under the names of `evaluate --json`."""
        return {
            "ece": self.value,
            "ece_ci95": list(self.ci95),
            "ece_floor": self.floor,
            "ece_floor_range95": list(self.floor_range95),
        }


class _Binned(NamedTuple):
    """The bins that have rows, by rising confidence. All parts are (B,).

    Attributes:
        place: number of the bin, from 0.
        counts: its rows.
        hits: in how many of these the event happened, such as that the predicted class is right.
        confidence: mean probability of the event.
    """

    place: Counts
    counts: Counts
    hits: Counts
    confidence: npt.NDArray[np.float64]

    @property
    def gaps(self) -> npt.NDArray[np.float64]:
        """(B,) right rows minus expected right rows, as a fraction of all rows."""
        return np.asarray((self.hits - self.counts * self.confidence) / self.counts.sum())

    @property
    def error(self) -> float:
        """The expected calibration error."""
        return float(np.abs(self.gaps).sum())


def _predicted(probabilities: Array, labels: Labels) -> tuple[Array, Events]:
    """Returns the confidence (N,) of the most probable class, and whether it is right."""
    return np.asarray(probabilities.max(axis=1)), np.asarray(probabilities.argmax(axis=1) == labels)


def _binned(confidence: Array, happened: Events, bins: int) -> _Binned:
    place, bin_of = np.unique(np.minimum((confidence * bins).astype(int), bins - 1), return_inverse=True)
    counts = np.bincount(bin_of)
    # A sum of probabilities may pass 1 by a rounding error.
    mean = np.minimum(np.bincount(bin_of, confidence) / counts, 1.0)
    return _Binned(place, counts, np.bincount(bin_of, happened).astype(np.int64), mean)


def _perfect_errors(found: _Binned, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Returns R calibration errors of rows whose labels are drawn from the probabilities, (R,)."""
    # A bin is so narrow that its mean confidence can stand for each row: the spread changes by less than 2 %.
    hits = rng.binomial(found.counts, found.confidence, size=(RESAMPLES, len(found.counts)))
    errors = np.abs(hits - found.counts * found.confidence).sum(axis=1) / found.counts.sum()
    return np.asarray(errors)


def _interval(found: _Binned, rng: np.random.Generator) -> tuple[float, float]:
    """Returns the 95 % confidence interval of the calibration error; see `CalibrationError.of`."""
    rows = int(found.counts.sum())
    # Half a row more on either side (Jeffreys): a bin whose rows are all right can have wrong ones too.
    accuracy = (found.hits + 0.5) / (found.counts + 1)
    counts = rng.multinomial(rows, found.counts / rows, size=RESAMPLES)  # (R, B)
    gaps = (rng.binomial(counts, accuracy) - counts * found.confidence) / rows
    noise = gaps - found.counts * (accuracy - found.confidence) / rows
    signed = noise @ np.where(found.gaps < 0, -1.0, 1.0)
    most, least = np.percentile(np.abs(noise).sum(axis=1), 97.5), np.percentile(signed, 2.5)
    return max(found.error - float(most), 0.0), min(found.error - float(least), 1.0)
