"""LoraClassifier: a scikit-learn classifier for texts and labels in memory."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from bertlora.confidence.calibration import Calibration
from bertlora.data.in_memory import labels_of, texts_of
from bertlora.data.reader import Examples
from bertlora.errors import DataError, OutputError, suggestion
from bertlora.files import whole_folder
from bertlora.model.adapted import Adapted
from bertlora.pipeline.held_out import check_choosing, with_validation
from bertlora.pipeline.training_run import fitted_rivals, shown_labels, training_metrics
from bertlora.recipe import Recipe, recipe_keys
from bertlora.run.folder import save_run
from bertlora.run.loaded import Run
from bertlora.run.manifest import MANIFEST, Seen
from bertlora.training.loop import Training
from bertlora.training.progress import progress


class LoraClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """A scikit-learn text classifier: LoRA on a small BERT.

    Parameters are `recipe`, a recipe's name or TOML file, and every recipe key (see `bertlora recipes default`). A key
    that is None is taken from the recipe.

    Attributes:
        classes_: the labels in the order of the columns of `predict_proba`, of the type given to `fit`.
        adapted_: the trained model.
        recipe_: the recipe with all keys resolved.
        history_: the evaluations.
        rivals_: linear probe and TF-IDF, fitted on the same texts.
        calibration_: the temperature of its probabilities, fitted on the validation rows; 1 without any.

    Example:
        >>> classifier = LoraClassifier(model="minilm", rank=8).fit(texts, labels)  # doctest: +SKIP
        >>> classifier.predict(["A joy from start to finish."])  # doctest: +SKIP
    """

    def __init__(self, recipe: str = "default", **keys: Any) -> None:
        self.recipe = recipe
        for key in keys:
            if key not in recipe_keys():
                raise TypeError(f"LoraClassifier has no parameter '{key}'{suggestion(key, recipe_keys())}")
        for key in recipe_keys():
            setattr(self, key, keys.get(key))

    @classmethod
    def _get_param_names(cls) -> list[str]:
        """scikit-learn reads the names from the signature of `__init__`; here they come from the recipe."""
        return sorted(["recipe", *recipe_keys()])

    def fit(self, X: Any, y: Any, validation: tuple[Any, Any] | None = None, verbose: int = 0) -> Self:  # noqa: N803
        """Trains on texts and labels.

        Args:
            X: (N,) texts, or (N, 2) pairs of texts: a list, an array or a pandas column.
            y: (N,) labels of any kind.
            validation: texts and labels on which the best adapter and its temperature are chosen. None holds out
                `validation_fraction` of the rows, 0.1 if that is 30 rows or more. Without any the last adapter is kept.
            verbose: 1 shows the progress: a bar on a terminal or in a notebook, otherwise a line for each evaluation.

        Raises:
            DataError: no texts, or a single class; or too few rows for the `validation_fraction` that was given.
            RecipeError: a parameter is out of its range, or needs validation rows, and there are none.
        """
        given = {key: getattr(self, key) for key in recipe_keys() if getattr(self, key) is not None}
        self.recipe_ = Recipe.named(self.recipe).replace(**given)
        texts_of(X)  # a message about a row must count all of them, so before any is held out
        y = labels_of(y)
        if validation is None:
            X, y, validation = with_validation(X, y, self.recipe_, "validation_fraction" in given)  # noqa: N806
        rows = 0 if validation is None else len(validation[1])
        check_choosing(self.recipe_, given, rows, "give validation=(texts, labels) to fit, or a validation_fraction")
        self.classes_, ids = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"y: got {len(self.classes_)} class, expected at least 2")
        labels = shown_labels(self.recipe_, [str(c) for c in self.classes_])
        self.adapted_ = Adapted.fresh(self.recipe_, labels, pairs=texts_of(X)[1] is not None)
        train = self._examples(X, ids)
        training = Training(self.adapted_, self.recipe_, train, self._validation(validation), identity="memory")
        self.recipe_ = training.recipe
        texts = texts_of(X), texts_of(validation[0]) if validation else ([], None)
        self.rivals_ = fitted_rivals(self.adapted_, training, *texts)
        self.seen_: Seen | None = Seen.of(train=texts[0], validation=texts[1])
        with progress(verbose) as show:
            for event in training.run():
                show(event)
        self.history_ = training.progress.history
        self.calibration_ = Calibration.fit(training.best_logits, training.validation.labels)
        self._metrics = training_metrics(training) | {"rivals": self.rivals_.figures(training.validation.labels)}
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Returns the most probable label of each text, (N,), of the type given to `fit`."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Returns probabilities, (N, K) float64, columns as `classes_`; calibrated on the validation rows."""
        check_is_fitted(self, "adapted_")
        inputs = self.adapted_.reader.read(*texts_of(X))
        if not len(inputs):
            return np.zeros((0, len(self.classes_)))
        return self.calibration_.probabilities(self.adapted_.logits(inputs))

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
        path = Path(path)
        if not self._metrics:
            raise OutputError(f"{path}: PEFT trained this adapter, so it is not a run; copy its folder")
        replaced = (path / MANIFEST).is_file()
        with whole_folder(path, overwrite=replaced, inputs=[self.adapted_.base.folder]) as partial:
            save_run(
                partial,
                self.adapted_,
                self.recipe_,
                self._metrics | {"run": str(path)},
                label_kind=self.classes_.dtype.kind,
                source_labels=[str(c) for c in self.classes_],
                calibration=self.calibration_,
                rivals=self.rivals_,
                seen=self.seen_,
            )

    @classmethod
    def load(cls, path: str | Path) -> "LoraClassifier":
        """Returns the classifier of a run folder, or of an adapter that PEFT saved.

        Raises:
            RunError: the run is unfinished, of a newer format, or was trained on another base.
        """
        run = Run.load(path)
        recipe_file = run.path / "recipe.toml"
        self = cls(recipe=str(recipe_file) if recipe_file.is_file() else "default")
        self.recipe_ = Recipe.named(self.recipe)
        self.adapted_ = run.adapted
        self.classes_ = typed_labels(run.manifest.source_labels, run.manifest.label_kind)
        self.rivals_, self.seen_, self.calibration_ = run.rivals, run.seen, run.calibration
        self._metrics = run.metrics()
        self.history_ = self._metrics.get("epochs", [])
        return self

    def _examples(self, X: Any, ids: npt.NDArray[Any]) -> Examples:  # noqa: N803
        texts, pairs = texts_of(X)
        if len(texts) != len(ids):
            raise DataError(f"X has {len(texts)} texts and y {len(ids)} labels; expected as many of each")
        return Examples(self.adapted_.reader.read(texts, pairs), ids.astype(np.int64))

    def _validation(self, validation: tuple[Any, Any] | None) -> Examples:
        if validation is None:
            return Examples(self.adapted_.reader.read([]), np.zeros(0, dtype=np.int64))
        texts, labels = validation
        place = {label: i for i, label in enumerate(self.classes_.tolist())}
        given = labels_of(labels, "validation").tolist()
        unknown = set(given) - set(place)
        if unknown:
            raise DataError(f"validation: label {sorted(unknown, key=str)[0]!r} is not among the labels of y")
        return self._examples(texts, np.array([place[label] for label in given]))


LoraClassifier.__init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # for help()
    [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    + [inspect.Parameter("recipe", inspect.Parameter.KEYWORD_ONLY, default="default")]
    + [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None) for key in recipe_keys()]
)


def typed_labels(labels: Sequence[str], kind: str) -> npt.NDArray[Any]:
    """Returns label names in the type of numpy's `kind`: i and u whole, f real, b boolean, otherwise text."""
    if kind in "iu":
        return np.array([int(label) for label in labels])
    if kind == "f":
        return np.array([float(label) for label in labels])
    return np.array([label == "True" for label in labels]) if kind == "b" else np.array(labels)
