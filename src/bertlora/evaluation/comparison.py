"""Two classifiers on the same rows: is one better, and how sure is that?"""

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

Right = npt.NDArray[np.bool_]

RESAMPLES = 10_000
SURE = 0.05


def mcnemar(first: Right, second: Right) -> float:
    """Returns the p value of McNemar's exact test: are the rows that only one of the two gets right split evenly?

    Args:
        first: (N,) which rows the first classifier gets right.
        second: (N,) the same for the second.
    """
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(~first & second))
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


def gain_interval(first: Right, second: Right, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float, float]:
    """Returns the gain of `second` over `first` in points and its 95 % bootstrap interval over paired rows."""
    shares = float(np.mean(first & ~second)), float(np.mean(~first & second))
    counts = np.random.default_rng(seed).multinomial(len(first), [*shares, 1 - sum(shares)], size=resamples)
    gains = 100 * (counts[:, 1] - counts[:, 0]) / len(first)
    low, high = np.percentile(gains, [2.5, 97.5])
    return 100 * (shares[1] - shares[0]), float(low), float(high)


def verdict(names: tuple[str, str], first: Right, second: Right) -> str:
    """Returns one sentence on `second` against `first`: better, worse, or not to be told apart on so many rows."""
    gain, low, high = gain_interval(first, second)
    p = mcnemar(first, second)
    if p < SURE and gain:
        beats = "beats" if gain > 0 else "falls behind"
        low, high = (low, high) if gain > 0 else (-high, -low)
        return (
            f"{names[1]} {beats} {names[0]} by {abs(gain):.1f} points, 95 % interval {low:.1f} to {high:.1f} "
            f"(McNemar's exact p = {p:.2g}, {len(first):,} rows)."
        )
    return (
        f"{names[1]} and {names[0]} are not distinguishable on {len(first):,} rows: {gain:+.1f} points, "
        f"95 % interval {low:+.1f} to {high:+.1f} (McNemar's exact p = {p:.2g})."
    )
