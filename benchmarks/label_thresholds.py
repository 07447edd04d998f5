#!/usr/bin/env python3
"""How much a chosen threshold raises the F1 of a label on new rows, against 0.5.

    python benchmarks/label_thresholds.py

A label is in 2 %, 10 % or 30 % of the rows. Its log odds have a standard deviation of 2 or 5. The model knows them, or
its logits are too low or too high by 1. Each case has 120 sets of validation rows, and 60,000 new rows. Prints a
Markdown table: gains over a threshold of 0.5, as means over the 18 cases, and in the worst case. Takes half a minute.
"""

import sys
from itertools import product

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from bertlora.confidence.agreement import resamples
from bertlora.confidence.thresholds import RESAMPLES, best_threshold

SHARES, SPREADS, SHIFTS = (0.02, 0.1, 0.3), (2.0, 5.0), (-1.0, 0.0, 1.0)
POSITIVES = (2, 3, 5, 10, 20, 50)
SETS, NEW_ROWS = 120, 60_000


class Case:
    """A label, and a model whose logits are shifted."""

    def __init__(self, share: float, spread: float, shift: float, random: np.random.Generator) -> None:
        self.spread, self.shift, self.random = spread, shift, random
        normal = random.normal(size=NEW_ROWS)
        self.middle = brentq(lambda a: expit(a + spread * normal).mean() - share, -30, 30)
        probabilities, y_true = self.rows(NEW_ROWS)
        order = np.argsort(probabilities)
        self.rising, left = probabilities[order], np.arange(NEW_ROWS, 0, -1)
        self.f1 = 2 * np.cumsum(y_true[order][::-1])[::-1] / (left + y_true.sum())

    def rows(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns probabilities (count,) of the model, and whether the rows have the label; at least one has it."""
        log_odds = self.middle + self.spread * self.random.normal(size=count)
        y_true = self.random.random(count) < expit(log_odds)
        y_true[log_odds.argmax()] |= not y_true.any()
        return expit(log_odds + self.shift), y_true

    def on_new_rows(self, threshold: float) -> float:
        """Returns the F1 of a threshold."""
        return float(self.f1[min(np.searchsorted(self.rising, threshold), NEW_ROWS - 1)])


def main() -> int:
    """Prints the table."""
    random = np.random.default_rng(0)
    cases = {settings: Case(*settings, random) for settings in product(SHARES, SPREADS, SHIFTS)}
    print("| rows with the label | rule | mean gain | worst case |\n|---:|---|---:|---:|")
    for positives in POSITIVES:
        gains: dict[str, list[float]] = {"50 resamples": [], "the rows themselves": []}
        for (share, *_), case in cases.items():
            count = int(positives / share)
            found: dict[str, list[float]] = {name: [] for name in gains}
            for seed in range(SETS):
                drawn = case.rows(count)
                times = np.concatenate(list(resamples(count, seed, RESAMPLES)))
                for name, weights in zip(gains, (times, np.ones((1, count))), strict=True):
                    found[name].append(case.on_new_rows(best_threshold(*drawn, weights)))
            for name, values in found.items():
                gains[name].append(float(np.mean(values)) - case.on_new_rows(0.5))
        for name, values in gains.items():
            print(f"| {positives} | {name} | {np.mean(values):+.3f} | {min(values):+.3f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
