"""Rules for numbers and for several labels: a rival that is as good.

The validation texts chose LoRA's epoch and thresholds, and nothing of a rival. So a test on them favours LoRA.

Letters: V validation texts, K labels.
"""

from collections.abc import Iterator

import numpy as np

from bertlora.confidence.label_agreement import Chosen, LabelAgreement
from bertlora.confidence.probabilities import Array, sigmoid
from bertlora.confidence.thresholds import DEFAULT
from bertlora.evaluation.advice.course import Evidence, Piece
from bertlora.evaluation.comparison import FEWEST_ROWS, RIVALS
from bertlora.evaluation.label_gains import compare_labels
from bertlora.evaluation.paired_errors import compare_errors


def simpler_numbers(e: Evidence) -> Iterator[Piece]:
    """Yields the rival with the lowest error if LoRA does not beat it on the validation texts."""
    if len(e.y_true) < FEWEST_ROWS or not e.rivals:
        return
    ours, y_true = e.logits[:, 0], e.y_true.astype(np.float64)
    pairs = {name: (found[:, 0], ours) for name, found in e.rivals.items()}
    name, best = min(compare_errors(y_true, pairs).items(), key=lambda pair: pair[1].rmse[0])
    if not (best.gain > 0 and best.significant):
        figures = f"validation RMSE {best.rmse[0]:.4g}, LoRA {best.rmse[1]:.4g}"
        yield _as_good(name, f"{figures} (paired bootstrap, p = {best.p:.2g})")


def simpler_labels(e: Evidence) -> Iterator[Piece]:
    """Yields the rival with the highest macro F1 if LoRA does not beat it on the validation texts."""
    y_true = np.asarray(e.y_true, dtype=np.bool_)
    if len(y_true) < FEWEST_ROWS or not e.rivals or not y_true.any():
        return
    chosen = {name: _chosen(e, name, logits) for name, logits in {**e.rivals, "lora": e.logits}.items()}
    f1 = {name: _macro_f1(found, y_true) for name, found in chosen.items()}
    compared = compare_labels(y_true, {name: (chosen[name], chosen["lora"]) for name in e.rivals})
    name, best = max(compared.items(), key=lambda pair: f1[pair[0]])
    if not (best.gain > 0 and best.significant):
        figures = f"validation macro F1 {f1[name]:.3f}, LoRA {f1['lora']:.3f}"
        yield _as_good(name, f"{figures} (paired bootstrap, p = {best.p:.2g})")


def _chosen(e: Evidence, name: str, logits: Array) -> Chosen:
    """Returns the labels (V, K) that a model chooses."""
    return np.asarray(sigmoid(logits) >= e.thresholds.get(name, DEFAULT))


def _macro_f1(chosen: Chosen, y_true: Chosen) -> float:
    return float(LabelAgreement(chosen, chosen.astype(np.float64), y_true).macro_f1(np.ones((1, len(y_true))))[0])


def _as_good(name: str, figures: str) -> Piece:
    """Returns what to try against a rival."""
    rival = RIVALS[name]
    todo = "try more training texts, longer inputs if texts are cut, or another base model"
    return "rivals", f"{rival[0].upper()}{rival[1:]} may do as well as LoRA: {todo}.", figures
