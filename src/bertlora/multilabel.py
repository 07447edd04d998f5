"""LoraMultilabelClassifier: a scikit-learn classifier for texts that may have several labels, in memory."""

from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin

from bertlora.confidence.learned import Learned
from bertlora.confidence.thresholds import Thresholds
from bertlora.data.in_memory import label_sets_of, marks_in, texts_of
from bertlora.data.label_sets import rarest
from bertlora.errors import DataError
from bertlora.estimator import LoraEstimator, label_facts, typed_labels, weighted
from bertlora.pipeline.training_run import shown_labels
from bertlora.task import MULTILABEL


class LoraMultilabelClassifier(ClassifierMixin, LoraEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """A scikit-learn classifier of texts that may have any number of labels. `score` is subset accuracy.

    Parameters are `recipe`, a recipe's name or TOML file, and every recipe key (see `bertlora recipes default`). A key
    that is None is taken from the recipe.

    Attributes:
        classes_: (K,) the labels in the order of the columns of `predict` and `predict_proba`: the names of the columns
            of y, or the labels in its lists; 0..K-1 if columns have no names.
        adapted_: the trained model.
        recipe_: the recipe with all keys resolved.
        history_: the evaluations.
        rivals_: linear probe and TF-IDF, with a regression for each label, fitted on the same texts.
        thresholds_: temperature and threshold of each label, chosen on the validation rows.

    Example:
        >>> classifier = LoraMultilabelClassifier(rank=8)  # doctest: +SKIP
        >>> classifier.fit(texts, [["drama"], [], ["drama", "war"]])  # doctest: +SKIP
        >>> classifier.predict(["A joy from start to finish."])  # doctest: +SKIP
    """

    _task = MULTILABEL
    thresholds_: Thresholds

    def __sklearn_tags__(self) -> Any:
        """scikit-learn's tags: several labels for a text."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(
        self,
        X: Any,  # noqa: N803
        y: Any,
        validation: tuple[Any, Any] | None = None,
        verbose: int = 0,
        sample_weight: Any = None,
    ) -> Self:
        """Trains on texts and their labels.

        Args:
            X: (N,) texts, or (N, 2) pairs of texts: a list, an array or a pandas column.
            y: (N, K) 0 and 1, an array or a table of pandas; or N lists of labels.
            validation: texts and labels on which the best adapter and the thresholds are chosen. None holds out
                `validation_fraction` of the rows, 0.1 if that is 30 rows or more. Without any the last adapter is kept.
            verbose: 1 shows the progress: a bar on a terminal or in a notebook, otherwise a line for each evaluation.
            sample_weight: (N,) how much each row counts in the loss, and in the fits of the rivals: 0 or more. None
                is 1 for all. A row of weight 0 is left out, one of weight 2 counts as two. Only ratios matter.
                Validation rows count equally.

        Raises:
            DataError: no texts, fewer than two labels, a label that no training row has, or a weight that is negative
                or not a finite number.
            RecipeError: a parameter is out of its range, or needs validation rows, and there are none.
        """
        given = self._resolved()
        texts_of(X)  # a message about a row must count all of them, so before any is held out
        self.classes_, marks = label_sets_of(y)
        if len(self.classes_) < 2:
            raise DataError(f"y: got {len(self.classes_)} label, expected at least 2; LoraClassifier takes one")
        X, marks, weights = weighted(X, marks, sample_weight)  # noqa: N806
        strata = rarest(marks, marks.sum(axis=0))
        (X, marks, weights), validation = self._with_validation(  # noqa: N806
            X, marks, weights, validation, given, strata
        )
        unused = self.classes_[~marks.any(axis=0)]
        if len(unused):
            raise DataError(f"y: no training row has the label {unused[0]}; leave it out")
        held_out = None if validation is None else (validation[0], marks_in(validation[1], self.classes_, "validation"))
        labels = shown_labels(self.recipe_, [str(c) for c in self.classes_])
        learned = self._fitted(X, marks, weights, held_out, labels, verbose)
        assert isinstance(learned, Thresholds)
        self.thresholds_ = learned
        return self

    def predict(self, X: Any) -> npt.NDArray[np.int64]:  # noqa: N803
        """Returns which labels each text gets, (N, K) of 0 and 1: those whose probability reaches their threshold."""
        return self.thresholds_.chosen(self._outputs(X)).astype(np.int64)

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Returns the calibrated probability of each label, (N, K) float64. The sum of a row need not be 1."""
        return self.thresholds_.probabilities(self._outputs(X))

    def _learned(self) -> tuple[Learned, dict[str, Any]]:
        return self.thresholds_, label_facts(self.classes_)

    @classmethod
    def load(cls, path: str | Path) -> "LoraMultilabelClassifier":
        """Returns the classifier of a run folder.

        Raises:
            RunError: the run is unfinished, of a newer format, was trained on another base, or does another task.
        """
        self, run = cls._loaded(path)
        assert isinstance(run.calibration, Thresholds)
        self.thresholds_ = run.calibration
        self.classes_ = typed_labels(run.manifest.source_labels, run.manifest.label_kind)
        return self
