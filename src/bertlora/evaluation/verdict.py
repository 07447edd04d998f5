"""Base, linear probe, TF-IDF and LoRA on the same rows: the figures, and what they mean. For every task."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from bertlora.confidence.calibration import UNCALIBRATED, Calibration
from bertlora.confidence.probabilities import Array
from bertlora.confidence.spread import Spread
from bertlora.confidence.thresholds import Thresholds
from bertlora.data.inputs import ALL_READ, Unread
from bertlora.data.reader import Examples
from bertlora.data.rows import Split
from bertlora.evaluation.comparison import RIVALS, TRAINED, Comparison, against_lora, compare_all, to_try, unbeaten_of
from bertlora.evaluation.metrics import classification_metrics, headline, probability_figures
from bertlora.evaluation.multilabel import EvaluatedLabels, label_figures
from bertlora.evaluation.paired_errors import ErrorComparison
from bertlora.evaluation.values import EvaluatedValues, value_figures
from bertlora.model.base import longest_input
from bertlora.run.loaded import Run
from bertlora.task import CLASSIFICATION

# The figures that a temperature changes. It changes no label.
CALIBRATED = ("loss", "ece", "brier")
# How the rows of an evaluation are named: `test split`, `more.csv, test split`, `test split of the data of runs/a`.
PLACE = re.compile(r"(?:(?P<source>.*), )?(?P<split>train|validation|test) split(?: of the data of .*)?")


@dataclass(frozen=True)
class Evaluated:
    """The outputs of a run's classifiers on the same N labelled rows.

    Attributes:
        labels: names of the K classes.
        y_true: (N,) int64, the right classes.
        raw_logits: logits (N, K) of `base` (with its untrained head), `probe` and `tfidf` (if the run has them) and
            `lora`. LoRA's are before temperature scaling; the rivals' are calibrated.
        calibration: scales LoRA's logits in prediction.
        rows_name: what the sentences call the rows, such as `test reviews`. They name a precision other than fp32.
        seconds: by classifier, how long its training took, where that is known.
        unread: what the encoder does not read of the rows.
    """

    labels: list[str]
    y_true: npt.NDArray[np.int64]
    raw_logits: dict[str, Array]
    calibration: Calibration = UNCALIBRATED
    rows_name: str = "rows"
    seconds: Mapping[str, float] = field(default_factory=dict)
    unread: Unread = ALL_READ
    predicts = "classes"

    def logits(self, name: str) -> Array:
        """Returns a classifier's logits (N, K) as used in prediction: LoRA's are calibrated."""
        return self.calibration.scaled(self.raw_logits[name]) if name == "lora" else self.raw_logits[name]

    @property
    def names(self) -> list[str]:
        """The classifiers."""
        return list(self.raw_logits)

    def headline(self, opening: str) -> str:
        """Returns how good LoRA is, in a sentence that begins with `opening`."""
        return headline(opening, self.raw_logits["lora"], self.y_true, self.rows_name)

    def right(self, name: str) -> npt.NDArray[np.bool_]:
        """Returns which rows a classifier gets right, (N,)."""
        return np.asarray(self.raw_logits[name].argmax(axis=1) == self.y_true)

    def figures(self, name: str) -> dict[str, Any]:
        """Returns a classifier's metrics, with `training_seconds` if that is known."""
        timed = {"training_seconds": self.seconds[name]} if name in self.seconds else {}
        return classification_metrics(self.logits(name), self.y_true, self.labels) | timed

    @cached_property
    def comparisons(self) -> dict[str, Comparison]:
        """LoRA against each other classifier. Two trained rivals are compared together; see `compare_all`."""
        predicted = {name: logits.argmax(axis=1) for name, logits in self.raw_logits.items()}
        return against_lora(predicted, lambda pairs: compare_all(self.y_true, pairs, len(self.labels)))


AnyEvaluated = Evaluated | EvaluatedValues | EvaluatedLabels


