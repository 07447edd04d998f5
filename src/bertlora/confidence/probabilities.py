"""Softmax and cross-entropy of logits, without overflow."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def softmax(logits: Array) -> Array:
    """Returns probabilities for logits (B, K)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def cross_entropy(logits: Array, y_true: Labels) -> float:
    """Returns the mean negative log-likelihood of labels (B,) under logits (B, K), in nats."""
    top = logits.max(axis=1, keepdims=True)
    log_sums = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
    return float(np.mean(log_sums - logits[np.arange(len(y_true)), y_true]))
