"""Label errors: models that were not trained on a row predict its label, and cleanlab ranks the doubtful labels.

    found = audit(adapted, recipe, examples, text_groups(texts), folds=5)
    found.flagged                   # rows whose label is doubtful, most doubtful first

The method is confident learning: Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in
Dataset Labels". The package cleanlab finds, counts and ranks the rows.

Letters: N rows, K classes, G groups of rows with the same text, D doubtful rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bertlora.confidence.probabilities import Array, softmax
from bertlora.data.examples import Examples
from bertlora.data.labels import quoted
from bertlora.errors import DataError, InputError
from bertlora.model.adapted import Adapted
from bertlora.recipe import Recipe
from bertlora.training.events import Step
from bertlora.training.folds import out_of_fold_logits

Rows = npt.NDArray[np.int64]

# Rows are ranked by the probability of their own label; the lower, the more doubtful.
RANKING = "self_confidence"


@dataclass(frozen=True)
class Audit:
    """The result of an audit of N labelled rows.

    Attributes:
        y_true: (N,) the labels in the data, in 0..K-1.
        fold: (N,) the fold in which each row was held out.
        probabilities: (N, K) out-of-fold: each row's are from a model that was not trained on it.
        quality: (N,) cleanlab's score of each label, 0 (certainly wrong) to 1.
        flagged: (D,) the rows whose label cleanlab considers wrong, most doubtful first.
        estimated_errors: cleanlab's estimate of the number of wrong labels.
    """

    y_true: Rows
    fold: Rows
    probabilities: Array
    quality: Array
    flagged: Rows
    estimated_errors: int

    @property
    def suggested(self) -> Rows:
        """(N,) the most probable class of each row."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def accuracy(self) -> float:
        """Fraction of the rows whose most probable class is their label."""
        return float(np.mean(self.suggested == self.y_true))


def audit(
    adapted: Adapted,
    recipe: Recipe,
    examples: Examples,
    groups: Rows,
    folds: int,
    on_step: Callable[[Step], None] = lambda _: None,
) -> Audit:
    """Trains a model for each fold and returns the rows whose label is most doubtful.

    Args:
        adapted: a fresh adapter; it is unchanged afterwards.
        recipe: how each fold is trained.
        examples: the rows.
        groups: (N,) rows of one group are held out together; see `text_groups`.
        folds: number of folds, 2 or more.
        on_step: called with each training step.

    Raises:
        InputError: there are fewer than 2 folds.
        DataError: there are fewer groups than folds, or a class has fewer than two groups.
    """
    fold = deal_folds(groups, examples.labels, folds, recipe.seed, adapted.labels)
    probabilities = softmax(out_of_fold_logits(adapted, recipe, examples, fold, on_step))
    return doubts(probabilities, examples.labels, fold)


def doubts(probabilities: Array, y_true: Rows, fold: Rows) -> Audit:
    """Returns cleanlab's ranking of the labels (N,), from out-of-fold probabilities (N, K)."""
    from cleanlab.count import num_label_issues
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    flagged = find_label_issues(y_true, probabilities, return_indices_ranked_by=RANKING, n_jobs=1)
    quality = get_label_quality_scores(y_true, probabilities, method=RANKING)
    estimated = int(num_label_issues(y_true, probabilities))
    return Audit(y_true, fold, probabilities, quality, np.asarray(flagged, dtype=np.int64), estimated)


def deal_folds(groups: Rows, y_true: Rows, folds: int, seed: int, labels: Sequence[str]) -> Rows:
    """Returns the fold of each row, (N,).

    The rows of a group are in the same fold. The folds have equal numbers of groups of each class, plus or minus one.

    Args:
        groups: (N,) group of each row, from 0.
        y_true: (N,) class of each row; a group has the class of its first row.
        folds: number of folds.
        seed: seed of the random assignment.
        labels: names of the classes.

    Raises:
        InputError, DataError: as in `audit`.
    """
    if folds < 2:
        raise InputError(f"folds: got {folds}, expected 2 or more")
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)  # (G,), (G,), (N,)
    if len(first) < folds:
        raise DataError(f"{len(first)} different texts, expected at least one for each of {folds} folds; lower --folds")
    _check_classes(group, y_true, labels)
    classes = y_true[first]
    order = np.random.default_rng(seed).permutation(len(first))
    order = order[np.argsort(classes[order], kind="stable")]
    dealt = np.empty(len(first), dtype=np.int64)
    dealt[order] = np.arange(len(first)) % folds
    return dealt[group]


def _check_classes(group: Rows, y_true: Rows, labels: Sequence[str]) -> None:
    """Raises DataError if there is only one class, or if a class has only one text, which no other fold can learn."""
    texts = np.bincount(np.unique(group * len(labels) + y_true) % len(labels), minlength=len(labels))  # (K,)
    if np.sum(texts > 0) < 2:
        raise DataError(
            f"every label is '{labels[int(y_true[0])]}', expected two classes or more; check the label column"
        )
    if rare := [label for label, count in zip(labels, texts, strict=True) if count == 1]:
        raise DataError(
            f"{quoted(rare)}: a single text has this label, expected two or more, because a model trained on other "
            "rows checks each row; add rows with this label, or leave it out"
        )


def text_groups(texts: Sequence[str], pairs: Sequence[str] | None = None) -> Rows:
    """Returns the group of each text or pair, (N,): texts are equal if only case, punctuation and spaces differ.

    A model that was trained on a copy of a text would know its label, and could not find it wrong.
    """
    numbers: dict[tuple[str, str], int] = {}
    both = zip(texts, pairs or [""] * len(texts), strict=True)
    found = [numbers.setdefault((_plain(text), _plain(pair)), len(numbers)) for text, pair in both]
    return np.array(found, dtype=np.int64)


def _plain(text: str) -> str:
    """Returns only the letters and digits; a text without any, such as a smiley, is returned unchanged."""
    return "".join(c for c in text.casefold() if c.isalnum()) or text