def evaluate_rows(
    run: Run, examples: Examples, texts: Split | None = None, precision: str = "fp32", rows_name: str = "rows"
) -> AnyEvaluated:
    """Runs base, linear probe, TF-IDF and LoRA on labelled rows.

    Args:
        run: the run to evaluate.
        examples: rows that it was not trained on.
        texts: the same rows as texts, for TF-IDF; without them TF-IDF is left out.
        precision: `fp32`, `bf16`, `int8` or `auto`.
        rows_name: what the sentences call the rows, such as `test reviews`. They name a precision other than fp32.
    """
    precision = run.choose_precision(precision)
    rows_name += "" if precision == "fp32" else f" (in {precision})"
    base, features = run.adapted.base_features(examples.inputs, precision)
    whole = ([], None) if texts is None else (texts.texts, texts.pairs)
    outputs = {"base": base.astype(np.float64), **run.rivals.logits(features, *whole)}
    outputs["lora"] = run.adapted.logits(examples.inputs, precision=precision)
    unread = Unread.of(examples.inputs, longest_input(run.adapted.base))
    return evaluated_of(run, examples.labels, outputs, rows_name, training_seconds(run), unread)


def evaluated_of(run: Run, y_true: npt.NDArray[Any], outputs: Mapping[str, Array], *more: Any) -> AnyEvaluated:
    """Returns the outputs of a run's models on rows, as the run's task has them.

    Args:
        run: the run.
        y_true: (N,) the right classes or numbers; (N, K) the right labels of texts with several.
        outputs: (N, K) of each model by name, `lora` among them; K is 1 for numbers.
        more: the attributes `rows_name`, `seconds` and `unread`.
    """
    labels, calibration = run.manifest.labels, run.calibration
    if isinstance(calibration, Spread):
        values = {name: found[:, 0] for name, found in outputs.items()}
        if "base" in values:  # an untrained head says nothing about numbers
            values["base"] = np.full(len(y_true), calibration.mean)
        return EvaluatedValues(labels, y_true, values, calibration, *more)
    if isinstance(calibration, Thresholds):
        return EvaluatedLabels(labels, y_true, dict(outputs), calibration, run.rivals.thresholds, *more)
    return Evaluated(labels, y_true, dict(outputs), calibration, *more)


def training_seconds(run: Run) -> dict[str, float]:
    """Returns how long each classifier of a run took to train, by name: for LoRA only the training loop."""
    measured = run.metrics()
    rivals = {name: found["seconds"] for name, found in measured.get("rivals", {}).items()}
    return rivals | ({"lora": measured["train"]["seconds"]} if measured else {})


def figures(evaluated: AnyEvaluated) -> dict[str, Any]:
    """Returns what `evaluate --json` prints: see `value_figures` of a regression, `label_figures` of several labels.

    Of a classification:

    Returns:
        - `task`; `n`: number of rows.
        - `base`, `probe`, `tfidf`, `lora`: what `classification_metrics` returns, with `training_seconds` where it is
          known; None if the run has no such classifier. All but the base are calibrated.
        - `majority_share`: the accuracy of always naming the largest class.
        - `temperature`: LoRA's.
        - `uncalibrated`: LoRA's `loss`, `ece` and `brier` without the temperature.
        - `improvement_points`, `improvement_relative_percent`: LoRA over the base.
        - `comparisons`: LoRA against `probe` and `tfidf` (if the run has them) and `base`, each as `Comparison.figures`
          returns it.
        - `mcnemar_p`: the p of the first comparison.
        - `verdict`: see `verdict`.
    """
    if isinstance(evaluated, EvaluatedValues):
        return value_figures(evaluated) | {"verdict": verdict(evaluated)}
    if isinstance(evaluated, EvaluatedLabels):
        return label_figures(evaluated) | {"verdict": verdict(evaluated)}
    e = evaluated
    found: dict[str, Any] = {"base": None, "probe": None, "tfidf": None, "lora": None}
    found |= {name: e.figures(name) for name in e.raw_logits}
    raw = probability_figures(e.raw_logits["lora"], e.y_true)
    comparisons = {rival: found.figures((RIVALS[rival], "LoRA")) for rival, found in e.comparisons.items()}
    before, after = float(e.right("base").mean()), float(e.right("lora").mean())
    return {
        "task": CLASSIFICATION,
        "n": len(e.y_true),
        **found,
        "majority_share": float(np.bincount(e.y_true).max() / len(e.y_true)),
        "temperature": e.calibration.temperature,
        "uncalibrated": {key: raw[key] for key in CALIBRATED},
        "improvement_points": 100 * (after - before),
        "improvement_relative_percent": 100 * (after - before) / before if before else None,
        "comparisons": comparisons,
        "mcnemar_p": next(iter(comparisons.values()))["mcnemar_p"],
        "verdict": verdict(e),
    }


