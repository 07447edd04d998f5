"""Shift: how the texts and labels of validation and test differ from those of train.

Each comparison has a size and a p-value. A difference is reported only if its size matters and chance does not explain
it. Rows of one group stay together where words are compared, or a random split by groups would look like a shift.

Letters: S rows drawn from a split, V words, K classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertlora.data.checks.drawn import Drawn
from bertlora.data.checks.features import NUMBERS, kind_of
from bertlora.data.checks.find import Check, a_check, percent
from bertlora.data.checks.rules import column_sums
from bertlora.data.labels import quoted

LEVEL = 0.05
FEWEST_ROWS = 30
FOLDS = 5
# The classifier reads at most this many rows of each split.
ROWS_READ = 1500
# One in this many groups of training rows is held out to see how many words are new there.
HELD_OUT = 5
FEWEST_EXPECTED = 5
CLASSIFIER_C = 1.0
# The folds share training rows, so their mean varies more than the formula for independent rows says: by this factor
# (Nadeau and Bengio 2003, "Inference for the generalization error").
CV_FACTOR = (1 + FOLDS / (FOLDS - 1)) ** 0.5
WORDS_NAMED = 5

# From which size on a difference is a note, and from which a warning. KS: largest distance of the two distributions.
LENGTH_KS = (0.15, 0.3)
# Percentage points of rows that have another label (total variation distance).
LABEL_DISTANCE = (0.05, 0.15)
# Words that are not in train: how many more than in held-out train, as a fraction of all words and as a ratio.
UNKNOWN = ((0.01, 1.25), (0.03, 1.5))
# Area under the ROC curve of the classifier that separates the splits; 0.5 = alike.
AUC = (0.65, 0.8)


@dataclass(frozen=True)
class Difference:
    """One comparison of a split with train.

    Attributes:
        split: the split.
        sentence: what differs, with figures.
        severity: `note` or `warning` by its size; empty if the size does not matter.
        p: the p-value.
    """

    split: str
    sentence: str
    severity: str
    p: float


def shift_checks(drawn: Mapping[str, Drawn], labels: Sequence[str]) -> list[Check]:
    """Returns the check `shift`, counted in differences, if it found something, as `find_checks` does.

    Args:
        drawn: rows of each split; see `draw_rows`.
        labels: the labels, in order.
    """
    train = drawn["train"]
    others = [part for split, part in drawn.items() if split != "train"]
    compared = [found for part in others for found in _differences(train, part, labels)]
    found = [one for one in compared if one.severity and one.p * len(compared) <= LEVEL]
    if not found:
        return []
    severity = "warning" if any(one.severity == "warning" for one in found) else "note"
    named = dict.fromkeys(one.split for one in found)
    parts = [
        f"{split} differs from train: " + ", ".join(o.sentence for o in found if o.split == split) for split in named
    ]
    todo = "its scores do not show how the model does on texts like train; split at random, or say what the split tests"
    advice = f"{'; '.join(parts)}; {todo}"
    return list(a_check("shift", severity, np.zeros(0, np.int64), [], advice, count=len(found)))


def typical_words(one: Drawn, other: Drawn) -> tuple[list[str], list[str]]:
    """Returns the words that are most typical of each of two splits, at most five each.

    They have the largest z-scores of the log odds ratio, smoothed by the words of both splits (Monroe et al. 2008,
    "Fightin' Words", with their informative Dirichlet prior).
    """
    words = _words(one.names)
    counts = [np.asarray(part.tokens[:, words].sum(axis=0, dtype=np.int64)).ravel() + 0.0 for part in (one, other)]
    prior = sum(counts) + 1e-9
    smooth = [count + prior for count in counts]
    odds = [np.log(s / (s.sum() - s)) for s in smooth]
    z = (odds[0] - odds[1]) / np.sqrt(1 / smooth[0] + 1 / smooth[1])
    order = np.argsort(-z, kind="stable")
    names = [one.names[words[i]].split(" ")[0] for i in order]
    return names[:WORDS_NAMED], names[::-1][:WORDS_NAMED]


def _differences(train: Drawn, other: Drawn, labels: Sequence[str]) -> Iterator[Difference]:
    """Yields the comparisons of a split with train; none if one of the two has too few rows."""
    if min(len(train), len(other)) >= FEWEST_ROWS:
        yield _lengths(train, other)
        yield _labels(train, other, labels)
        yield _unknown_words(train, other)
        yield _separated(train, other)


def _lengths(train: Drawn, other: Drawn) -> Difference:
    """Compares the numbers of words (Kolmogorov and Smirnov)."""
    from scipy.stats import ks_2samp

    lengths = [np.asarray(part.numbers[:, :: len(NUMBERS)].sum(axis=1), np.float64) for part in (train, other)]
    found = ks_2samp(lengths[0], lengths[1], method="asymp")
    in_train, here = (int(np.median(length)) for length in lengths)
    way = "are longer" if here > in_train else "are shorter" if here < in_train else "have other lengths"
    sentence = f"its texts {way} (median {here:,} words, {in_train:,} in train)"
    return Difference(other.split, sentence, _severity(float(found.statistic), LENGTH_KS), float(found.pvalue))


def _labels(train: Drawn, other: Drawn, labels: Sequence[str]) -> Difference:
    """Compares the shares of the labels (chi-squared test, rare labels taken together)."""
    from scipy.stats import chi2_contingency

    counts = np.stack([np.bincount(part.labels, minlength=len(labels)) for part in (train, other)])  # (2, K)
    shares = counts / counts.sum(axis=1, keepdims=True)
    apart = shares[1] - shares[0]
    most = int(np.abs(apart).argmax())
    rare = counts.sum(axis=0) * counts.sum(axis=1).min() / counts.sum() < FEWEST_EXPECTED
    table = np.column_stack([counts[:, ~rare], counts[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    p = float(chi2_contingency(table).pvalue) if table.shape[1] > 1 else 1.0
    sentence = f"{percent(shares[1, most])} of its rows are '{labels[most]}' ({percent(shares[0, most])} of train)"
    return Difference(other.split, sentence, _severity(float(np.abs(apart).sum() / 2), LABEL_DISTANCE), p)


def _unknown_words(train: Drawn, other: Drawn) -> Difference:
    """Compares the words that are not in train with those of held-out training rows (Mann and Whitney's test)."""
    from scipy.stats import mannwhitneyu

    words = _words(train.names)
    held_out = _random_parts(train.groups, HELD_OUT) == 0
    tokens = train.tokens[:, words]
    unknown = np.flatnonzero(column_sums(tokens[~held_out]) == 0)
    rows = [tokens[held_out], other.tokens[:, words]]
    of_row = [part.sum(axis=1, dtype=np.int64) for part in rows]
    not_known = [part[:, unknown].sum(axis=1, dtype=np.int64) for part in rows]
    in_train, here = (float(n.sum() / max(1, m.sum())) for n, m in zip(not_known, of_row, strict=True))
    note, warning = (here - in_train >= more and here >= ratio * in_train for more, ratio in UNKNOWN)
    if not note:
        return Difference(other.split, "", "", 1.0)
    p = float(mannwhitneyu(*(n / np.maximum(1, m) for n, m in zip(not_known, of_row, strict=True))).pvalue)
    sentence = f"{percent(here)} of its words are not in train ({percent(in_train)} of held-out train)"
    return Difference(other.split, sentence, "warning" if warning else "note", p)


def _separated(train: Drawn, other: Drawn) -> Difference:
    """Lets a classifier (TF-IDF of words, logistic regression) separate the two splits, in folds by group."""
    from scipy.sparse import vstack
    from scipy.stats import norm

    rows = min(ROWS_READ, len(train), len(other))
    parts = [part.take(np.random.default_rng(0).permutation(len(part))[:rows]) for part in (train, other)]
    tokens = vstack([part.tokens[:, _words(part.names)] for part in parts], format="csr")
    groups = np.concatenate([part.groups for part in parts])
    auc = _cross_validated_auc(tokens, np.repeat([0, 1], rows), _random_parts(groups, FOLDS))
    low, high = (min(1.0, max(0.0, auc + side * CV_FACTOR * auc_error(auc, rows, rows))) for side in (-1.96, 1.96))
    ours, theirs = typical_words(other, train)
    sentence = (
        f"a classifier separates the two with a ROC AUC of {auc:.2f} ({low:.2f} to {high:.2f}; 0.50 is chance; most "
        f"typical of {other.split} are {quoted(ours)}, and of train {quoted(theirs)})"
    )
    p = float(norm.sf((auc - 0.5) / (CV_FACTOR * auc_error(0.5, rows, rows))))
    return Difference(other.split, sentence, _severity(auc, AUC), p)


def auc_error(auc: float, positives: int, negatives: int) -> float:
    """Returns the standard error of an area under the ROC curve (Hanley and McNeil 1982)."""
    one, two = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    terms = auc * (1 - auc) + (positives - 1) * (one - auc**2) + (negatives - 1) * (two - auc**2)
    return float(np.sqrt(max(0.0, terms) / (positives * negatives)))


def _cross_validated_auc(tokens: Any, y: NDArray[np.int64], folds: NDArray[np.int64]) -> float:
    """Returns the mean AUC of the folds that have both classes; 0.5 if none has."""
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    features = TfidfTransformer().fit_transform(tokens[:, column_sums(tokens) > 1])
    areas = []
    for fold in np.unique(folds):
        held = folds == fold
        if len(np.unique(y[held])) == len(np.unique(y[~held])) == 2:
            model = LogisticRegression(C=CLASSIFIER_C, max_iter=1000).fit(features[~held], y[~held])
            areas.append(roc_auc_score(y[held], model.decision_function(features[held])))
    return float(np.mean(areas)) if areas else 0.5


def _random_parts(groups: NDArray[np.int64], parts: int) -> NDArray[np.int64]:
    """Returns a part of each row at random, 0 to parts - 1; rows of one group are in one part."""
    _, group = np.unique(groups, return_inverse=True)
    return np.random.default_rng(0).permutation(group.max() + 1)[group] % parts


def _words(names: Sequence[str]) -> NDArray[np.int64]:
    """Returns the tokens that are a word of a text, not a mark and not a word at a certain place."""
    return np.flatnonzero([kind_of(name) == "word" and " with the word " not in name for name in names])


def _severity(size: float, limits: tuple[float, float]) -> str:
    """Returns the severity of a size by its limits for a note and for a warning; empty below both."""
    return "warning" if size >= limits[1] else "note" if size >= limits[0] else ""
