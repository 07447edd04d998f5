"""What a training minimises, and how it measures validation rows: one objective for each task.

The loop knows only `Objective`. A new task is one more class here.

Letters: B rows of a batch, V validation rows, K outputs of the model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit
from sklearn.metrics import f1_score, matthews_corrcoef
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, huber_loss, mse_loss

from bertlora.confidence.agreement import FIGURES, Agreement
from bertlora.confidence.calibration import Calibration
from bertlora.confidence.label_agreement import FIGURES as LABEL_FIGURES
from bertlora.confidence.label_agreement import LabelAgreement
from bertlora.confidence.learned import Learned
from bertlora.confidence.probabilities import Array, row_losses
from bertlora.confidence.spread import Spread
from bertlora.confidence.thresholds import Thresholds
from bertlora.data.reader import Examples
from bertlora.errors import DataError, RecipeError
from bertlora.model.adapted import Adapted
from bertlora.model.engine import last_linear
from bertlora.model.machine import sent
from bertlora.recipe import Recipe
from bertlora.task import AUTO, CLASSIFICATION, MULTILABEL, REGRESSION
from bertlora.training.health import CollapseWatch
from bertlora.training.optimiser import Loss, for_classes, weighted_sum

Targets = npt.NDArray[Any]
# The head answers in the unit of the targets, in fp32: its weights times their standard deviation must not overflow.
MOST = 1e30


@dataclass(frozen=True)
class Measured:
    """An evaluation of V validation rows.

    Attributes:
        row_losses: (V,) the loss of each row.
        predicted: what each row gets: (V,) the class, (V, K) which labels, or (V,) the number.
        figures: the metrics by name, those of `Objective.figures`.
        score: what chooses the best evaluation, higher is better; at a tie the next number decides.
    """

    row_losses: Array
    predicted: Targets
    figures: dict[str, float | None]
    score: list[float]

    @property
    def loss(self) -> float:
        """The mean of the losses."""
        return float(np.mean(self.row_losses))


class Objective(Protocol):
    """What a training minimises and measures.

    Attributes:
        recipe: with the loss and the best metric of the task in place of `auto`.
    """

    recipe: Recipe

    @property
    def figures(self) -> Sequence[str]:
        """Names of the metrics of an evaluation."""
        ...

    def sum(self, logits: Tensor, targets: Targets, weights: Array) -> Tensor:
        """Returns the weighted sum of the losses of outputs (B, K), for the targets of B rows and weights (B,)."""
        ...

    def weight(self, targets: Targets, weights: Array) -> float:
        """Returns the number by which the sum over B rows is divided to give a mean."""
        ...

    def measured(self, logits: Array, targets: Targets) -> Measured:
        """Returns the metrics of outputs (V, K) for the targets of V rows."""
        ...

    def warning(self, found: Measured, targets: Targets, step: int) -> str:
        """Returns what is odd about an evaluation, or an empty string. Raises HealthError if training cannot go on."""
        ...

    def resume(self, warnings: list[str]) -> None:
        """Continues after evaluations with these warnings, oldest first."""
        ...

    def finish(self, model: Any) -> None:
        """Changes the trained model so that it answers in the unit of the targets."""
        ...

    def learned(self, logits: Array, targets: Targets) -> Learned:
        """Returns what follows from the kept outputs (V, K) for the targets of V rows; V may be 0."""
        ...


def _matthews(targets: Targets, predicted: Targets) -> float:
    """Returns the Matthews correlation; 0 if it is not defined."""
    one_class = len(np.union1d(targets, predicted)) == 1  # scikit-learn warns in this case
    return 0.0 if one_class else float(matthews_corrcoef(targets, predicted))


def _f1(targets: Targets, predicted: Targets) -> float:
    """Returns the F1 of class 1; 0 if it has no rows and no predictions."""
    return float(f1_score(targets, predicted, labels=[1], average="micro", zero_division=0))


# Metrics of classes that are computed only where they choose the best adapter.
CHOOSING = {"matthews": _matthews, "f1": _f1}


class ClassObjective:
    """Cross-entropy of classes, weighted and smoothed as the recipe says. Validation rows have the plain one.

    Raises:
        RecipeError: `best_metric` is `f1`, and there are not two classes.
    """

    def __init__(self, adapted: Adapted, recipe: Recipe, train: Examples, device: torch.device) -> None:
        self.recipe = for_classes(recipe, train.labels)
        metric, classes = self.recipe.best_metric, len(adapted.labels)
        if metric == "f1" and classes != 2:
            raise RecipeError(f"best_metric: f1 is of two classes, and the data has {classes}; name macro_f1")
        self.figures = ("accuracy", "macro_f1", *([metric] if metric in CHOOSING else []))
        self.loss = Loss(self.recipe, train.labels, adapted.labels, train.weights_of(), device)
        self._watch = CollapseWatch(adapted.labels, self.recipe.class_weights == "balanced")
        self.sum, self.weight, self.resume = self.loss.sum, self.loss.weight, self._watch.resume

    def measured(self, logits: Array, targets: Targets) -> Measured:
        """Returns accuracy, macro F1 and the metric that chooses the adapter, and the log loss of each row in nats."""
        losses, predicted = row_losses(logits, targets), logits.argmax(axis=1)
        found: dict[str, float | None] = {
            "accuracy": float(np.mean(predicted == targets)),
            "macro_f1": float(f1_score(targets, predicted, average="macro", zero_division=0)),
        }
        found |= {name: CHOOSING[name](targets, predicted) for name in self.figures if name in CHOOSING}
        return Measured(losses, predicted, found, _score(self.recipe.best_metric, found, float(np.mean(losses))))

    def warning(self, found: Measured, targets: Targets, step: int) -> str:
        """Returns a warning if one class is predicted for every row; see `CollapseWatch`."""
        return self._watch.check(found.predicted, targets, step)

    def finish(self, model: Any) -> None:
        """Changes nothing: logits have no unit."""

    def learned(self, logits: Array, targets: Targets) -> Calibration:
        """Returns the temperature that fits the logits."""
        return Calibration.fit(logits, targets)


class LabelsObjective:
    """Binary cross-entropy of each label, as transformers has it: the mean over labels and rows."""

    figures = LABEL_FIGURES

    def __init__(self, adapted: Adapted, recipe: Recipe, train: Examples, device: torch.device) -> None:
        self.recipe = recipe.replace(
            loss="binary-cross-entropy",
            best_metric="average_precision" if recipe.best_metric == AUTO else recipe.best_metric,
            class_weights="none",
        )
        self._device = device

    def sum(self, logits: Tensor, targets: Targets, weights: Array) -> Tensor:
        """Returns the weighted sum of the losses of logits (B, K) for targets (B, K)."""
        return weighted_sum(self._losses(logits.float(), targets).sum(dim=1), weights)

    def weight(self, targets: Targets, weights: Array) -> float:
        """Returns the sum of the weights of the rows times the number of labels."""
        return float(weights.sum() * targets.shape[1])

    def measured(self, logits: Array, targets: Targets) -> Measured:
        """Returns the agreement of labels above 50 % with the right ones, and the log loss of each row in nats."""
        losses = self._losses(torch.from_numpy(logits), targets).numpy().mean(axis=1)
        predicted = logits > 0
        found = dict(LabelAgreement(predicted, expit(logits), targets).figures)
        return Measured(losses, predicted, found, _score(self.recipe.best_metric, found, float(np.mean(losses))))

    def warning(self, found: Measured, targets: Targets, step: int) -> str:
        """Returns nothing: early on, no label of a rare kind is above 50 %, and thresholds are chosen at the end."""
        return ""

    def resume(self, warnings: list[str]) -> None:
        """Does nothing: there are no warnings."""

    def finish(self, model: Any) -> None:
        """Changes nothing: logits have no unit."""

    def learned(self, logits: Array, targets: Targets) -> Thresholds:
        """Returns the temperature and the threshold of each label."""
        return Thresholds.fit(logits, targets)

    def _losses(self, logits: Tensor, targets: Targets) -> Tensor:
        given = sent(torch.from_numpy(targets).to(logits.dtype), logits.device)
        return binary_cross_entropy_with_logits(logits, given, reduction="none")


class NumberObjective:
    """Squared error of numbers, or Huber's loss (Huber 1964, "Robust estimation of a location parameter").

    The model learns standardised targets: mean 0 and standard deviation 1 in the weighted training rows. So one
    learning rate fits every unit. `finish` puts mean and scale into the head, which then answers in the unit of the
    targets.
    """

    figures = FIGURES

    def __init__(self, adapted: Adapted, recipe: Recipe, train: Examples, device: torch.device) -> None:
        self.recipe = recipe.replace(
            loss="mse" if recipe.loss == AUTO else recipe.loss,
            best_metric="rmse" if recipe.best_metric == AUTO else recipe.best_metric,
            class_weights="none",
        )
        self._device, self._huber = device, self.recipe.loss == "huber"
        targets = train.labels
        self._mean = float(np.average(targets, weights=train.weights))
        with np.errstate(over="ignore"):
            self._scale = float(np.average((targets - self._mean) ** 2, weights=train.weights) ** 0.5)
            differ = np.ptp(targets) > 0
        if not differ:
            raise DataError(f"every target of the training rows is {self._mean:g}, expected numbers that differ")
        if not (1 / MOST < self._scale < MOST and abs(self._mean) < MOST):
            raise DataError(
                f"the targets of the training rows have mean {self._mean:g} and standard deviation {self._scale:g}, "
                f"expected up to {MOST:g}; give them in another unit"
            )

    def sum(self, logits: Tensor, targets: Targets, weights: Array) -> Tensor:
        """Returns the weighted sum of the losses of outputs (B, 1), which are standardised, for targets (B,)."""
        return weighted_sum(self._losses(logits.float(), targets), weights)

    def weight(self, targets: Targets, weights: Array) -> float:
        """Returns the sum of the weights of the rows."""
        return float(weights.sum())

    def measured(self, logits: Array, targets: Targets) -> Measured:
        """Returns correlations and errors, in the unit of the targets; the losses are of standardised targets."""
        losses = self._losses(torch.from_numpy(logits), targets).numpy()
        predicted = self._in_unit(logits)[:, 0]
        found = dict(Agreement(predicted, targets).figures)
        return Measured(losses, predicted, found, _score(self.recipe.best_metric, found, float(np.mean(losses))))

    def warning(self, found: Measured, targets: Targets, step: int) -> str:
        """Returns a warning if every row gets the same number."""
        if np.ptp(found.predicted) > 1e-6 * self._scale:
            return ""
        return f"{found.predicted[0]:.4g} is predicted for every validation text"

    def resume(self, warnings: list[str]) -> None:
        """Does nothing: no warning depends on earlier ones."""

    def finish(self, model: Any) -> None:
        """Puts mean and scale into the last linear layer of the head."""
        layer = last_linear(model, "modules_to_save")
        with torch.no_grad():
            layer.weight.mul_(self._scale)
            layer.bias.mul_(self._scale).add_(self._mean)

    def learned(self, logits: Array, targets: Targets) -> Spread:
        """Returns mean and scale of the targets, and the validation rows in their unit."""
        return Spread.of(self._mean, self._scale, self._in_unit(logits), targets)

    def _losses(self, logits: Tensor, targets: Targets) -> Tensor:
        given = sent(torch.from_numpy((targets - self._mean) / self._scale).to(logits.dtype), logits.device)
        loss = huber_loss if self._huber else mse_loss
        return loss(logits[:, 0], given, reduction="none")

    def _in_unit(self, logits: Array) -> Array:
        return np.asarray(logits * self._scale + self._mean)


# Less of these figures is better.
ERRORS = ("mae", "rmse")


def _score(metric: str, figures: dict[str, float | None], loss: float) -> list[float]:
    """Returns the score of an evaluation by a metric; a figure that is not defined is the worst."""
    if metric == "loss":
        return [-loss]
    value = figures[metric]
    return [-np.inf if value is None else -value if metric in ERRORS else value, -loss]


def objective_of(adapted: Adapted, recipe: Recipe, train: Examples, device: torch.device) -> Objective:
    """Returns the objective of the task for which a model was made.

    Args:
        adapted: the model.
        recipe: the recipe.
        train: all training rows.
        device: the device of the model's outputs.

    Raises:
        RecipeError: an option does not fit the task.
        DataError: all targets of a regression are equal.
    """
    return OBJECTIVES[adapted.task](adapted, recipe.for_task(adapted.task), train, device)


OBJECTIVES: dict[str, Callable[[Adapted, Recipe, Examples, torch.device], Objective]] = {
    CLASSIFICATION: ClassObjective,
    MULTILABEL: LabelsObjective,
    REGRESSION: NumberObjective,
}
