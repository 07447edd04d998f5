"""The content of a report as plain data: no HTML, so that it can be tested, and saved as JSON.

A part without data is None; the page then says so in a sentence.

Letters: N rows, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bertlora.confidence.abstention import risk_coverage
from bertlora.confidence.calibration import calibration_error, reliability
from bertlora.confidence.probabilities import Array, softmax
from bertlora.data.inputs import Inputs
from bertlora.evaluation.metrics import classification_metrics
from bertlora.evaluation.report.lengths import length_facts
from bertlora.evaluation.report.mistakes import error_facts
from bertlora.evaluation.report.run_facts import check_facts, data_name, origin_facts, recipe_facts, training_facts
from bertlora.evaluation.verdict import RIVALS, Evaluated, verdict
from bertlora.run.loaded import Run

if TYPE_CHECKING:
    from bertlora.model.explain import Explanation

NAMES = {"base": "base, untrained head", "probe": "linear probe", "lora": "LoRA"}
DOUBTFUL_SHOWN = 20
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
CURVE_POINTS = 200
Table = dict[str, Any]


@dataclass(frozen=True)
class Material:
    """The input of a report besides the run's own folder. A part that is not available is None or empty.

    Attributes:
        evaluated: the logits of base, linear probe and LoRA, or only of LoRA, on N labelled rows.
        where: where these rows are from, such as `test split`.
        met: `validation` if the rows chose the epoch and the temperature, `train` if the run was trained on them,
            `other` if their prepared data is not the run's own. Otherwise it is empty.
        texts: the N texts.
        pairs: the N second texts of pairs.
        rows: the N row numbers in the source, from 0.
        inputs: the texts whose lengths are shown.
        lengths_where: where these texts are from, such as `training split`.
        explanations: row → token attributions of its text.
        doubtful: `doubtful` of `audit --json`, each with its `text` if that is known.
        advice: sentences (`text`), each with the measured `figure` behind it.
    """

    evaluated: Evaluated | None = None
    where: str = ""
    met: str = ""
    texts: Sequence[str] | None = None
    pairs: Sequence[str] | None = None
    rows: Sequence[int] | npt.NDArray[np.int64] | None = None
    inputs: Inputs | None = None
    lengths_where: str = ""
    explanations: Mapping[int, "Explanation"] = field(default_factory=dict)
    doubtful: Sequence[Table] | None = None
    advice: Sequence[Table] | None = None


def facts_of(run: Run, material: Material) -> Table:
    """Returns the content of a run's report."""
    m = material
    evaluated = None if m.evaluated is None or not len(m.evaluated.y_true) else m.evaluated
    return {
        "name": run.path.resolve().name,
        "task": {"labels": list(run.manifest.labels), "pairs": run.manifest.pairs, "data": data_name(run)},
        **(_nothing_evaluated() if evaluated is None else _evaluated_facts(evaluated, run, m)),
        "advice": None if m.advice is None else list(m.advice),
        "training": training_facts(run.metrics()),
        "lengths": None if m.inputs is None else length_facts(m.inputs, m.lengths_where),
        "doubtful": None if m.doubtful is None else list(m.doubtful)[:DOUBTFUL_SHOWN],
        "checks": check_facts(run),
        "recipe": recipe_facts(run),
        "origin": origin_facts(run),
    }


def _nothing_evaluated() -> Table:
    return dict.fromkeys(("verdict", "calibration", "risk_coverage", "errors"))


def _evaluated_facts(evaluated: Evaluated, run: Run, m: Material) -> Table:
    return {
        "verdict": verdict_facts(evaluated, m.where, m.met),
        "calibration": calibration_facts(evaluated, run.calibration.rows > 0, m.met),
        "risk_coverage": risk_facts(evaluated),
        "errors": None if m.texts is None else error_facts(evaluated, m.texts, m.pairs, m.explanations, m.rows),
    }


def verdict_facts(evaluated: Evaluated, where: str, met: str) -> Table:
    """Returns the metrics of each classifier, base first and LoRA last, and the verdict, one sentence a line."""
    e = evaluated
    return {
        "sentence": verdict(e),
        "n": len(e.y_true),
        "rows_name": e.rows_name,
        "where": where,
        "met": met,
        "has_rival": any(rival in e.raw_logits for rival in RIVALS),
        "classifiers": [
            {"name": name, **classification_metrics(e.logits(key), e.y_true, e.labels)}
            for key, name in NAMES.items()
            if key in e.raw_logits
        ],
    }


def calibration_facts(evaluated: Evaluated, fitted: bool, met: str) -> Table:
    """Returns the reliability curve of LoRA's raw probabilities, and with its temperature if one was `fitted`."""
    raw, scaled = softmax(evaluated.raw_logits["lora"]), softmax(evaluated.logits("lora"))
    return {
        "classes": len(evaluated.labels),
        "temperature": evaluated.calibration.temperature if fitted else None,
        "met": met,
        "before": _reliability(raw, evaluated.y_true),
        "after": _reliability(scaled, evaluated.y_true) if fitted else None,
    }


def _reliability(probabilities: Array, y_true: npt.NDArray[np.int64]) -> Table:
    bins = [asdict(one) | {"accuracy_ci95": list(one.accuracy_ci95)} for one in reliability(probabilities, y_true)]
    return {"ece": calibration_error(probabilities, y_true), "bins": bins}


def risk_facts(evaluated: Evaluated) -> Table:
    """Returns LoRA's risk-coverage curve, thinned to at most 200 points, and its values at round coverages."""
    found = risk_coverage(softmax(evaluated.logits("lora")), evaluated.y_true)

    def at(place: int) -> Table:
        coverage, risk, least = (float(part[place]) for part in (found.coverage, found.risk, found.thresholds))
        return {"coverage": coverage, "risk": risk, "confidence": least}

    last = len(found.coverage) - 1
    curve = np.unique(np.linspace(0, last, min(last + 1, CURVE_POINTS)).round().astype(int))
    # The first threshold that answers at least as many: rows of equal confidence are answered together.
    rounds = dict.fromkeys(int(np.searchsorted(found.coverage, share - 1e-9)) for share in COVERAGES)
    return {"area": found.area, "curve": [at(int(i)) for i in curve], "points": [at(i) for i in rounds]}
