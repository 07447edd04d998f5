"""The linear probe: softmax regression on the frozen encoder's features, without any adapter. LoRA must beat it.

Letters: N training rows, F features, H inputs of the head's last linear layer, K classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from threadpoolctl import threadpool_limits

from bertlora.confidence.probabilities import Array, Labels
from bertlora.data.examples import Examples
from bertlora.errors import RunError
from bertlora.model.adapted import Adapted
from bertlora.model.engine import last_linear

FILE = "probe.safetensors"
# More rows hardly improve a linear probe of some hundred features, and each costs a pass through the encoder.
MAX_ROWS = 10_000
REGULARISATION = 0.1
MAX_ITERATIONS = 1000
# The learning curve has a point for each of these fractions of the training rows.
CURVE = (0.25, 0.5, 1.0)
FOLDS = 4


@dataclass(frozen=True)
class Probe:
    """A linear probe.

    Attributes:
        weight: (K, F), with the standardisation of the features folded in.
        bias: (K,).
    """

    weight: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]

    def logits(self, features: Array) -> Array:
        """Returns (B, K) for features (B, F)."""
        return np.asarray(features @ self.weight.T + self.bias)

    def save(self, run: Path) -> None:
        """Writes RUN/probe.safetensors."""
        (run / FILE).write_bytes(save({"weight": self.weight, "bias": self.bias}))

    @classmethod
    def load(cls, run: Path) -> "Probe | None":
        """Returns the linear probe of a run folder, or None if the folder has none.

        Raises:
            RunError: its file is damaged.
        """
        file = run / FILE
        if not file.is_file():
            return None
        try:
            tensors = load_file(file)
        except (OSError, SafetensorError) as error:
            raise RunError(f"{file}: cannot be read ({error}); the run is damaged") from error
        return cls(tensors["weight"], tensors["bias"])


@dataclass(frozen=True)
class CurvePoint:
    """A point of a learning curve: training rows, and each fold's accuracy, 0..1, on its held-out rows."""

    rows: int
    accuracies: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """The mean over folds."""
        return float(np.mean(self.accuracies))


@dataclass(frozen=True)
class FrozenView:
    """The frozen encoder's features of training rows.

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
    """Runs the encoder without its adapter on training rows: on a random 10,000 of them if there are more.

    Returns:
        The inputs of the head's last linear layer, (N, H); and the features: the last layer's first token and mean
        over tokens.
    """
    rows = np.arange(len(train))
    if len(rows) > MAX_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_ROWS, replace=False))
    at_head, features = adapted.base_features(train.inputs.take(rows.tolist()), precision, head=False)
    labels, classes = train.labels[rows], len(adapted.labels)
    return FrozenView(at_head, labels, classes), FrozenView(features, labels, classes)


def fit_probe(frozen: FrozenView) -> Probe | None:
    """Fits softmax regression to the features. Returns None if there is a single class."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(frozen.labels)) < 2:
        return None
    scaler = StandardScaler().fit(frozen.features)
    fitted = LogisticRegression(C=REGULARISATION, max_iter=MAX_ITERATIONS)
    # The products are small. BLAS threads compete with torch's, and the fit would take six times as long.
    with threadpool_limits(limits=1, user_api="blas"):
        fitted.fit(scaler.transform(frozen.features), frozen.labels)
    return _folded(fitted, scaler, frozen.classes)


def learning_curve(frozen: FrozenView, seed: int) -> list[CurvePoint]:
    """Returns the accuracy of linear probes that learn from a quarter, half and all of three folds, on the fourth fold.

    Each of the four folds is held out once, in the same order at each point. The curve is empty if a class has fewer
    rows than there are folds. A point is left out if the rows of a fold have a single class.
    """
    from sklearn.model_selection import StratifiedKFold

    counts = np.bincount(frozen.labels, minlength=frozen.classes)
    if counts[counts > 0].min() < FOLDS or np.sum(counts > 0) < 2:
        return []
    found: dict[float, list[tuple[int, float]]] = {share: [] for share in CURVE}
    for learned, held_out in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(
        frozen.features, frozen.labels
    ):
        # StratifiedKFold gives rows in order; a fraction of them must be a random one.
        learned = np.random.default_rng(seed).permutation(learned)
        for share, results in found.items():
            part = learned[: max(2, round(share * len(learned)))]
            probe = fit_probe(FrozenView(frozen.features[part], frozen.labels[part], frozen.classes))
            if probe is not None:
                right = probe.logits(frozen.features[held_out]).argmax(axis=1) == frozen.labels[held_out]
                results.append((len(part), float(right.mean())))
    whole = [zip(*results, strict=True) for results in found.values() if len(results) == FOLDS]
    return [CurvePoint(round(float(np.mean(rows))), tuple(accuracies)) for rows, accuracies in whole]


def _folded(fitted: Any, scaler: Any, classes: int) -> Probe:
    """Returns weights for features that are not standardised, with one row for each of K classes, seen or not."""
    coefficients, intercepts = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:  # scikit-learn keeps the second class's row only
        coefficients, intercepts = (
            np.vstack([-coefficients, coefficients]) / 2,
            np.hstack([-intercepts, intercepts]) / 2,
        )
    weight: npt.NDArray[np.float64] = np.zeros((classes, coefficients.shape[1]))
    bias: npt.NDArray[np.float64] = np.full(classes, -1e9)
    weight[fitted.classes_] = coefficients / scaler.scale_
    bias[fitted.classes_] = intercepts - (coefficients / scaler.scale_) @ scaler.mean_
    return Probe(weight, bias)


def aim_head(model: Any, weight: npt.NDArray[np.float64]) -> None:
    """Turns the head's last linear layer, (K, H), to the direction of `weight`; its length stays.

    Starting from the fitted head itself (Kumar et al. 2022, "LP-FT") makes large weights if features are small, and the
    encoder then hardly learns. The direction is enough for the first steps to go the right way. A `weight` of 0 has no
    direction and changes nothing.

    Args:
        model: PEFT's model. The base's own head does not change.
        weight: (K, H), such as a linear probe's on the input of that layer.
    """
    layer = last_linear(model, "modules_to_save")
    direction = torch.from_numpy(weight - weight.mean(axis=0))
    if direction.norm() > 0:
        with torch.no_grad():
            layer.weight.copy_(direction * (float(layer.weight.norm()) / float(direction.norm())))