def verdict(evaluated: AnyEvaluated) -> str:
    """Returns the verdict, one thing a line.

    1. How good LoRA is; and first of all, which of its rivals are as good as it, or better.
    2. For each rival, whether LoRA beats it and by how much. Without rivals, LoRA is compared with the base model;
       without that too, this line is left out.
    3. Of a regression, how many intervals contain the truth.
    4. Only if a rival is not beaten: how many rows would settle the measured gap to the best one, and what to try.
    """
    e = evaluated
    rivals: Mapping[str, Comparison | ErrorComparison]
    rivals = {name: found for name, found in e.comparisons.items() if name in TRAINED} or e.comparisons
    unbeaten = list(unbeaten_of(rivals))
    lines = [e.headline(_opening(unbeaten, rivals))]
    lines += [found.sentence((RIVALS[name], "LoRA")) for name, found in rivals.items()]
    lines += [e.coverage_sentence] if isinstance(e, EvaluatedValues) else []
    if unbeaten:
        lines.append(min((rivals[name] for name in unbeaten), key=lambda found: found.gain).open_sentence)
        lines.append(_to_try(e, [name for name in unbeaten if name in TRAINED]))
    return "\n".join(line for line in lines if line)


def _opening(unbeaten: list[str], rivals: Mapping[str, Comparison | ErrorComparison]) -> str:
    """Returns how the headline begins: `LoRA`, or what LoRA does not beat."""
    better = [RIVALS[name] for name in unbeaten if rivals[name].significant]
    if better:
        return f"LoRA is worse than {' and '.join(better)}: it"
    names = " or ".join(RIVALS[name] for name in unbeaten)
    return f"LoRA is not shown to be better than {names}: it" if unbeaten else "LoRA"


def _to_try(e: AnyEvaluated, unbeaten: list[str]) -> str:
    """Returns what to try if rivals are not beaten; empty if they are."""
    if not unbeaten:
        return ""
    tried = f"Try {to_try(e.unread)}"
    quickest = min(unbeaten, key=lambda name: e.seconds.get(name, math.inf))
    if quickest not in e.seconds or "lora" not in e.seconds:
        return f"{tried}."
    name = RIVALS[quickest]
    times = f"{e.seconds[quickest]:,.1f} s, LoRA in {e.seconds['lora']:,.1f} s"
    return f"{tried}. {name[0].upper()}{name[1:]} trained in {times}."


def legacy_lines(result: dict[str, Any]) -> list[str]:
    """Returns the four lines that compare the base model with LoRA, in the wording of earlier systems.

    The relative improvement is shown only if the base is more accurate than always naming the largest class.

    Args:
        result: as `figures` returns it.
    """
    base, lora, chance = result["base"]["accuracy"], result["lora"]["accuracy"], result["majority_share"]
    relative = f"{result['improvement_relative_percent']:.2f}%" if base > chance else ""
    return [
        f"Base BERT Accuracy: {base:.4f} ({100 * base:.2f}%)",
        f"BERT + LoRA Accuracy: {lora:.4f} ({100 * lora:.2f}%)",
        f"Improvement: {result['improvement_points']:.2f} percentage points",
        f"Relative Improvement: {relative or f'not shown, the base is not above chance ({100 * chance:.2f}%)'}",
    ]


def rows_of(where: str) -> str:
    """Returns what to call the rows of a place: `test rows` for `more.csv, test split`, `rows` without a split."""
    found = PLACE.fullmatch(where)
    return f"{found['split']} rows" if found else "rows"


def source_of(where: str) -> str:
    """Returns the source of a place: `more.csv` for `more.csv, test split`; empty for a run's own split."""
    found = PLACE.fullmatch(where)
    return found["source"] or "" if found else where
