"""The linear probe: softmax or ridge regression on the frozen encoder's features, with no adapter. LoRA must beat it.

It also shows whether more rows would help, by its learning curve, and gives the head its start.

Letters: N training rows, D the encoder's width, H inputs of the head's last linear layer, K classes.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file, save

from bertlora.confidence.calibration import reading
from bertlora.confidence.probabilities import Array
from bertlora.data.reader import Examples
from bertlora.hashes import is_part
from bertlora.model.adapted import Adapted
from bertlora.model.engine import Features, last_linear
from bertlora.rivals.regression import Regression, Weights, fit_direction, fit_linear, refit

FILE = "probe.safetensors"
# More rows hardly improve a linear probe of some hundred features, and each costs a pass through the encoder.
MAX_ROWS = 10_000
STRENGTHS = tuple(10.0 ** (half / 2) for half in range(-8, 1))
# The learning curve has a point for each of these fractions of the training rows.
CURVE_SHARES = (0.25, 0.5, 1.0)
CURVE_FOLDS = 4


@dataclass(frozen=True)
class FrozenView:
    """What the frozen encoder gives for training rows.

    Attributes:
        features: (N, 2 D) of the encoder, as `Execution.features` returns them; or (N, H) at the head. In float32.
        labels: (N,) classes, (N, K) which labels, or (N,) float64 numbers.
        classes: K; 1 for numbers.
        weights: (N,) how much each row counts; None if all count equally.
    """

    features: Features
    labels: npt.NDArray[Any]
    classes: int
    weights: Weights = None


@dataclass(frozen=True)
class Probe:
    """A linear probe.

    Attributes:
        regression: weights for the features that `only_mean` names; the standardisation is folded in.
        only_mean: whether it reads only the mean over tokens, at length √D, instead of first token and mean.
    """

    regression: Regression
    only_mean: bool

    @property
    def reads(self) -> str:
        """What it reads, in words."""
        return "mean over tokens" if self.only_mean else "first token and mean over tokens"

    def logits(self, features: Features) -> Array:
        """Returns calibrated logits (B, K), or numbers (B, 1), for features (B, 2 D)."""
        return self.regression.logits(mean_direction(features) if self.only_mean else features)

    def save(self, run: Path) -> None:
        """Writes RUN/probe.safetensors."""
        (run / FILE).write_bytes(save(self.regression.tensors() | {"only_mean": np.array([self.only_mean])}))

    @classmethod
    def load(cls, run: Path) -> "Probe | None":
        """Returns the linear probe of a run folder, or None if the folder has none.

        Raises:
            RunError: its file is damaged.
        """
        file = run / FILE
        if not is_part(file):
            return None
        with reading(file):
            found = load_file(file)
            # Runs of earlier versions do not have the mean.
            return cls(Regression.of(found), bool(found.get("only_mean", np.zeros(1))[0]))


def probe_precision(adapted: Adapted, training: str) -> str:
    """Returns the precision in which the encoder reads for the linear probe, if a training runs in this one.

    It is not int8: LoRA learns around the rounding to 8 bits, and a linear probe on frozen features cannot.
    """
    return adapted.choose_precision("auto") if training == "int8" else training


def frozen_views(
    adapted: Adapted, train: Examples, seed: int, precision: str = "fp32"
) -> tuple[FrozenView, FrozenView]:
    """Runs the encoder without its adapter on training rows: on a random 10,000 of them if there are more.

    Returns:
        The inputs of the head's last linear layer, (N, H); and the features, (N, 2 D).
    """
    rows = np.arange(len(train))
    if len(rows) > MAX_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_ROWS, replace=False))
    at_head, features = adapted.base_features(train.inputs.take(rows.tolist()), precision, head=False)
    weights = None if train.weights is None else train.weights[rows]
    facts = train.labels[rows], len(adapted.labels), weights
    return FrozenView(at_head, *facts), FrozenView(features, *facts)


def fit_probe(frozen: FrozenView, seed: int) -> Probe | None:
    """Fits the linear probe: of two kinds of features the one with the lower cross-validated loss.

    The features are first token and mean over tokens, standardised; or only the direction of the mean over tokens. The
    mean is of what enters the last layer: it tells sentiment better than the last layer's mean, which pre-training
    bends to its own task, and costs less.

    Returns:
        The linear probe; None if there is a single class.
    """
    found = []
    for only_mean in (False, True):
        features = mean_direction(frozen.features) if only_mean else frozen.features
        scaled, centre, spread = standardised(features)
        fitted = fit_linear(scaled, frozen.labels, frozen.classes, STRENGTHS, seed, frozen.weights)
        if fitted is not None:
            found.append(Probe(_folded(fitted, centre, spread), only_mean))
    return min(found, key=lambda probe: probe.regression.loss, default=None)


def mean_direction(features: Features) -> Array:
    """Returns the mean over tokens, the second half of the features (B, 2 D), scaled to length √D: (B, D)."""
    mean = features[:, features.shape[1] // 2 :].astype(np.float64)
    length = np.linalg.norm(mean, axis=1, keepdims=True)
    mean *= mean.shape[1] ** 0.5 / np.maximum(length, 1e-12)
    return mean


def standardised(features: Features | Array) -> tuple[Array, Array, Array]:
    """Returns features (N, F) with mean 0 and deviation 1 in each column, and the means and deviations, (F,)."""
    centre, spread = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    spread[spread < 1e-12] = 1.0  # a constant feature
    scaled: Array = features - centre
    scaled /= spread  # in place: with many rows, this is the largest array of all
    return scaled, centre, spread


def _folded(fitted: Regression, centre: Array, spread: Array) -> Regression:
    """Returns the regression for features that are not standardised."""
    weight = fitted.weight / spread
    return replace(fitted, weight=weight, bias=fitted.bias - weight @ centre)


@dataclass(frozen=True)
class CurvePoint:
    """A point of a learning curve.

    Attributes:
        rows: number of training rows.
        accuracies: each fold's balanced accuracy, 0..1, on its held-out rows: the mean recall of the classes. So a
            frequent class does not hide that a rare one is missed.
    """

    rows: int
    accuracies: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """The mean over folds."""
        return float(np.mean(self.accuracies))


def learning_curve(frozen: FrozenView, probe: Probe | None, seed: int) -> list[CurvePoint]:
    """Returns the balanced accuracy of linear probes that learn from a quarter, half and all of three folds.

    Each of the four folds is held out once, in the same order at each point. All use the features and the strength of
    `probe`. The curve is for classes. It is empty without a linear probe, or if a class has fewer rows than folds. A
    point is left out if the rows of a fold have a single class.
    """
    from sklearn.metrics import recall_score
    from sklearn.model_selection import StratifiedKFold

    if frozen.labels.dtype.kind != "i":
        return []
    counts = np.bincount(frozen.labels, minlength=frozen.classes)
    if probe is None or counts[counts > 0].min() < CURVE_FOLDS:
        return []
    features, _, _ = standardised(mean_direction(frozen.features) if probe.only_mean else frozen.features)
    found: dict[float, list[tuple[int, float]]] = {share: [] for share in CURVE_SHARES}
    folds = StratifiedKFold(CURVE_FOLDS, shuffle=True, random_state=seed).split(features, frozen.labels)
    for learned, held_out in folds:
        # StratifiedKFold gives rows in order; a fraction of them must be a random one.
        learned = np.random.default_rng(seed).permutation(learned)
        for share, results in found.items():
            part = learned[: max(2, round(share * len(learned)))]
            if len(np.unique(frozen.labels[part])) > 1:
                fitted = refit(features[part], frozen.labels[part], frozen.classes, probe.regression.strength)
                predicted = fitted.logits(features[held_out]).argmax(axis=1)
                y_true = frozen.labels[held_out]
                recall = recall_score(y_true, predicted, labels=np.unique(y_true), average="macro")
                results.append((len(part), float(recall)))
    whole = [zip(*results, strict=True) for results in found.values() if len(results) == CURVE_FOLDS]
    return [CurvePoint(round(float(np.mean(rows))), tuple(accuracies)) for rows, accuracies in whole]


def aim_head(model: Any, at_head: FrozenView) -> None:
    """Turns the head's last linear layer to the direction of a linear probe on its inputs; its length stays.

    Starting from the fitted head itself (Kumar et al. 2022, "LP-FT") makes large weights if features are small, and the
    encoder then hardly learns. The direction is enough for the first steps to go the right way. A single class has no
    direction and changes nothing.

    Of several labels each has its own direction, and a bias with which the mean probability is the label's share of the
    rows (Lin et al. 2017, "Focal loss"). From a probability of a half, the first hundreds of steps would only teach
    that rare labels are rare.

    Args:
        model: PEFT's model. The base's own head does not change.
        at_head: the inputs of that layer, (N, H).
    """
    if len(np.unique(at_head.labels)) < 2:
        return
    scaled, centre, spread = standardised(at_head.features)
    weight = fit_direction(scaled, at_head.labels, at_head.classes, at_head.weights) / spread
    if at_head.labels.ndim == 1:
        turn_head(model, weight)
        return
    lengths = np.linalg.norm(weight, axis=1, keepdims=True)
    turn_head(model, weight / np.where(lengths > 0, lengths, 1))
    rows, having = len(at_head.labels), at_head.labels.sum(axis=0)
    layer = last_linear(model, "modules_to_save")
    if layer.bias is not None:
        share = torch.from_numpy(np.log((having + 0.5) / (rows - having + 0.5)))
        with torch.no_grad():
            layer.bias.copy_(share - layer.weight.double() @ torch.from_numpy(centre))


def turn_head(model: Any, weight: npt.NDArray[np.float64]) -> None:
    """Turns the head's last linear layer, (K, H), to the direction of `weight`; 0 changes nothing."""
    layer = last_linear(model, "modules_to_save")
    direction = torch.from_numpy(weight)
    if direction.norm() > 0:
        with torch.no_grad():
            layer.weight.copy_(direction * (float(layer.weight.norm()) / float(direction.norm())))
