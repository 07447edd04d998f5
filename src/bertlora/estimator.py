"""What the estimators for scikit-learn share: parameters, fitting, saving."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from bertlora.confidence.learned import Learned
from bertlora.confidence.probabilities import Array
from bertlora.data.in_memory import texts_of, weights_of
from bertlora.data.reader import Examples
from bertlora.errors import DataError, OutputError, RunError, suggestion
from bertlora.files import whole_folder
from bertlora.model.adapted import Adapted
from bertlora.pipeline.held_out import check_choosing, rows_held_out
from bertlora.pipeline.training_run import fitted_rivals, training_metrics
from bertlora.recipe import Recipe, recipe_keys
from bertlora.rivals.fitted import Rivals
from bertlora.run.folder import save_run
from bertlora.run.loaded import Run
from bertlora.run.manifest import MANIFEST, RECIPE, Seen
from bertlora.training.loop import Training
from bertlora.training.progress import progress

Targets = npt.NDArray[Any]
# Of rows; None if all count equally.
Weights = npt.NDArray[np.float64] | None


class LoraEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """LoRA on a small BERT: what `LoraClassifier` and `LoraRegressor` share. Each names its task."""

    _task: str
    adapted_: Adapted
    recipe_: Recipe
    rivals_: Rivals
    seen_: Seen | None
    history_: list[dict[str, Any]]
    _metrics: dict[str, Any]

    def __init__(self, recipe: str = "default", **keys: Any) -> None:
        self.recipe = recipe
        for key in keys:
            if key not in recipe_keys():
                raise TypeError(f"{type(self).__name__} has no parameter '{key}'{suggestion(key, recipe_keys())}")
        for key in recipe_keys():
            setattr(self, key, keys.get(key))

    @classmethod
    def _get_param_names(cls) -> list[str]:
        """scikit-learn reads the names from the signature of `__init__`; here they come from the recipe."""
        return sorted(["recipe", *recipe_keys()])

    def _resolved(self) -> dict[str, Any]:
        """Sets the recipe of this task, and returns the parameters that were given."""
        given = {key: getattr(self, key) for key in recipe_keys() if getattr(self, key) is not None}
        self.recipe_ = Recipe.named(self.recipe).replace(**given).for_task(self._task)
        return given

    def _with_validation(
        self,
        X: Any,  # noqa: N803
        y: Targets,
        weights: Weights,
        validation: tuple[Any, Any] | None,
        given: dict[str, Any],
        strata: Targets | None = None,
    ) -> tuple[tuple[Any, Targets, Weights], tuple[Any, Any] | None]:
        """Returns the training rows and the validation rows, which are held out where the user named none."""
        rows = X, y, weights
        if validation is None:
            held = rows_held_out(X, y, self.recipe_, "validation_fraction" in given, strata)
            if held.any():
                texts, labels, _ = _chosen(held, *rows)
                rows, validation = _chosen(~held, *rows), (texts, labels)
        count = 0 if validation is None else len(validation[1])
        check_choosing(self.recipe_, given, count, "give validation=(texts, labels) to fit, or a validation_fraction")
        return rows, validation

    def _fitted(
        self,
        X: Any,  # noqa: N803
        targets: Targets,
        weights: Weights,
        validation: tuple[Any, Targets] | None,
        labels: list[str],
        verbose: int,
    ) -> Learned:
        """Trains a model with these outputs, and returns what the validation rows taught."""
        self.adapted_ = Adapted.fresh(self.recipe_, labels, pairs=texts_of(X)[1] is not None)
        train = replace(self._examples(X, targets, "y"), weights=weights)
        none = Examples(self.adapted_.reader.read([]), targets[:0])
        held_out = none if validation is None else self._examples(*validation, "validation")
        training = Training(self.adapted_, self.recipe_, train, held_out, identity="memory")
        self.recipe_ = training.recipe
        texts = texts_of(X), texts_of(validation[0]) if validation else ([], None)
        self.rivals_ = fitted_rivals(self.adapted_, training, *texts)
        self.seen_ = Seen.of(train=texts[0], validation=texts[1])
        with progress(verbose) as show, closing(training.run()) as events:
            for event in events:
                show(event)
        self.history_ = training.progress.history
        learned = training.learned()
        rivals = {"rivals": self.rivals_.figures(training.validation.labels)}
        self._metrics = training_metrics(training, learned) | rivals
        return learned

    def _outputs(self, X: Any) -> Array:  # noqa: N803
        """Returns the model's outputs, (N, K)."""
        check_is_fitted(self, "adapted_")
        inputs = self.adapted_.reader.read(*texts_of(X))
        return self.adapted_.logits(inputs) if len(inputs) else np.zeros((0, len(self.adapted_.labels)))

    @contextmanager
    def ready(self, precision: str = "fp32") -> Iterator[None]:
        """Inside, predictions of this thread start at once; other threads wait.

        Example:
            >>> with classifier.ready():  # doctest: +SKIP
            ...     answers = [classifier.predict([text]) for text in texts]
        """
        check_is_fitted(self, "adapted_")
        with self.adapted_.ready(precision):
            yield

    def save(self, path: str | Path) -> None:
        """Writes a run folder, which `load`, the command line and PEFT (its `adapter/`) read.

        A run in that folder is replaced, with all other files of the folder, once the new one is whole.

        Raises:
            OutputError: `path` holds something other than a run, or the base; it cannot be written; or PEFT trained
                this adapter.
        """
        check_is_fitted(self, "adapted_")
        path, (calibration, labels) = Path(path), self._learned()
        if not self._metrics:
            raise OutputError(f"{path}: PEFT trained this adapter, so it is not a run; copy its folder")
        replaced = (path / MANIFEST).is_file()
        with whole_folder(path, overwrite=replaced, inputs=[self.adapted_.base.folder]) as partial:
            save_run(
                partial,
                self.adapted_,
                self.recipe_,
                self._metrics | {"run": str(path)},
                calibration=calibration,
                rivals=self.rivals_,
                seen=self.seen_,
                **labels,
            )

    def _learned(self) -> tuple[Learned, dict[str, Any]]:
        """Returns what the validation rows taught, and what the run keeps of the labels given to `fit`."""
        raise NotImplementedError

    @classmethod
    def _loaded(cls, path: str | Path) -> tuple[Self, Run]:
        """Returns an estimator with what every task has of a run, and the run."""
        run = Run.load(path)
        if run.manifest.task != cls._task:
            raise RunError(f"{path}: does {run.manifest.task}, which {cls.__name__} does not")
        recipe = run.recipe()
        self = cls(recipe="default" if recipe is None else str(run.path / RECIPE))
        self.recipe_ = recipe or Recipe.named("default")
        self.adapted_, self.rivals_, self.seen_ = run.adapted, run.rivals, run.seen
        self._metrics = run.metrics()
        self.history_ = self._metrics.get("epochs", [])
        return self, run

    def _examples(self, X: Any, targets: Targets, name: str) -> Examples:  # noqa: N803
        texts, pairs = texts_of(X)
        if len(texts) != len(targets):
            where = "" if name == "y" else f"{name}: "
            raise DataError(f"{where}X has {len(texts)} texts and y {len(targets)} labels; expected as many of each")
        return Examples(self.adapted_.reader.read(texts, pairs), targets)


