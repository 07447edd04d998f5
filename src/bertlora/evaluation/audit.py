"""Label errors: each row is judged by a model that has not seen it, and cleanlab ranks the labels that these doubt.

    found = audit(adapted, recipe, examples, text_groups(texts), folds=5)
    found.flagged                   # rows whose label is in doubt, most doubtful first

The method is confident learning: Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in
Dataset Labels"; cleanlab itself finds, counts and ranks.

Letters: N rows, K classes, G groups of rows with the same text, D rows in doubt.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bertlora.data.labels import quoted
from bertlora.errors import DataError, InputError
from bertlora.model.adapted import Adapted
from bertlora.model.predict import Array, softmax
from bertlora.recipe import Recipe
from bertlora.training.events import Examples, Step
from bertlora.training.folds import out_of_fold_logits

Rows = npt.NDArray[np.int64]

# Rows are ranked by the probability of the label given; the lower, the more doubtful.
RANKING = "self_confidence"


@dataclass(frozen=True)
class Audit:
    """What the folds make of N labelled rows.

    Attributes:
        given: (N,) the labels as they are, in 0..K-1.
        fold: (N,) the fold that each row was held out in.
        probabilities: (N, K), each row's from the fold that has not learned from it.
        quality: (N,) cleanlab's score of each label, 0 (surely wrong) to 1.
        flagged: (D,) the rows whose label cleanlab holds for wrong, most doubtful first.
        estimated_errors: how many labels cleanlab estimates to be wrong, whichever they are.
    """

    given: Rows
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
        """Share of rows whose most probable class is the one given."""
        return float(np.mean(self.suggested == self.given))


def audit(
    adapted: Adapted,
    recipe: Recipe,
    examples: Examples,
    groups: Rows,
    folds: int,
    on_step: Callable[[Step], None] = lambda _: None,
) -> Audit:
    """Returns the rows whose label is most doubtful.

    Args:
        adapted: a fresh adapter; it is left as it came.
        recipe: how each fold is trained.
        examples: the rows.
        groups: (N,) rows of one group are held out together; see `text_groups`.
        folds: how many, 2 or more.
        on_step: called with each step of training.

    Raises:
        InputError: fewer than 2 folds.
        DataError: fewer groups than folds, or a class with fewer than two.
    """
    fold = deal_folds(groups, examples.labels, folds, recipe.seed, adapted.labels)
    scores = softmax(out_of_fold_logits(adapted, recipe, examples, fold, on_step))
    return doubts(scores, examples.labels, fold)


def doubts(probabilities: Array, given: Rows, fold: Rows) -> Audit:
    """Returns cleanlab's judgement of labels by out-of-fold probabilities (N, K)."""
    from cleanlab.count import num_label_issues
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    flagged = find_label_issues(given, probabilities, return_indices_ranked_by=RANKING, n_jobs=1)
    quality = get_label_quality_scores(given, probabilities, method=RANKING)
    estimated = int(num_label_issues(given, probabilities))
    return Audit(given, fold, probabilities, quality, np.asarray(flagged, dtype=np.int64), estimated)


def deal_folds(groups: Rows, given: Rows, folds: int, seed: int, labels: Sequence[str]) -> Rows:
    """Returns the fold of each row, (N,): groups stay whole, folds have as many groups of each class, give or take one.

    Args:
        groups: (N,) group of each row, from 0.
        given: (N,) class of each row; a group counts as its first row's.
        folds: how many.
        seed: the same seed deals the same folds.
        labels: names of the classes.

    Raises:
        InputError, DataError: as in `audit`.
    """
    if folds < 2:
        raise InputError(f"folds: got {folds}, expected 2 or more")
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)  # (G,), (G,), (N,)
    if len(first) < folds:
        raise DataError(f"{len(first)} different texts, expected one for each of {folds} folds or more; lower --folds")
    _check_classes(group, given, labels)
    classes = given[first]
    order = np.random.default_rng(seed).permutation(len(first))
    order = order[np.argsort(classes[order], kind="stable")]
    dealt = np.empty(len(first), dtype=np.int64)
    dealt[order] = np.arange(len(first)) % folds
    return dealt[group]


def _check_classes(group: Rows, given: Rows, labels: Sequence[str]) -> None:
    """Raises DataError where no label could be doubted: one class alone, or one whose only text is held out."""
    texts = np.bincount(np.unique(group * len(labels) + given) % len(labels), minlength=len(labels))  # (K,)
    if np.sum(texts > 0) < 2:
        raise DataError(
            f"every label is '{labels[int(given[0])]}', expected two classes or more; check the label column"
        )
    if rare := [label for label, count in zip(labels, texts, strict=True) if count == 1]:
        raise DataError(
            f"{quoted(rare)}: a single text has this label, expected two or more, since each is judged by what was "
            "learned from others; give more rows of it, or leave it out"
        )


def text_groups(texts: Sequence[str], pairs: Sequence[str] | None = None) -> Rows:
    """Returns the group of each text or pair, (N,): equal but for case, punctuation and spaces.

    A model that learned from a copy would know the answer, and not doubt a label that both share.
    """
    numbers: dict[tuple[str, str], int] = {}
    both = zip(texts, pairs or [""] * len(texts), strict=True)
    found = [numbers.setdefault((_plain(text), _plain(pair)), len(numbers)) for text, pair in both]
    return np.array(found, dtype=np.int64)


def _plain(text: str) -> str:
    """Returns the letters and digits alone; a text without any, such as a smiley, as it is."""
    return "".join(c for c in text.casefold() if c.isalnum()) or text
