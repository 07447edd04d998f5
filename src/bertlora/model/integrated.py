"""Integrated gradients: how much each token of a text changes the logits, compared with a text of blanks.

    F(x) = logit of the label - logit of its strongest rival        x (T, D) the word embeddings of the text's tokens
           of several labels: logit of the label; in a regression: the number
    a_t  = (x_t - b_t) · ∫ ∂F/∂x_t (b + s (x - b)) ds, s from 0 to 1         b (T, D) the baseline, a text of blanks
    Σ a_t = F(x) - F(b)

after Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks". Gauss-Legendre quadrature gives the integral.
Only word embeddings change; special tokens and positions stay those of the text.

It goes in steps, so that a server can answer others between them; captum, the usual library, cannot stop on its way.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bertlora.confidence.probabilities import Array
from bertlora.data.inputs import Inputs
from bertlora.data.tokenizer import AnyTokenizer
from bertlora.data.tokens import TokenTable
from bertlora.model.engine import Execution, unwrapped
from bertlora.task import CLASSIFICATION, REGRESSION

# The sum of attributions may differ from the change of the logit difference by this fraction of it, or these logits.
TOLERANCE_SHARE, TOLERANCE_LOGITS = 0.01, 0.01
# The same for a number: a fraction of the number itself.
LEAST_SHARE = 1e-4
# Steps of the integral, doubled from the first number to the second until the tolerance holds. 32 are mostly enough.
FIRST_STEPS, MOST_STEPS = 32, 1024
# Tokens per batch of steps. It bounds the memory.
BATCH_TOKENS = 1024
# A pass with gradients takes about as long as this many without.
GRADIENT_COST = 2

T = TypeVar("T")
# What runs in steps: it yields about how many tokens the model reads in the next step, and returns a result.
Steps = Generator[int, None, T]
# Makes the model ready for a step.
Enter = Callable[[], AbstractContextManager[Execution]]


@dataclass(frozen=True)
class Attributed:
    """A text's label, and the contribution of its tokens.

    Attributes:
        label: the predicted class, or the most probable of several labels.
        rival: the class with the next highest logit; None if labels do not exclude each other, and for a number.
        tokens: (N,) logits for each token of the text, then of the second text; NaN for tokens that were not read.
        difference: the label's logit minus the rival's; or the number.
        baseline: the same for the baseline.
    """

    label: int
    rival: int | None
    tokens: Array
    difference: float
    baseline: float

    @property
    def gap(self) -> float:
        """The sum of the tokens minus the expected sum."""
        return float(np.nansum(self.tokens)) - (self.difference - self.baseline)


def blank_id(tokenizer: AnyTokenizer) -> int:
    """Returns the id of the token that fills a baseline: the mask token.

    In pretraining it means "some word is here". Padding is worse: encoders never attend to it, so its output is
    arbitrary. A row of padding had a stronger label than a row of masks.
    """
    return tokenizer.pad_id if tokenizer.mask_id is None else tokenizer.mask_id


def finished(steps: Steps[T]) -> T:
    """Runs all steps, and returns the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def attributed(enter: Enter, inputs: Inputs, blank: int, task: str = CLASSIFICATION) -> Steps[Attributed]:
    """Returns label and attributions of one text, in steps. Attributions of its windows are averaged, as logits are.

    Args:
        enter: makes the model ready for a step.
        inputs: one text.
        blank: the token id of the baseline.
        task: what the model predicts.
    """
    yield int(inputs.lengths.sum())
    with enter() as execution, torch.no_grad():
        scores = execution.logits(inputs, [0])[0].double().cpu().numpy()
    label = int(scores.argmax())
    others = np.where(np.arange(len(scores)) == label, -np.inf, scores)
    rival = int(others.argmax()) if task == CLASSIFICATION else None
    windows, places = _apart(inputs), _apart(_numbered(inputs))
    paths = []
    for p in range(len(windows)):
        yield 2 * int(windows.lengths[p])
        with enter() as execution:
            paths.append(_Path(execution, windows, p, blank, (label, rival)))
    baseline, difference = (float(np.mean([path.ends[i] for path in paths])) for i in (0, 1))
    # A number has a unit, so no fixed tolerance fits it.
    least = LEAST_SHARE * max(abs(difference), abs(baseline)) if task == REGRESSION else TOLERANCE_LOGITS
    tolerance = max(least, TOLERANCE_SHARE * abs(difference - baseline))
    tokens = np.full(int(_token_counts(inputs).sum()), np.nan)
    for p, path in enumerate(paths):
        numbers, _ = places.window(p)
        own = -1 - numbers[numbers < 0]
        integral = yield from path.integral(enter, tolerance)
        tokens[own] = np.nan_to_num(tokens[own]) + integral[numbers < 0] / len(paths)
    return Attributed(label, rival, tokens, difference, baseline)


