"""Softmax and cross-entropy of logits, without overflow."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def softmax(logits: Array) -> Array:
    """Returns probabilities for logits (B, K)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def row_losses(logits: Array, y_true: Labels) -> Array:
    """Returns the negative log-likelihood (B,) of each label (B,) under logits (B, K), in nats."""
    top = logits.max(axis=1, keepdims=True)
    log_sums = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
    return np.asarray(log_sums - logits[np.arange(len(y_true)), y_true])


def cross_entropy(logits: Array, y_true: Labels) -> float:
    """Returns the mean negative log-likelihood of labels (B,) under logits (B, K), in nats."""
    return float(np.mean(row_losses(logits, y_true)))
