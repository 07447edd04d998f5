"""Label errors: models that were not trained on a row predict its label, and cleanlab ranks the doubtful labels.

    found = audit(adapted, recipe, examples, rows, folds=5)
    found.flagged                   # rows whose label is doubtful, most doubtful first

Two models predict each row: an adapter and TF-IDF. They err on different rows, so their mean ranks better than either.

The method is confident learning: Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in
Dataset Labels". The package cleanlab finds, counts and ranks the rows.

Letters: N rows, K classes, G groups of rows with the same text, D doubtful rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bertlora.confidence.calibration import Calibration
from bertlora.confidence.intervals import exact_interval
from bertlora.confidence.probabilities import Array, softmax
from bertlora.data.checks import merged
from bertlora.data.labels import quoted
from bertlora.data.reader import Examples
from bertlora.data.rows import Split
from bertlora.errors import DataError, InputError
from bertlora.model.adapted import Adapted
from bertlora.recipe import Recipe
from bertlora.rivals.tfidf import out_of_fold_tfidf
from bertlora.sealed import Kept
from bertlora.training.events import Step
from bertlora.training.folds import out_of_fold_logits

Rows = npt.NDArray[np.int64]

# Rows are ranked by the probability of their own label; the lower, the more doubtful.
RANKING = "self_confidence"
# Where the models are most confident, almost every contradicted label is a label error or a very unusual text.
MOST_CONFIDENT = 0.2
# If more labels than this may be contradicted there, the models are too weak to call a label wrong.
WEAK = 0.1


@dataclass(frozen=True)
class Audit:
    """The result of an audit of N labelled rows.

    Attributes:
        y_true: (N,) the labels in the data, in 0..K-1.
        fold: (N,) the fold in which each row was held out.
        probabilities: (N, K) out-of-fold: each row's are from a model that was not trained on it.
        quality: (N,) cleanlab's score of each label, 0 (certainly wrong) to 1.
        flagged: (D,) the rows worth a look: those that cleanlab flags, most doubtful first, at most `most_errors`. More
            of them may be hard texts than have a wrong label; see `likely_right`.
        contradicted: fraction of the labels that the models contradict in the fifth of the rows where they are most
            confident, 0..1.
        most_errors: at most this many labels are wrong, at a confidence level of 95 %: the upper end of the interval of
            `contradicted`, times N. It counts hard texts as errors, so the truth may be 0. It holds if label errors are
            as frequent among the rows where the models are confident as among the others.
    """

    y_true: Rows
    fold: Rows
    probabilities: Array
    quality: Array
    flagged: Rows
    contradicted: float
    most_errors: int

    @property
    def suggested(self) -> Rows:
        """(N,) the most probable class of each row."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def accuracy(self) -> float:
        """Fraction of the rows whose most probable class is their label."""
        return float(np.mean(self.suggested == self.y_true))

    @property
    def weak(self) -> bool:
        """Whether the models are too weak to call a label wrong; the ranking is still the best guess."""
        return self.most_errors > WEAK * len(self.y_true)

    @property
    def likely_right(self) -> int:
        """Of the flagged rows about this many have a wrong label, or fewer: hard texts count as errors too.

        This assumes that label errors are as frequent among uncertain rows as among confident ones. Then in each fifth
        of the rows by confidence, at most about the fraction `contradicted` of the rows is a label error; other
        contradictions are errors of the models. It is an estimate: `contradicted` itself is used, and not its interval.
        """
        confidence = self.probabilities.max(axis=1)
        fifth = np.searchsorted(np.quantile(confidence, [0.2, 0.4, 0.6, 0.8]), confidence)
        wrong = self.suggested != self.y_true
        rate = np.array([wrong[fifth == k].mean() if (fifth == k).any() else 1.0 for k in range(5)])
        share = np.minimum(self.contradicted / np.maximum(rate[fifth[self.flagged]], 1e-12), 1.0)
        return round(float(share.sum()))


def audit(
    adapted: Adapted,
    recipe: Recipe,
    examples: Examples,
    rows: Split,
    folds: int,
    on_step: Callable[[Step], None] = lambda _: None,
    kept: Kept | None = None,
) -> Audit:
    """Trains two models for each fold and returns the rows whose label is most doubtful.

    Args:
        adapted: a fresh adapter; it is unchanged afterwards.
        recipe: how each fold's adapter is trained.
        examples: the rows.
        rows: the same rows as texts, for TF-IDF. Copies of a text are held out together, and so are rows of one group.
        folds: number of folds, 2 or more.
        on_step: called with each training step.
        kept: where the folds that are done are kept; see `out_of_fold_logits`.

    Raises:
        InputError: there are fewer than 2 folds.
        DataError: there are fewer groups than folds, or a class has fewer than two groups.
    """
    y_true, classes = examples.labels, len(adapted.labels)
    groups = text_groups(rows.texts, rows.pairs)
    groups = groups if rows.groups is None else merged(groups, rows.groups)
    fold = deal_folds(groups, y_true, folds, recipe.seed, adapted.labels)
    logits = out_of_fold_logits(adapted, recipe, examples, fold, on_step, kept)
    by_adapter = Calibration.fit(logits, y_true).probabilities(logits)
    by_words = softmax(out_of_fold_tfidf(rows.texts, rows.pairs, y_true, fold, classes, recipe.seed))
    return doubts((by_adapter + by_words) / 2, y_true, fold)


def doubts(probabilities: Array, y_true: Rows, fold: Rows) -> Audit:
    """Returns cleanlab's ranking of the labels (N,), from out-of-fold probabilities (N, K)."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    flagged = find_label_issues(y_true, probabilities, return_indices_ranked_by=RANKING, n_jobs=1)
    quality = get_label_quality_scores(y_true, probabilities, method=RANKING)
    confidence = probabilities.max(axis=1)
    top = np.argsort(-confidence, kind="stable")[: max(1, round(MOST_CONFIDENT * len(y_true)))]
    wrong = int(np.sum(probabilities[top].argmax(axis=1) != y_true[top]))
    most = round(exact_interval(wrong, len(top))[1] * len(y_true))
    flagged = np.asarray(flagged, dtype=np.int64)[:most]
    return Audit(y_true, fold, probabilities, quality, flagged, wrong / len(top), most)


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
