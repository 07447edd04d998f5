"""Rules on texts and labels: a class that is missed, texts that are cut, doubtful labels, more data.

At the end, all rules together give the advice.

Letters: V validation texts, K classes.
"""

from collections.abc import Iterator

import numpy as np
from scipy.stats import hypergeom, poisson, t

from bertlora.confidence.probabilities import softmax
from bertlora.data.labels import IMBALANCE_RATIO
from bertlora.evaluation.advice.course import Evidence, Piece, fit, head
from bertlora.evaluation.advice.rivals import simpler_labels, simpler_numbers
from bertlora.evaluation.comparison import FEWEST_ROWS
from bertlora.evaluation.gains import SIGNIFICANCE, AccuracyGain
from bertlora.task import MULTILABEL, REGRESSION

RECALL_GAP = 0.2
RIVAL_NAMES = {"probe": "A linear probe on the frozen encoder", "tfidf": "TF-IDF with a linear model"}
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


def simpler(e: Evidence) -> Iterator[Piece]:
    """Yields the best rival if LoRA does not beat it on the validation texts.

    The texts chose LoRA's epoch and no rival's, so a test on them favours LoRA.
    """
    if len(e.y_true) < FEWEST_ROWS or not e.rivals:
        return
    right = {name: logits.argmax(axis=1) == e.y_true for name, logits in e.rivals.items()}
    best = max(right, key=lambda name: right[name].sum())
    gain = AccuracyGain.of(right[best], e.logits.argmax(axis=1) == e.y_true)
    if gain.gain > 0 and gain.p < SIGNIFICANCE:
        return
    yield (
        "rivals",
        f"{RIVAL_NAMES[best]} may do as well as LoRA: try more training texts, longer inputs if texts are cut, or "
        "another base model.",
        f"validation accuracy {right[best].mean():.1%}, LoRA {np.mean(e.logits.argmax(axis=1) == e.y_true):.1%} "
        f"(McNemar's exact test, p = {gain.p:.2g})",
    )


def truncation(e: Evidence) -> Iterator[Piece]:
    """Yields how much of the training texts is not read. They are all counted, so there is nothing to test."""
    if not len(e.train):
        return
    inputs, template = e.train.inputs, e.train.inputs.template
    cut = template.long_texts == "truncate"
    todo = ["raise max_length"] if template.max_length < e.longest else []
    todo += ["try truncation = head-tail"] if cut and template.truncation != "head-tail" else []
    todo += ["try long_texts = windows"] if cut and inputs.second is None else []
    whole, lost = inputs.whole, inputs.unread
    if lost.sum() > TOKENS_LOST * whole.sum():
        yield (
            "truncation",
            f"Much of the long texts is not read: {', or '.join(todo) or 'use a base model that reads longer texts'}.",
            f"{np.mean(lost > 0):.1%} of the training texts are cut, {lost.sum() / whole.sum():.1%} of the tokens lost",
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


RULES = (fit, head, simpler, skew, truncation, labels, more_data)
# Rules on the course of training and on single labels are for classes.
OF_TASK = {REGRESSION: (simpler_numbers, truncation), MULTILABEL: (simpler_labels, truncation)}


def advise(found: Evidence) -> list[dict[str, str]]:
    """Returns objects with `topic`, `text` (what to do) and `figure` (what was measured)."""
    rules = OF_TASK.get(found.recipe.task, RULES)
    return [{"topic": topic, "text": text, "figure": figure} for rule in rules for topic, text, figure in rule(found)]
