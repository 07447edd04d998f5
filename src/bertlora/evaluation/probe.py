"""The linear probe: what the frozen encoder gives without any adapter. LoRA must beat it to be worth its name."""

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from bertlora.model.adapted import Adapted
from bertlora.run import Probe
from bertlora.training.events import Examples

# More rows hardly move a probe of some hundred features, and cost a pass of the encoder each.
MAX_ROWS = 10_000
REGULARISATION = 0.1
MAX_ITERATIONS = 1000


def fit_probe(adapted: Adapted, train: Examples, seed: int, precision: str = "fp32") -> Probe | None:
    """Returns softmax regression on the frozen encoder's first token and mean over tokens.

    Args:
        adapted: the encoder; its adapter is switched off.
        train: the rows to fit on; a random 10,000 of them if there are more.
        seed: draws these rows.
        precision: `fp32` or `bf16`.

    Returns:
        The probe, the features' standardisation folded into its weights; None when `train` has one class alone.
    """
    rows = np.arange(len(train))
    if len(rows) > MAX_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_ROWS, replace=False))
    labels = train.labels[rows]
    if len(np.unique(labels)) < 2:
        return None
    _, features = adapted.base_view(train.inputs.take(rows.tolist()), precision)
    scaler = StandardScaler().fit(features)
    fitted = LogisticRegression(C=REGULARISATION, max_iter=MAX_ITERATIONS).fit(scaler.transform(features), labels)
    return _folded(fitted, scaler, len(adapted.labels))


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
