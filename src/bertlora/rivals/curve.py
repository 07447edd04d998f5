"""The learning curve of the linear probe: would more rows help?"""

from dataclasses import dataclass

import numpy as np

from bertlora.rivals.probe import FrozenView, Probe, mean_direction, standardised
from bertlora.rivals.regression import fit_fixed

# The learning curve has a point for each of these fractions of the training rows.
CURVE = (0.25, 0.5, 1.0)
FOLDS = 4


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
    `probe`. The curve is empty without a linear probe, or if a class has fewer rows than there are folds. A point is
    left out if the rows of a fold have a single class.
    """
    from sklearn.metrics import recall_score
    from sklearn.model_selection import StratifiedKFold

    counts = np.bincount(frozen.labels, minlength=frozen.classes)
    if probe is None or counts[counts > 0].min() < FOLDS:
        return []
    features, _, _ = standardised(mean_direction(frozen.features) if probe.only_mean else frozen.features)
    found: dict[float, list[tuple[int, float]]] = {share: [] for share in CURVE}
    for learned, held_out in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(features, frozen.labels):
        # StratifiedKFold gives rows in order; a fraction of them must be a random one.
        learned = np.random.default_rng(seed).permutation(learned)
        for share, results in found.items():
            part = learned[: max(2, round(share * len(learned)))]
            if len(np.unique(frozen.labels[part])) > 1:
                fitted = fit_fixed(features[part], frozen.labels[part], frozen.classes, probe.regression.strength)
                predicted = fitted.logits(features[held_out]).argmax(axis=1)
                y_true = frozen.labels[held_out]
                recall = recall_score(y_true, predicted, labels=np.unique(y_true), average="macro")
                results.append((len(part), float(recall)))
    whole = [zip(*results, strict=True) for results in found.values() if len(results) == FOLDS]
    return [CurvePoint(round(float(np.mean(rows))), tuple(accuracies)) for rows, accuracies in whole]
