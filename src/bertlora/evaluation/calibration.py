"""Do the probabilities mean what they say? Of a hundred answers given with 80 % confidence, eighty should be right."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from bertlora.evaluation.intervals import exact_interval
from bertlora.model.predict import Array, softmax
from bertlora.run.calibration import Calibration

Labels = npt.NDArray[np.int64]

BINS = 15
FEWEST_ROWS = 30
HOTTEST = 100.0
# 95 % of the chi-square distribution with one degree of freedom: twice a log-likelihood gains less by luck.
LUCK = 3.84


def calibrate(logits: Array, labels: Labels) -> Calibration | None:
    """Returns the calibration that a run keeps; None where there are no validation rows.

    Args:
        logits: (N, K) of validation rows, from the adapter that is kept.
        labels: (N,) their right classes.
    """
    if not len(labels):
        return None
    kept = logits.astype(np.float32)
    # Fitted on what is stored, so that it can be fitted again from there.
    scores = kept.astype(np.float64)
    temperature = fit_temperature(scores, labels)
    before, after = (calibration_error(softmax(scores / t), labels) for t in (1.0, temperature))
    return Calibration(temperature, before, after, kept, np.asarray(labels, dtype=np.int64))


def fit_temperature(logits: Array, labels: Labels) -> float:
    """Returns the temperature by which to divide logits so that probabilities fit the labels best.

    After Guo et al. 2017, "On Calibration of Modern Neural Networks": it minimises the negative log-likelihood, here
    over 0.01..100. As in Platt 1999, "Probabilistic outputs for support vector machines", the labels are a little
    uncertain: together they leave one row's weight to all classes alike. So N rows that are all right do not make a new
    one certain, only as sure as N rows can.

    A temperature is fitted on few rows, and a model that has learned next to nothing has logits that fit some rows by
    luck. So 1.0 is kept unless the likelihood-ratio test (Wilks 1938, "The large-sample distribution of the likelihood
    ratio for testing composite hypotheses") refuses it at 95 %: 2 N (gain in mean log-likelihood) > 3.84.

    Args:
        logits: (N, K) of rows that the model has not learned from.
        labels: (N,) their right classes.

    Returns:
        The temperature; 1.0 with fewer than 30 rows, or where no temperature fits better than luck would have it.
    """
    rows = len(labels)
    if rows < FEWEST_ROWS:
        return 1.0
    doubt = 1 / (rows + 1)
    right = float(np.mean((1 - doubt) * logits[np.arange(rows), labels] + doubt * logits.mean(axis=1)))

    def loss(log_temperature: float) -> float:
        scale = float(np.exp(-log_temperature))
        return float(np.mean(logsumexp(logits * scale, axis=1))) - right * scale

    bounds = -np.log(HOTTEST), np.log(HOTTEST)
    found = float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)
    return float(np.exp(found)) if 2 * rows * (loss(0.0) - loss(found)) > LUCK else 1.0


@dataclass(frozen=True)
class Bin:
    """Rows whose confidence lies in low..high: how sure the model was, and how often it was right.

    Attributes:
        low: the bin's lower edge, in 0..1.
        high: its upper edge.
        count: its rows, at least one.
        confidence: their mean probability of the class predicted.
        accuracy: the share of them that is right.
        accuracy_ci95: the exact 95 % interval of this share.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float
    accuracy_ci95: tuple[float, float]


def reliability(probabilities: Array, labels: Labels, bins: int = BINS) -> list[Bin]:
    """Returns the reliability curve: the bins of equal width that have rows, by rising confidence.

    Args:
        probabilities: (N, K).
        labels: (N,) the right classes.
        bins: how many parts 0..1 is cut into.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    curve = []
    for b in np.unique(place).tolist():
        here = place == b
        count, hits = int(here.sum()), int(right[here].sum())
        interval = exact_interval(hits, count)
        curve.append(Bin(b / bins, (b + 1) / bins, count, float(confidence[here].mean()), hits / count, interval))
    return curve


def calibration_error(probabilities: Array, labels: Labels, bins: int = BINS) -> float:
    """Returns the expected calibration error: |accuracy - confidence| over bins of confidence, weighted by their rows.

    After Guo et al. 2017, "On Calibration of Modern Neural Networks"; bins of equal width. It is never negative, so
    even perfect probabilities show a small error, the larger the fewer rows there are.
    """
    return sum(b.count * abs(b.accuracy - b.confidence) for b in reliability(probabilities, labels, bins)) / len(labels)


def brier_score(probabilities: Array, labels: Labels) -> float:
    """Returns the Brier score: the squared error of the probabilities, summed over classes, averaged over rows.

    In 0..2, as in Brier 1950, "Verification of forecasts expressed in terms of probability"; for two classes it is
    twice the score that looks at one class alone.
    """
    wanted = np.eye(probabilities.shape[1])[labels]
    return float(np.mean(np.sum((probabilities - wanted) ** 2, axis=1)))