class _Path:
    """The straight line from the baseline to a window's text, with S points per batch.

    Attributes:
        start: (1, T, D) word embeddings of the baseline.
        stop: (1, T, D) word embeddings of the text.
        ends: the logit difference at start and stop.
    """

    def __init__(
        self, execution: Execution, windows: Inputs, p: int, blank: int, classes: tuple[int, int | None]
    ) -> None:
        self._windows, self._p, self._classes = windows, p, classes
        table = unwrapped(execution.model).get_input_embeddings()
        ids = torch.from_numpy(windows.window(p)[0]).long()
        special = torch.from_numpy(_numbered(windows).window(p)[0]) >= 0
        rows = torch.stack([torch.where(special, ids, blank), ids])
        with torch.no_grad():
            both = table(rows.to(next(table.parameters()).device))
            start, stop = self.difference(execution, both).double().tolist()
        self.start, self.stop, self.ends = both[:1], both[1:], (start, stop)

    def difference(self, execution: Execution, embedded: Tensor) -> Tensor:
        """Returns the logit difference (or the number), (S,), with embeddings (S, T, D) in place of the text's."""
        with _embedded(unwrapped(execution.model).get_input_embeddings(), embedded):
            scores = execution.logits(self._windows, [self._p] * len(embedded))
        label, rival = self._classes
        return scores[:, label] if rival is None else scores[:, label] - scores[:, rival]

    def integral(self, enter: Enter, tolerance: float) -> Steps[Array]:
        """Returns the attribution of each token of the window, (T,), in steps."""
        steps, change = FIRST_STEPS, self.ends[1] - self.ends[0]
        while True:
            tokens = yield from self._quadrature(enter, steps)
            if abs(tokens.sum() - change) <= tolerance or steps >= MOST_STEPS:
                return tokens
            steps *= 2

    def _quadrature(self, enter: Enter, points: int) -> Steps[Array]:
        """Returns the attributions, (T,), by the gradients at some points of the path."""
        places, weights = (torch.from_numpy(x / 2).to(self.stop) for x in np.polynomial.legendre.leggauss(points))
        total, length = torch.zeros_like(self.stop[0]), self.stop.shape[1]
        batch = max(1, BATCH_TOKENS // length)
        for some in (slice(first, first + batch) for first in range(0, points, batch)):
            yield GRADIENT_COST * length * len(places[some])
            with enter() as execution, torch.enable_grad():
                shares = (places[some] + 0.5)[:, None, None]
                embedded = (self.start + shares * (self.stop - self.start)).requires_grad_()
                (slopes,) = torch.autograd.grad(self.difference(execution, embedded).sum(), embedded)
                total += (weights[some][:, None, None] * slopes).sum(0) * (self.stop - self.start)[0]
        tokens: Array = total.double().sum(-1).cpu().numpy()
        return tokens


@contextmanager
def _embedded(table: nn.Module, embedded: Tensor) -> Iterator[None]:
    """Inside, the table of word embeddings returns (S, T, D) for S equal texts, padded or packed in a row."""
    rows = embedded.flatten(0, 1)

    def answer(_: nn.Module, __: Any, own: Tensor) -> Tensor:
        # A packed row ends in filler.
        return torch.cat([rows, own.flatten(0, -2)[len(rows) :]]).view(own.shape)

    handle = table.register_forward_hook(answer)
    try:
        yield
    finally:
        handle.remove()


def _apart(inputs: Inputs) -> Inputs:
    """Returns the inputs with every window as a separate text."""
    if inputs.template.long_texts == "truncate":
        return inputs
    room, windows = inputs.template.room(pair=False), inputs.windows
    parts = [inputs.first[i][s : s + room] for i, s in zip(windows.texts, windows.starts, strict=True)]
    return Inputs(replace(inputs.template, long_texts="truncate"), TokenTable.of(parts))


def _numbered(inputs: Inputs) -> Inputs:
    """Returns the inputs with tokens -1, -2, ...: formatted, they show the place of each token and special token."""
    numbers = -1 - np.arange(_token_counts(inputs).sum(), dtype=np.int32)
    first, second = np.split(numbers, _token_counts(inputs)[:1])
    pairs = None if inputs.second is None else TokenTable(second, inputs.second.offsets)
    return Inputs(inputs.template, TokenTable(first, inputs.first.offsets), pairs)


def _token_counts(inputs: Inputs) -> npt.NDArray[np.int64]:
    """Returns the tokens of all texts, and of all second texts, (2,)."""
    return np.array([len(inputs.first.ids), 0 if inputs.second is None else len(inputs.second.ids)])