def weighted(X: Any, y: Targets, sample_weight: Any) -> tuple[Any, Targets, Weights]:  # noqa: N803
    """Returns the rows whose weight is above 0, and their weights, with mean 1; None if all count equally."""
    weights = weights_of(sample_weight, len(y))
    if weights is None or len(texts_of(X)[0]) != len(y):  # what is wrong with the rows is found where they are read
        return X, y, None
    X, y, weights = _chosen(weights > 0, X, y, weights)  # noqa: N806
    assert weights is not None
    return X, y, weights / weights.mean() if np.ptp(weights) else None


def _chosen(
    rows: npt.NDArray[np.bool_],
    X: Any,  # noqa: N803
    y: Targets,
    weights: Weights,
) -> tuple[Any, Targets, Weights]:
    """Returns some of the rows."""
    return np.asarray(X, dtype=object)[rows], y[rows], None if weights is None else weights[rows]


def label_facts(classes: Targets) -> dict[str, Any]:
    """Returns what a run keeps of the labels given to `fit`: their names and their type; see `typed_labels`."""
    return {"label_kind": classes.dtype.kind, "source_labels": [str(label) for label in classes]}


def typed_labels(labels: Sequence[str], kind: str) -> npt.NDArray[Any]:
    """Returns label names in the type of numpy's `kind`: i and u whole, f real, b boolean, otherwise text."""
    if kind in "iu":
        return np.array([int(label) for label in labels])
    if kind == "f":
        return np.array([float(label) for label in labels])
    return np.array([label == "True" for label in labels]) if kind == "b" else np.array(labels)


def with_parameters(estimator: type[LoraEstimator]) -> None:
    """Gives the estimator's `__init__` the signature that `help` shows: the recipe's keys."""
    estimator.__init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        + [inspect.Parameter("recipe", inspect.Parameter.KEYWORD_ONLY, default="default")]
        + [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None) for key in recipe_keys()]
    )


with_parameters(LoraEstimator)
