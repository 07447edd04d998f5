"""Rules on texts and labels: a class that is missed, texts that are cut, doubtful labels, more data. And on rivals.

At the end, all rules together give the advice.

Letters: V validation texts, K classes or labels.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from scipy.stats import hypergeom, poisson, t

from bertlora.confidence.label_agreement import Chosen
from bertlora.confidence.probabilities import Array, sigmoid, softmax
from bertlora.confidence.thresholds import DEFAULT
from bertlora.data.labels import IMBALANCE_RATIO
from bertlora.evaluation.advice.course import Evidence, Piece, fit, head
from bertlora.evaluation.comparison import FEWEST_ROWS, RIVALS, Comparison, compare_all, to_try, unbeaten_of
from bertlora.evaluation.gains import SIGNIFICANCE
from bertlora.evaluation.label_gains import compare_labels
from bertlora.evaluation.paired_errors import ErrorComparison, compare_errors
from bertlora.task import MULTILABEL, REGRESSION

Compared = Mapping[str, Comparison | ErrorComparison]

RECALL_GAP = 0.2
FEWEST_OF_A_CLASS = 10
TOKENS_LOST = 0.05
CONFIDENT = 0.95
DOUBTFUL_SHARE = 0.02
WORTH_MORE_POINTS = 1.0
# The rule of three: if an event is not seen in N rows, 3/N is the upper 95 % bound of its probability.
NONE_SEEN = 3


def skew(e: Evidence) -> Iterator[Piece]:
    """Yields the class whose recall is most clearly lower than the other classes' recall.

    Each class is tested against the others together (Fisher's exact test), and the test counts all classes.
    """
    rows = np.bincount(e.y_true, minlength=len(e.labels))
    hits = np.bincount(e.y_true[e.logits.argmax(axis=1) == e.y_true], minlength=len(e.labels))
    classes = np.flatnonzero(rows >= FEWEST_OF_A_CLASS)
    if len(classes) < 2:
        return
    all_rows, all_hits = rows[classes].sum(), hits[classes].sum()
    # Fisher's exact test, one-sided: how probable are as few hits by chance?
    lower = np.asarray(hypergeom.cdf(hits[classes], all_rows, all_hits, rows[classes]))
    worst = int(classes[lower.argmin()])
    recall, others = hits[worst] / rows[worst], (all_hits - hits[worst]) / (all_rows - rows[worst])
    if others - recall > RECALL_GAP and lower.min() * len(classes) < SIGNIFICANCE:
        learned = np.bincount(e.train.labels, minlength=len(e.labels))
        todo = (
            "set class_weights = balanced"
            if learned[worst] * IMBALANCE_RATIO < learned.max() and e.recipe.class_weights != "balanced"
            else "look at its missed texts, and add more texts like them"
        )
        named = [f"'{e.labels[k]}'" for k in classes.tolist() if k != worst]
        yield (
            "skew",
            f"'{e.labels[worst]}' is missed much more often than "
            f"{named[0] if len(named) == 1 else 'the other classes'}: {todo}.",
            f"recall {recall:.2f} of {rows[worst]:,} rows against {others:.2f} of {all_rows - rows[worst]:,}",
        )


def unbeaten(e: Evidence) -> Iterator[Piece]:
    """Yields the best of the rivals that LoRA is not shown to beat on the validation texts.

    It says what these rows show, and no more: with few rows LoRA may be better, and they do not show it. A rival is
    called better only if its test says so. The tests are those of the verdict: by the metric that leads, corrected for
    the number of rivals. The rows chose LoRA's epoch and thresholds, and nothing of a rival, so they favour LoRA.
    """
    if len(e.y_true) < FEWEST_ROWS or not e.rivals:
        return
    compared = COMPARE.get(e.recipe.task, _classes)(e)
    open_ones = unbeaten_of(compared)
    if not open_ones:
        return
    # A rival that is shown to be better comes first.
    name, found = min(open_ones.items(), key=lambda pair: (not pair[1].significant, pair[1].gain))
    rival = RIVALS[name]
    said = f"The validation rows do not show that LoRA is better than {rival}"
    if found.significant:
        said = f"{rival[0].upper()}{rival[1:]} is better than LoRA on the validation rows"
    figure = f"{found.sentence((rival, 'LoRA'))} LoRA's epoch was chosen on these rows."
    yield "rivals", f"{said}: try {to_try(e.unread)}.", figure


def _classes(e: Evidence) -> Compared:
    """Compares LoRA with each rival by accuracy, or by macro F1 if the classes are imbalanced."""
    ours = e.logits.argmax(axis=1)
    pairs = {name: (logits.argmax(axis=1), ours) for name, logits in e.rivals.items()}
    return compare_all(e.y_true, pairs, len(e.labels))


def _numbers(e: Evidence) -> Compared:
    """Compares LoRA with each rival by RMSE."""
    pairs = {name: (found[:, 0], e.logits[:, 0]) for name, found in e.rivals.items()}
    return compare_errors(e.y_true.astype(np.float64), pairs)


def _labels(e: Evidence) -> Compared:
    """Compares LoRA with each rival by macro F1; there is none if no text has a label."""
    y_true = np.asarray(e.y_true, dtype=np.bool_)
    if not y_true.any():
        return {}
    ours = _chosen(e, "lora", e.logits)
    return compare_labels(y_true, {name: (_chosen(e, name, logits), ours) for name, logits in e.rivals.items()})


def _chosen(e: Evidence, name: str, logits: Array) -> Chosen:
    """Returns the labels (V, K) that a model chooses."""
    return np.asarray(sigmoid(logits) >= e.thresholds.get(name, DEFAULT))


COMPARE: dict[str, Callable[[Evidence], Compared]] = {REGRESSION: _numbers, MULTILABEL: _labels}


def truncation(e: Evidence) -> Iterator[Piece]:
    """Yields how much of the training texts is not read. They are all counted, so there is nothing to test."""
    if e.unread.share > TOKENS_LOST:
        yield (
            "truncation",
            f"Much of the long texts is not read: try {e.unread.remedy}.",
            f"{e.unread.cut:.1%} of the training texts are cut, {e.unread.share:.1%} of the tokens lost",
        )


def labels(e: Evidence) -> Iterator[Piece]:
    """Yields how many validation labels the model contradicts with high confidence, if chance does not explain them.

    Of rows with a confidence of c, a fraction of 1 - c is wrong although the labels are right. The number of such rows
    is at most as spread as a Poisson variable.
    """
    if not len(e.y_true):
        return
    probabilities = softmax(e.logits)
    confident = probabilities.max(axis=1) >= CONFIDENT
    contradicted = int((confident & (probabilities.argmax(axis=1) != e.y_true)).sum())
    expected = float((1 - probabilities.max(axis=1))[confident].sum())
    by_chance = float(poisson.sf(contradicted - 1, expected))
    if contradicted >= DOUBTFUL_SHARE * len(e.y_true) and by_chance < SIGNIFICANCE:
        yield (
            "labels",
            "Some labels may be wrong: 'bertlora audit DATA' ranks the doubtful ones.",
            f"{contradicted:,} of {len(e.y_true):,} validation labels are contradicted with a confidence of "
            f"{CONFIDENT} or more; if all labels were right, about {expected:.0f} would be",
        )


def more_data(e: Evidence) -> Iterator[Piece]:
    """Yields whether more data would help, from the slope of the linear probe's learning curve.

    The margin of the slope comes from a one-sided t test over folds. Folds share training rows, so their spread is too
    small, and the test corrects for it (Nadeau and Bengio 2003, "Inference for the generalization error"). The margin
    is at least three of the training rows, because folds that agree by chance prove little.
    """
    if len(e.curve) < 2:
        return
    before, after = e.curve[-2:]
    gains = 100 * (np.array(after.accuracies) - np.array(before.accuracies))
    gain, folds = float(gains.mean()), len(gains)
    error = float(gains.std(ddof=1)) * (1 / folds + 1 / (folds - 1)) ** 0.5
    margin = max(float(t.ppf(1 - SIGNIFICANCE, folds - 1)) * error, 100 * NONE_SEEN / after.rows)
    if gain >= WORTH_MORE_POINTS and gain > margin:
        text = (
            "More labelled texts are likely to raise the accuracy: a linear probe on the frozen encoder gains from them"
        )
    elif gain + margin < WORTH_MORE_POINTS:
        text = "A linear probe on the frozen encoder would gain little from more texts of this kind; LoRA can gain more"
    else:
        return
    yield (
        "data",
        f"{text}.",
        f"balanced accuracy of the linear probe {before.accuracy:.1%} with {before.rows:,} rows, {after.accuracy:.1%} "
        f"with {after.rows:,}: {gain:+.1f} points, plus or minus {margin:.1f}",
    )


RULES = (fit, head, unbeaten, skew, truncation, labels, more_data)
# Rules on the course of training and on single labels are for classes.
OF_TASK = dict.fromkeys((REGRESSION, MULTILABEL), (unbeaten, truncation))


def advise(found: Evidence) -> list[dict[str, str]]:
    """Returns objects with `topic`, `text` (what to do) and `figure` (what was measured)."""
    rules = OF_TASK.get(found.recipe.task, RULES)
    return [{"topic": topic, "text": text, "figure": figure} for rule in rules for topic, text, figure in rule(found)]
