"""Shortcuts: a single feature that gives the label away, such as `label: positive`, `8/10`, or the length.

Rules are fitted on training rows and measured on other rows. A word may be typical of a label: `bad` is, and honestly
so. So a word is found only if it decides most rows by itself, or predicts its label far better than all other words.

Letters: S rows, R rules.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bertlora.data.checks.drawn import Drawn
from bertlora.data.checks.find import Check, a_check, percent
from bertlora.data.checks.rules import Bools, Counts, Ints, Rules, fitted_rules

# Half of it is for ratings, half for all other rules together.
LEVEL = 0.05
FINDINGS_NAMED = 3
NOTHING, NOTE, WARNING = 0, 1, 2
SEVERITIES = ("", "note", "warning")

# A label that is written into the text: precision, and fraction of all rows.
WRITTEN_PRECISION, WRITTEN_SHARE = 0.9, 0.005
# A mark, or a number such as the length.
WARNING_SKILL, NOTE_SKILL = 0.5, 0.3
MARK_PRECISION, MARK_NOTE_RECALL, MARK_WARNING_RECALL = 0.95, 0.05, 0.2
# A word. With more than two classes, an honest word may decide a large part of a class.
WORD_SKILL, WORD_SKILL_OF_MANY = 0.5, 0.9
WORD_PRECISION, WORD_RECALL, NAME_SHARE = 0.95, 0.05, 0.005
# The odds of such a word, compared with those of the label's other words that are at least half as frequent.
FAR_ABOVE = 2
# A rating such as 8/10.
RATING_SKILL, RATING_NOTE_SHARE, RATING_WARNING_SHARE = 0.5, 0.01, 0.2
# A rule is left out if rules named before it explain this fraction of its rows.
EXPLAINED = 0.7


@dataclass(frozen=True)
class Finding:
    """A shortcut: its severity, a sentence, and whether each row drawn has it, fitted rows before held-out rows."""

    severity: int
    sentence: str
    rows: Bools


def shortcut_checks(drawn: Mapping[str, Drawn], labels: Sequence[str]) -> list[Check]:
    """Returns the check `shortcut` if it found something, as `find_checks` does.

    Args:
        drawn: rows of each split; see `draw_rows`. Rules are fitted on train and measured on validation. If there is
            no validation split, they are fitted on one half of the training rows and measured on the other half.
        labels: the labels, in order.
    """
    train, held = _fitted_and_held(drawn)
    if not len(train) or not len(held):
        return []
    found = list(_rating(train, held))
    found += _rules(
        train, held, labels, explained=np.any([np.zeros(len(train) + len(held)), *(f.rows for f in found)], 0)
    )
    found.sort(key=lambda finding: -finding.severity)
    if not found:
        return []
    has_one = np.any([finding.rows for finding in found], axis=0)
    rows = np.concatenate([train.rows, held.rows])[has_one]
    splits = np.repeat([train.split, held.split], [len(train), len(held)])[has_one]
    more = f"; and {len(found) - FINDINGS_NAMED} more" if len(found) > FINDINGS_NAMED else ""
    is_sample = len(has_one) < train.of + (0 if held.split == train.split else held.of)
    counted = f" (counted in {len(has_one):,} rows drawn at random)" if is_sample else ""
    listed = "; ".join(finding.sentence for finding in found[:FINDINGS_NAMED]) + more + counted
    advice = (
        f"{listed}; a model learns this and not the meaning; remove it, or check that it holds where the model is used"
    )
    return list(a_check("shortcut", SEVERITIES[found[0].severity], rows, splits.tolist(), advice))


def _fitted_and_held(drawn: Mapping[str, Drawn]) -> tuple[Drawn, Drawn]:
    """Returns the rows to fit rules on, and the rows to measure them on."""
    train = drawn["train"]
    if "validation" in drawn:
        return train, drawn["validation"]
    mixed = np.random.default_rng(0).permutation(len(train))
    half = len(train) // 2
    return train.take(np.sort(mixed[half:])), train.take(np.sort(mixed[:half]))


def _rating(train: Drawn, held: Drawn) -> Iterator[Finding]:
    """Yields a finding if ratings such as 8/10 predict the label: each rating the label that most of its rows have."""
    from scipy.stats import binom

    tenths = [np.where(np.isnan(part.ratings), -1, np.round(10 * part.ratings)).astype(int) for part in (train, held)]
    guess = {tenth: np.bincount(train.labels[tenths[0] == tenth]).argmax() for tenth in np.unique(tenths[0])}
    rated = np.array([tenth >= 0 and tenth in guess for tenth in tenths[1]], np.bool_)
    covered, share = int(rated.sum()), float(rated.mean())
    if share < RATING_NOTE_SHARE:
        return
    labels = held.labels[rated]
    right = int((labels == [guess[tenth] for tenth in tenths[1][rated]]).sum())
    majority = np.bincount(labels).max() / covered
    skill = (right / covered - majority) / max(1e-9, 1 - majority)
    if skill >= RATING_SKILL and binom.sf(right - 1, covered, majority) <= LEVEL / 2:
        severity = WARNING if share >= RATING_WARNING_SHARE else NOTE
        rows = np.concatenate(tenths) >= 0
        gives = f"gives the label of {percent(right / covered)} of these"
        yield Finding(severity, f"{percent(share)} of texts have a rating such as 8/10, and it {gives}", rows)


def _rules(train: Drawn, held: Drawn, labels: Sequence[str], explained: Bools) -> Iterator[Finding]:
    """Yields the rules that hold on the held-out rows, without those that others explain.

    Args:
        train: the rows to fit rules on.
        held: the rows to measure them on.
        labels: the labels.
        explained: whether each row, of `train` and then of `held`, is explained by other findings.
    """
    rules = fitted_rules(train, held, labels)
    fitted = Counts.of(rules.fitted, train.labels, rules.targets)
    counts = Counts.of(rules.held, held.labels, rules.targets)
    typical, two = _typical(rules, fitted), len(labels) == 2
    tried = _grades(rules, fitted, typical, two) > NOTHING
    # The held-out rows play no part in the choice of these rules. So the test is corrected for their number only.
    grades = np.where(tried & _better(counts, tried), _grades(rules, counts, typical, two), NOTHING)
    explained = np.tile(explained, (len(labels), 1))
    order = np.lexsort((rules.ranks, -counts.skill.round(1), rules.kinds != "written", -grades))
    for rule in order[: int((grades > NOTHING).sum())]:
        applies, target = rules.applies(rule), rules.targets[rule]
        if explained[target][applies].mean() < EXPLAINED:
            yield Finding(int(grades[rule]), _sentence(rules, counts, rule, labels), applies)
        explained[target] |= applies
        if two and counts.skill[rule] >= NOTE_SKILL:
            explained[1 - target] |= ~applies


def _better(counts: Counts, tried: Bools) -> Bools:
    """Returns whether each rule is right more often than its label's share of all rows says: binomial, Bonferroni."""
    from scipy.stats import binom

    p = binom.sf(counts.right - 1, counts.covered, counts.of_target / max(1, counts.rows))
    return np.asarray(p * max(1, tried.sum()) <= LEVEL / 2)


