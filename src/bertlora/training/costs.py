"""What a training costs on this machine: a few real steps, passes and fits are timed, and the whole follows from them.

    costs = Costs.measured(adapted, recipe, sources)  # a few seconds
    costs.seconds(adapted, recipe, sources)           # {"rivals": 8.1, "steps": 33.9, "evaluations": 4.5}

The costs are straight lines: a cost a step and a cost a token. The texts that are timed are the user's own, of all
lengths. So the cost of a token includes attention, which grows with the square of the length.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bertlora.data.reader import Examples
from bertlora.model.adapted import Adapted
from bertlora.model.engine import frozen_share
from bertlora.model.machine import threads_kept
from bertlora.recipe import Recipe
from bertlora.rivals.fitted import Texts
from bertlora.rivals.probe import MAX_ROWS, FrozenView, fit_probe, frozen_views, learning_curve, probe_precision
from bertlora.rivals.tfidf import fit_tfidf
from bertlora.training.events import Step
from bertlora.training.loop import Training
from bertlora.training.typical import repeated, rows_of_typical_length, typical
from bertlora.training.work import Work

# Steps of each size. The first one warms up: new sizes of products, and the first use of the weights.
STEPS = 3
# Tokens of a smaller step, and the fewest tokens to which a text is cut.
SMALL_TOKENS, LEAST_TOKENS = 64, 16
# Seconds that the larger steps, and the pass of the base, may take. If a whole text would take longer, it is cut.
STEPS_S, PASS_S = 4.0, 1.0
UNCUT = 1_000_000
# A step costs about this many times as much as a pass, because it also goes back.
BACKWARD = 3
# The rivals are timed on this much, a second each. A linear probe of 1,000 rows takes as long as one of 100 rows, which
# tries more strengths. Beyond that its time grows with the rows. The time of TF-IDF grows with the characters.
PASS_ROWS, PROBE_ROWS, PROBE_GROWS, TFIDF_CHARACTERS = 8, 100, 1000, 30_000
# The estimate is meant to be within this factor of the truth.
FACTOR = 1.5


class Sources(NamedTuple):
    """The data of a training: examples to train on, examples to evaluate on, and the training texts."""

    train: Examples
    validation: Examples
    texts: Texts


class Timed(NamedTuple):
    """Something that was timed: its size in tokens or rows, and its seconds."""

    size: float
    seconds: float


@dataclass(frozen=True)
class Line:
    """A cost in seconds: `fixed`, and `each` times the size."""

    fixed: float
    each: float

    def at(self, size: float) -> float:
        """Returns the seconds for a size."""
        return self.fixed + self.each * size

    @classmethod
    def through(cls, small: Sequence[Timed], large: Sequence[Timed]) -> "Line":
        """Returns the line through the medians of two sizes; neither part is below 0. Empty groups cost nothing."""
        points = [_median(group) for group in (small, large) if group]
        if not points:
            return cls(0.0, 0.0)
        first, last = points[0], points[-1]
        rate = last.seconds / max(last.size, 1.0)
        if last.size > first.size:
            rate = min(max((last.seconds - first.seconds) / (last.size - first.size), 0.0), rate)
        return cls(max(last.seconds - rate * last.size, 0.0), rate)


@dataclass(frozen=True)
class Costs:
    """Costs that were measured, in seconds.

    Attributes:
        step: of a step, by its tokens.
        evaluation: of an evaluation, by its tokens.
        pass_token: of a token that the frozen base reads.
        rivals: of the rivals' fits, on all rows.
        spread: the slowest step that was timed over the fastest one of its size, for each token; 1 or more.
    """

    step: Line
    evaluation: Line
    pass_token: float
    rivals: float
    spread: float

    @classmethod
    def measured(cls, adapted: Adapted, recipe: Recipe, sources: Sources) -> "Costs":
        """Times steps, evaluations, a pass of the base, and the rivals' fits. Torch's global state stays as it was.

        Args:
            adapted: a fresh model; it is of no use afterwards, since it is trained.
            recipe: the recipe, of a known task.
            sources: the data of the training that is planned.
        """
        with threads_kept():
            small, large = _timed_steps(adapted, recipe, sources)
            step = Line.through(small.steps, large.steps)
            evaluation = Line.through(small.evaluations, large.evaluations)
            tokens = PASS_S / max(step.each / BACKWARD, 1e-9)
            passed, view = _timed_pass(adapted, recipe, sources, tokens, probe_precision(adapted, large.precision))
            return cls(step, evaluation, passed, _rivals_seconds(view, sources, recipe.seed), _spread(small, large))

    def seconds(self, adapted: Adapted, recipe: Recipe, sources: Sources) -> dict[str, float]:
        """Returns the seconds of the whole training by part: `rivals`, `steps` and `evaluations`."""
        train, validation = (found.inputs.lengths for found in (sources.train, sources.validation))
        work = Work.of(recipe, train)
        rows, read = len(train), int(train.sum() + validation.sum())
        probed = train.sum() * min(1.0, MAX_ROWS / rows) + validation.sum()
        kept = frozen_share(adapted.model, pack=not recipe.encoder_dropout) if work.epochs > 1 else 0.0
        return {
            "rivals": self.rivals + self.pass_token * probed,
            "steps": work.steps * self.step.fixed + work.tokens * self.step.each + kept * self.pass_token * read,
            "evaluations": work.evaluations * self.evaluation.at(int(validation.sum())),
        }


class _Size(NamedTuple):
    """The size of a step: its texts, and the tokens at which they are cut."""

    rows: int
    longest: int

    @classmethod
    def of(cls, tokens: float, mean: float, most: int, least: int = 1) -> "_Size":
        """Returns the size with about `tokens` tokens, from `least` to `most` texts of this mean length."""
        rows = max(least, min(most, int(tokens / mean)))
        return cls(rows, UNCUT if rows * mean <= tokens else max(LEAST_TOKENS, int(tokens / rows)))


class _Short(NamedTuple):
    """What a short training took; `precision` is the one that it used."""

    steps: list[Timed]
    evaluations: list[Timed]
    precision: str


def _timed_steps(adapted: Adapted, recipe: Recipe, sources: Sources) -> tuple[_Short, _Short]:
    """Returns the times of two short trainings: with few tokens a step, and with all of a step or as much as is quick.

    The second one is empty if it would hardly be larger.
    """
    full, mean = min(recipe.rows_per_step, len(sources.train)), sources.train.inputs.lengths.mean()
    small = _short_training(adapted, recipe, sources, _Size.of(SMALL_TOKENS, mean, full))
    done = _median(small.steps)
    quick = _Size.of(done.size * STEPS_S / STEPS / max(done.seconds, 1e-9), mean, full)
    if quick.rows * min(quick.longest, mean) < 1.5 * done.size:
        return small, _Short([], [], small.precision)
    return small, _short_training(adapted, recipe, sources, quick)


def _short_training(adapted: Adapted, recipe: Recipe, sources: Sources, size: _Size) -> _Short:
    """Trains for a few steps of this size, with texts of typical lengths, and returns what they took."""
    micro = min(recipe.batch_size, size.rows)
    again = recipe.steps(len(sources.train)) > recipe.steps_per_epoch(len(sources.train))
    short = recipe.replace(
        batch_size=micro,
        gradient_accumulation=-(-size.rows // micro),
        # Later epochs do not run the frozen layers again.
        epochs=1 + again,
        max_steps=STEPS + again,
        evaluate_every_steps=STEPS,
        early_stopping_patience=0,
        warmup_fraction=0.0,
    )
    train = typical(sources.train, STEPS * short.rows_per_step, size.longest)
    validation = typical(sources.validation, size.rows, size.longest)
    training = Training(adapted, short, train, validation)
    read, done = float(validation.inputs.lengths.sum()), training.progress
    steps, evaluations, before = [], [], 0
    started = began = time.perf_counter()
    with closing(training.run()) as events:
        for event in events:
            now = time.perf_counter()
            if isinstance(event, Step):
                steps.append(Timed(done.tokens - before, now - began))
                before = done.tokens
            else:
                evaluations.append(Timed(read, now - began))
            if len(steps) > 1 and now - started > 2 * STEPS_S:
                break
            began = now
    if not evaluations:
        step = _median(steps[1:])
        evaluations.append(Timed(read, read * step.seconds / step.size / BACKWARD))
    return _Short(steps[1:], evaluations[-1:] if read else [], training.precision)


def _timed_pass(
    adapted: Adapted, recipe: Recipe, sources: Sources, tokens: float, precision: str
) -> tuple[float, FrozenView]:
    """Returns the seconds a token of a pass of the frozen base over about `tokens` tokens, and what it gives."""
    most = min(len(sources.train), PROBE_ROWS)
    sample = typical(sources.train, *_Size.of(tokens, sources.train.inputs.lengths.mean(), most, PASS_ROWS))
    began = time.perf_counter()
    _, view = frozen_views(adapted, sample, recipe.seed, precision)
    passed = (time.perf_counter() - began) / float(sample.inputs.lengths.sum())
    return passed, repeated(view, most)


def _rivals_seconds(view: FrozenView, sources: Sources, seed: int) -> float:
    """Returns how long the fits of both rivals take on all rows, from their times on a few."""
    from sklearn import feature_extraction, linear_model, model_selection  # noqa: F401  # not part of the fits

    rows, (texts, pairs) = len(sources.train), sources.texts
    whole = sum(map(len, texts)) + sum(map(len, pairs or ()))
    few = rows_of_typical_length(
        sources.train.inputs.lengths, max(1, min(rows, TFIDF_CHARACTERS * rows // max(whole, 1)))
    )
    began = time.perf_counter()
    learning_curve(view, fit_probe(view, seed), seed)
    probed = time.perf_counter()
    second = None if pairs is None else [pairs[i] for i in few]
    fit_tfidf([texts[i] for i in few], second, sources.train.labels[few], view.classes, seed, whole)
    fitted = time.perf_counter()
    more = max(1.0, min(rows, MAX_ROWS) / PROBE_GROWS)
    if view.labels.dtype.kind == "i":  # the few rows may lack classes, and each class has its own weights
        more *= view.classes / len(np.unique(view.labels))
    return (probed - began) * more + (fitted - probed) * rows / len(few)


def _median(timed: Sequence[Timed]) -> Timed:
    """Returns the mean size, and the seconds of that size at the median cost of each part of it."""
    size = float(np.mean([one.size for one in timed]))
    return Timed(size, size * float(np.median([one.seconds / max(one.size, 1.0) for one in timed])))


def _spread(small: _Short, large: _Short) -> float:
    costs = [one.seconds / max(one.size, 1.0) for one in large.steps or small.steps]
    return max(costs) / max(min(costs), 1e-12)
