"""The linear probe: what the frozen encoder gives without any adapter. LoRA must beat it to be worth its name.

Letters: N training rows, F features, K classes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from bertlora.model.adapted import Adapted
from bertlora.model.predict import Array
from bertlora.run import Probe
from bertlora.training.events import Examples

Labels = npt.NDArray[np.int64]

# More rows hardly move a probe of some hundred features, and cost a pass of the encoder each.
MAX_ROWS = 10_000
REGULARISATION = 0.1
MAX_ITERATIONS = 1000
# Shares of the training rows that the learning curve is drawn through.
CURVE = (0.25, 0.5, 1.0)
FOLDS = 4


@dataclass(frozen=True)
class CurvePoint:
    """A point of a learning curve: training rows, and for each fold the accuracy, 0..1, on rows not learned from."""

    rows: int
    accuracies: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """The mean over folds."""
        return float(np.mean(self.accuracies))


@dataclass(frozen=True)
class FrozenView:
    """What the frozen encoder makes of training rows.

    Attributes:
        features: (N, F).
        labels: (N,).
        classes: K.
    """

    features: Array
    labels: Labels
    classes: int


def frozen_views(
    adapted: Adapted, train: Examples, seed: int, precision: str = "fp32"
) -> tuple[FrozenView, FrozenView]:
    """Runs the encoder, its adapter switched off, on training rows: a random 10,000 of them if there are more.

    Returns:
        What goes into the head's last linear layer, (N, H); and the last layer's first token and mean over tokens.
    """
    rows = np.arange(len(train))
    if len(rows) > MAX_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_ROWS, replace=False))
    at_head, features = adapted.frozen_view(train.inputs.take(rows.tolist()), precision)
    labels, classes = train.labels[rows], len(adapted.labels)
    return FrozenView(at_head, labels, classes), FrozenView(features, labels, classes)


def fit_probe(frozen: FrozenView) -> Probe | None:
    """Returns softmax regression on the features, their standardisation folded into its weights.

    None when there is one class alone.
    """
    if len(np.unique(frozen.labels)) < 2:
        return None
    scaler = StandardScaler().fit(frozen.features)
    fitted = LogisticRegression(C=REGULARISATION, max_iter=MAX_ITERATIONS)
    # Its products are small, and threads of BLAS stand in the way of torch's: with them it takes six times as long.
    with threadpool_limits(limits=1, user_api="blas"):
        fitted.fit(scaler.transform(frozen.features), frozen.labels)
    return _folded(fitted, scaler, frozen.classes)


def learning_curve(frozen: FrozenView, seed: int) -> list[CurvePoint]:
    """Returns how probes do that learn from a quarter, half and all of three folds, judged on the fourth.

    Four folds in turn, in the same order at each point. Empty when a class has fewer rows than there are folds; a point
    is left out when a fold's rows are of one class alone.
    """
    counts = np.bincount(frozen.labels, minlength=frozen.classes)
    if counts[counts > 0].min() < FOLDS or np.sum(counts > 0) < 2:
        return []
    found: dict[float, list[tuple[int, float]]] = {share: [] for share in CURVE}
    for learned, judged in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(
        frozen.features, frozen.labels
    ):
        # StratifiedKFold gives rows in order; a share of them must be a random one.
        learned = np.random.default_rng(seed).permutation(learned)
        for share, results in found.items():
            part = learned[: max(2, round(share * len(learned)))]
            probe = fit_probe(FrozenView(frozen.features[part], frozen.labels[part], frozen.classes))
            if probe is not None:
                right = probe.logits(frozen.features[judged]).argmax(axis=1) == frozen.labels[judged]
                results.append((len(part), float(right.mean())))
    whole = [zip(*results, strict=True) for results in found.values() if len(results) == FOLDS]
    return [CurvePoint(round(float(np.mean(rows))), tuple(accuracies)) for rows, accuracies in whole]


def _folded(fitted: LogisticRegression, scaler: StandardScaler, classes: int) -> Probe:
    """Returns weights for features as they come, and a row a class, also for two classes and for classes not seen."""
    coefficients, intercepts = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:  # scikit-learn then has the second class's row alone
        coefficients, intercepts = (
            np.vstack([-coefficients, coefficients]) / 2,
            np.hstack([-intercepts, intercepts]) / 2,
        )
    weight: npt.NDArray[np.float64] = np.zeros((classes, coefficients.shape[1]))
    bias: npt.NDArray[np.float64] = np.full(classes, -1e9)
    weight[fitted.classes_] = coefficients / scaler.scale_
    bias[fitted.classes_] = intercepts - (coefficients / scaler.scale_) @ scaler.mean_
    return Probe(weight, bias)