def _grades(rules: Rules, counts: Counts, typical: Bools, two: bool) -> Ints:
    """Returns the severity of each rule by its counts, (R,): nothing, note or warning.

    Args:
        rules: the rules.
        counts: how they do on some rows.
        typical: (R,) whether a rule is a word that is typical of its label, like others.
        two: whether there are two classes.
    """
    precision, recall, skill, share = counts.precision, counts.recall, counts.skill, counts.share
    is_word, is_mark = rules.kinds == "word", rules.kinds == "mark"
    formal = is_mark | (rules.kinds == "number")
    written = (rules.kinds == "written") & (precision >= WRITTEN_PRECISION) & (share >= WRITTEN_SHARE)
    mark = is_mark & (precision >= MARK_PRECISION)
    decides = is_word & (skill >= (WORD_SKILL if two else WORD_SKILL_OF_MANY))
    precise = is_word & ~typical & (precision >= WORD_PRECISION)
    note = decides | (formal & (skill >= NOTE_SKILL))
    note |= (mark & (recall >= MARK_NOTE_RECALL)) | (precise & (recall >= WORD_RECALL))
    warning = written | (decides & two) | (formal & (skill >= WARNING_SKILL))
    warning |= (mark & (recall >= MARK_WARNING_RECALL)) | (precise & rules.named & (share >= NAME_SHARE))
    return np.where(warning, WARNING, np.where(note, NOTE, NOTHING))


def _typical(rules: Rules, counts: Counts) -> Bools:
    """Returns whether each rule is a word whose odds are not far above those of the label's other words, (R,).

    Only precise words are compared. The others are typical.
    """
    from scipy.stats import beta

    is_word, wrong = rules.kinds == "word", counts.covered - counts.right
    # A lower bound of the precision (Clopper and Pearson 1934).
    low = np.asarray(beta.ppf(LEVEL, np.maximum(1, counts.right), wrong + 1), np.float64)
    odds = (counts.right + 0.5) / (wrong + 0.5)
    typical = np.array(is_word, np.bool_)
    compared = is_word & (counts.precision >= WORD_PRECISION) & (rules.named | (counts.recall >= WORD_RECALL))
    for word in np.flatnonzero(compared):
        together = (rules.fitted[:, [word]].T @ rules.fitted).toarray().ravel()
        others = is_word & (rules.targets == rules.targets[word]) & (2 * counts.covered >= counts.covered[word])
        # Words of one planted phrase are in the same rows.
        others &= together < EXPLAINED * counts.covered[word]
        typical[word] = low[word] < FAR_ABOVE * odds[others].max(initial=1.0) * (1 - low[word])
    return typical


def _sentence(rules: Rules, counts: Counts, rule: int, labels: Sequence[str]) -> str:
    """Returns what a rule says and how it does on held-out rows."""
    base = counts.of_target[rule] / counts.rows
    said = (
        f"{percent(counts.share[rule])} of texts {rules.phrases[rule]}, and {percent(counts.precision[rule])} of these "
        f"are '{labels[rules.targets[rule]]}' ({percent(base)} of all texts are)"
    )
    if counts.skill[rule] < NOTE_SKILL:
        return said
    accuracy, majority = percent(counts.accuracy[rule]), percent(counts.majority[rule])
    return f"{said}: this rule by itself has an accuracy of {accuracy}, the majority class {majority}"
