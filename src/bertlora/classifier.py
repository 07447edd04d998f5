"""LoraClassifier: a scikit-learn classifier for texts and labels in memory."""

from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin

from bertlora.confidence.calibration import Calibration
from bertlora.confidence.learned import Learned
from bertlora.data.in_memory import labels_of, texts_of
from bertlora.errors import DataError
from bertlora.estimator import LoraEstimator, label_facts, typed_labels, weighted
from bertlora.pipeline.training_run import shown_labels
from bertlora.task import CLASSIFICATION


class LoraClassifier(ClassifierMixin, LoraEstimator):  # type: ignore[misc]  # scikit-learn is not typed
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

    _task = CLASSIFICATION
    calibration_: Calibration

    def fit(
        self,
        X: Any,  # noqa: N803
        y: Any,
        validation: tuple[Any, Any] | None = None,
        verbose: int = 0,
        sample_weight: Any = None,
    ) -> Self:
        """Trains on texts and labels.

        Args:
            X: (N,) texts, or (N, 2) pairs of texts: a list, an array or a pandas column.
            y: (N,) labels of any kind.
            validation: texts and labels on which the best adapter and its temperature are chosen. None holds out
                `validation_fraction` of the rows, 0.1 if that is 30 rows or more. Without any the last adapter is kept.
            verbose: 1 shows the progress: a bar on a terminal or in a notebook, otherwise a line for each evaluation.
            sample_weight: (N,) how much each row counts in the loss, and in the fits of the rivals: 0 or more. None
                is 1 for all. A row of weight 0 is left out, one of weight 2 counts as two. Only ratios matter.
                Validation rows count equally.

        Raises:
            DataError: no texts, or a single class; too few rows for the `validation_fraction` that was given; or a
                weight that is negative or not a finite number.
            RecipeError: a parameter is out of its range, or needs validation rows, and there are none.
        """
        given = self._resolved()
        texts_of(X)  # a message about a row must count all of them, so before any is held out
        y = labels_of(y)
        X, y, weights = weighted(X, y, sample_weight)  # noqa: N806
        (X, y, weights), validation = self._with_validation(X, y, weights, validation, given)  # noqa: N806
        self.classes_, ids = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"y: got {len(self.classes_)} class, expected at least 2")
        labels = shown_labels(self.recipe_, [str(c) for c in self.classes_])
        held_out = None if validation is None else (validation[0], self._ids(validation[1]))
        calibration = self._fitted(X, ids.astype(np.int64), weights, held_out, labels, verbose)
        assert isinstance(calibration, Calibration)
        self.calibration_ = calibration
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Returns the most probable label of each text, (N,), of the type given to `fit`."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Returns probabilities, (N, K) float64, columns as `classes_`; calibrated on the validation rows."""
        outputs = self._outputs(X)
        return self.calibration_.probabilities(outputs) if len(outputs) else outputs

    def _learned(self) -> tuple[Learned, dict[str, Any]]:
        return self.calibration_, label_facts(self.classes_)

    @classmethod
    def load(cls, path: str | Path) -> "LoraClassifier":
        """Returns the classifier of a run folder, or of an adapter that PEFT saved.

        Raises:
            RunError: the run is unfinished, of a newer format, was trained on another base, or predicts numbers.
        """
        self, run = cls._loaded(path)
        assert isinstance(run.calibration, Calibration)
        self.calibration_ = run.calibration
        self.classes_ = typed_labels(run.manifest.source_labels, run.manifest.label_kind)
        return self

    def _ids(self, labels: Any) -> npt.NDArray[np.int64]:
        """Returns the class of each validation label, (N,)."""
        place = {label: i for i, label in enumerate(self.classes_.tolist())}
        given = labels_of(labels, "validation").tolist()
        if unknown := set(given) - set(place):
            raise DataError(f"validation: label {sorted(unknown, key=str)[0]!r} is not among the labels of y")
        return np.array([place[label] for label in given], dtype=np.int64)
