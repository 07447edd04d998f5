"""A promise in words, and how often a simulation finds it kept."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Random = np.random.Generator


@dataclass(frozen=True)
class Promise:
    """Events that happen in a promised share of draws.

    Attributes:
        topic: what is promised, in a word: coverage, chance, power, ...
        case: what is drawn.
        happens: draws the case, and returns by the name of each event whether it happened.
        low: each event happens in at least this share of draws.
        high: and in at most this share.
    """

    topic: str
    case: str
    happens: Callable[[Random], dict[str, bool]]
    low: float = 0.0
    high: float = 1.0

    def measured(self, draws: int) -> dict[str, float]:
        """Returns by event the share of draws in which it happens."""
        found = [self.happens(np.random.default_rng(seed)) for seed in range(draws)]
        return {event: float(np.mean([one[event] for one in found])) for event in found[0]}

    def kept(self, share: float, draws: int) -> bool:
        """Returns whether a measured share is within three standard errors of the promised ones."""
        low, high = (3 * (bound * (1 - bound) / draws) ** 0.5 for bound in (self.low, self.high))
        return bool(self.low - low <= share <= self.high + high)

    @property
    def promised(self) -> str:
        """The promised share in words."""
        if self.low and self.high < 1:
            return f"{100 * self.low:.3g} to {100 * self.high:.3g} %"
        return f"at least {100 * self.low:.3g} %" if self.low else f"at most {100 * self.high:.3g} %"
