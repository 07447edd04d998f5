"""Rules of the kind "texts with this feature have this label": one for each simple feature, fitted on training rows.

Letters: S rows, R rules, F numbers of a row, K classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bertlora.data.checks.drawn import Drawn
from bertlora.data.checks.features import NUMBER_RANK, edge_word, kind_of, number_phrase, phrase_of, rank_of
from bertlora.data.words import words_of

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# A feature is tried if at least 5 training rows have it, and a number for at most the 20 largest classes.
FEWEST_ROWS = 5
CLASSES_TRIED = 20
OTHER_NAMES = {"pos": "positive", "neg": "negative", "positive": "pos", "negative": "neg"}


@dataclass(frozen=True)
class Rules:
    """R rules.

    Attributes:
        phrases: (R,) the features, as the end of the sentence "12 % of texts ...".
        kinds: (R,) `written`, `mark`, `number` or `word`.
        ranks: (R,) int64, the lower of two names the feature if both apply to the same rows.
        targets: (R,) int64, index of the label that each predicts.
        named: (R,) bool, whether the feature is a word and the name of that label.
        fitted: (S, R) sparse, 1 if the rule applies to the row, of the rows that it was fitted on.
        held: the same of the held-out rows.
    """

    phrases: NDArray[Any]
    kinds: NDArray[Any]
    ranks: Ints
    targets: Ints
    named: Bools
    fitted: Any
    held: Any

    def applies(self, rule: int) -> Bools:
        """Returns whether a rule applies to each row, fitted rows before held-out rows."""
        return np.concatenate([rows[:, [rule]].toarray().ravel() > 0 for rows in (self.fitted, self.held)])


@dataclass(frozen=True)
class Counts:
    """How R rules do on S rows.

    Attributes:
        rows: S.
        of_target: (R,) rows that have the label.
        covered: (R,) rows that the rule applies to.
        right: (R,) covered rows that have the label.
    """

    rows: int
    of_target: Ints
    covered: Ints
    right: Ints

    @classmethod
    def of(cls, applies: Any, labels: NDArray[np.int32], targets: Ints) -> "Counts":
        """Returns the counts, given (S, R) where each rule applies, the labels, and the label that each predicts."""
        sizes = np.bincount(labels, minlength=int(targets.max(initial=0)) + 1)
        row, rule = applies.nonzero()
        right = rule[labels[row] == targets[rule]]
        rules = len(targets)
        return cls(len(labels), sizes[targets], np.bincount(rule, minlength=rules), np.bincount(right, minlength=rules))

    @property
    def share(self) -> Floats:
        """The fraction of rows that the rule applies to."""
        return self.covered / max(1, self.rows)

    @property
    def precision(self) -> Floats:
        """The fraction of covered rows that have the label."""
        return self.right / np.maximum(1, self.covered)

    @property
    def recall(self) -> Floats:
        """The fraction of the label's rows that are covered."""
        return self.right / np.maximum(1, self.of_target)

    @property
    def accuracy(self) -> Floats:
        """The accuracy of "a covered row has the label, another row does not"."""
        return (self.rows - self.covered - self.of_target + 2 * self.right) / max(1, self.rows)

    @property
    def majority(self) -> Floats:
        """The accuracy of the better constant answer."""
        share = self.of_target / max(1, self.rows)
        return np.maximum(share, 1 - share)

    @property
    def skill(self) -> Floats:
        """The fraction of the constant answer's errors that the rule avoids; 1 if it makes none."""
        return (self.accuracy - self.majority) / np.maximum(1e-9, 1 - self.majority)


class _NumberRule(NamedTuple):
    phrase: str
    target: int
    fitted: Bools
    held: Bools


def fitted_rules(train: Drawn, held: Drawn, labels: Sequence[str]) -> Rules:
    """Returns a rule for each token, and for each pair of a number and a class, fitted on `train`.

    A token predicts the label that most of its rows have. A number predicts a class by the best single threshold.
    """
    from scipy.sparse import csr_array, hstack

    columns = np.flatnonzero(column_sums(train.tokens) >= FEWEST_ROWS)
    tokens = [train.names[column] for column in columns.tolist()]
    fitted = train.tokens[:, columns]
    classes = csr_array((np.ones(len(train), np.int32), (train.labels, np.arange(len(train)))))  # (K, S)
    most = np.asarray((classes @ fitted).tocsc().argmax(axis=0)).ravel() if len(columns) else np.zeros(0, np.int64)
    numbers = list(_number_rules(train, held, len(labels)))
    targets = np.concatenate([most, [rule.target for rule in numbers]]).astype(np.int64)
    own = [{word, OTHER_NAMES.get(word, word)} for word in (" ".join(words_of(label)) for label in labels)]
    named = np.array([token in own[target] for token, target in zip(tokens, most, strict=True)], np.bool_)
    # A label's name as the first or last word of a text is written there, like `label: positive`.
    at_edge = np.array([edge_word(token) in own[target] for token, target in zip(tokens, most, strict=True)], np.bool_)
    kinds = np.where(at_edge, "written", [kind_of(token) for token in tokens])
    return Rules(
        phrases=np.array([*map(phrase_of, tokens), *(rule.phrase for rule in numbers)], object),
        kinds=np.array([*kinds, *("number" for _ in numbers)], object),
        ranks=np.array([*map(rank_of, tokens), *(NUMBER_RANK for _ in numbers)], np.int64),
        targets=targets,
        named=np.array([*named, *(False for _ in numbers)], np.bool_),
        fitted=hstack([fitted, *(csr_array(rule.fitted[:, None]) for rule in numbers)], format="csc"),
        held=hstack([held.tokens[:, columns], *(csr_array(rule.held[:, None]) for rule in numbers)], format="csc"),
    )


def column_sums(matrix: Any) -> Ints:
    """Returns how many rows of a sparse matrix of zeros and ones have each column."""
    return np.bincount(matrix.tocsr().indices, minlength=matrix.shape[1]).astype(np.int64)


def _number_rules(train: Drawn, held: Drawn, classes: int) -> Iterator[_NumberRule]:
    sizes = np.bincount(train.labels, minlength=classes)
    tried = [1] if classes == 2 else np.argsort(-sizes, kind="stable")[:CLASSES_TRIED].tolist()
    for column, values in enumerate(train.numbers.T):
        for target in tried:
            limit, above = best_threshold(values, train.labels == target)
            if np.isfinite(limit):
                sides = [(numbers > limit) == above for numbers in (values, held.numbers[:, column])]
                yield _NumberRule(number_phrase(column, limit, above), target, *sides)


def best_threshold(values: Floats, has_label: Bools) -> tuple[float, bool]:
    """Returns the threshold that guesses the label best, and whether the label is above it; NaN if values are equal.

    Args:
        values: (S,) a number of each row.
        has_label: (S,) whether the row has the label.
    """
    order = np.argsort(values, kind="stable")
    values, has_label = values[order], has_label[order]
    # Right answers of "above it, and not below" for a threshold after each row.
    right = np.cumsum(~has_label) + has_label.sum() - np.cumsum(has_label)
    steps = np.flatnonzero(values[1:] > values[:-1])
    if not len(steps):
        return float("nan"), True
    best = steps[np.abs(right[steps] - len(values) / 2).argmax()]
    return float(values[best] + values[best + 1]) / 2, bool(right[best] >= len(values) / 2)
