"""What a report says, as plain tables: nothing here knows of HTML, so that the facts can be tested and kept as JSON.

Every part is None where there are no data for it; the page then says so in a sentence.

Letters: N rows, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bertlora.data.inputs import Inputs
from bertlora.evaluation.abstention import risk_coverage
from bertlora.evaluation.calibration import calibration_error, reliability
from bertlora.evaluation.comparison import Comparison
from bertlora.evaluation.metrics import judge
from bertlora.evaluation.report.lengths import length_facts
from bertlora.evaluation.report.mistakes import error_facts
from bertlora.evaluation.report.run_facts import check_facts, origin_facts, recipe_facts, training_facts
from bertlora.evaluation.verdict import RIVALS, Judged
from bertlora.model.predict import Array, softmax
from bertlora.run import Run

if TYPE_CHECKING:
    from bertlora.model.explain import Explanation

NAMES = {"base": "base, untrained head", "probe": "linear probe", "lora": "LoRA"}
DOUBTFUL_SHOWN = 20
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
CURVE_POINTS = 200
Table = dict[str, Any]


@dataclass(frozen=True)
class Material:
    """What a report on a run is made from, beside the run's own folder. What is not at hand is None or empty.

    Attributes:
        judged: the logits of base, probe and LoRA, or of LoRA alone, on N labelled rows.
        where: what these rows are: `test split`.
        met: empty for rows that the run has not met; `validation` for those that chose epoch and temperature, `train`
            for those that it learned from; `other` for rows of other prepared data than its own.
        texts: the N texts.
        pairs: the N second texts of pairs.
        rows: the N rows' places in their source, from 0.
        inputs: the texts whose lengths are shown.
        lengths_where: what these are: `training split`.
        explanations: row → token attributions of that text.
        doubtful: what `audit --json` prints as `doubtful`, each with its `text` where that is known.
        advice: sentences (`text`), each with the `figure` that it rests on.
    """

    judged: Judged | None = None
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
    """Returns all that the report of a run says."""
    m = material
    return {
        "name": run.path.resolve().name,
        **(_nothing_judged() if m.judged is None or not len(m.judged.given) else _judged_facts(m.judged, run, m)),
        "advice": None if m.advice is None else list(m.advice),
        "training": training_facts(run.metrics()),
        "lengths": None if m.inputs is None else length_facts(m.inputs, m.lengths_where),
        "doubtful": None if m.doubtful is None else list(m.doubtful)[:DOUBTFUL_SHOWN],
        "checks": check_facts(run),
        "recipe": recipe_facts(run),
        "origin": origin_facts(run),
    }


def _nothing_judged() -> Table:
    return dict.fromkeys(("verdict", "calibration", "risk_coverage", "errors"))


def _judged_facts(judged: Judged, run: Run, m: Material) -> Table:
    return {
        "verdict": verdict_facts(judged, m.where, m.met),
        "calibration": calibration_facts(judged, run.calibration is not None, m.met),
        "risk_coverage": risk_facts(judged),
        "errors": None if m.texts is None else error_facts(judged, m.texts, m.pairs, m.explanations, m.rows),
    }


def verdict_facts(judged: Judged, where: str, met: str) -> Table:
    """Returns the figures of each classifier, base first and LoRA last, and the sentence that says what they mean."""
    classifiers = [
        {"name": name, **judge(judged.logits(key), judged.given, judged.labels)}
        for key, name in NAMES.items()
        if key in judged.scores
    ]
    rivals = [name for name in RIVALS if name in judged.scores]
    if rivals:
        found = Comparison.of(judged.right(rivals[0]), judged.right("lora"))
        sentence = found.sentence((RIVALS[rivals[0]], "LoRA"))
    else:
        low, high = (100 * end for end in classifiers[-1]["accuracy_ci95"])
        accuracy = f"LoRA is right on {100 * classifiers[-1]['accuracy']:.1f} % of {len(judged.given):,} rows"
        sentence = f"{accuracy}, 95 % interval {low:.1f} to {high:.1f}."
    return {
        "sentence": sentence,
        "n": len(judged.given),
        "where": where,
        "met": met,
        "has_rival": bool(rivals),
        "classifiers": classifiers,
    }


def calibration_facts(judged: Judged, fitted: bool, met: str) -> Table:
    """Returns the reliability curve of LoRA as trained, and with its temperature if one was `fitted`."""
    raw, scaled = softmax(judged.scores["lora"]), softmax(judged.logits("lora"))
    return {
        "classes": len(judged.labels),
        "temperature": judged.temperature if fitted else None,
        "met": met,
        "before": _reliability(raw, judged.given),
        "after": _reliability(scaled, judged.given) if fitted else None,
    }


def _reliability(probabilities: Array, given: npt.NDArray[np.int64]) -> Table:
    bins = [asdict(one) | {"accuracy_ci95": list(one.accuracy_ci95)} for one in reliability(probabilities, given)]
    return {"ece": calibration_error(probabilities, given), "bins": bins}


def risk_facts(judged: Judged) -> Table:
    """Returns the risk-coverage curve of LoRA, at most 200 points of it, and its value at round coverages."""
    found = risk_coverage(softmax(judged.logits("lora")), judged.given)

    def at(place: int) -> Table:
        coverage, risk, least = (float(part[place]) for part in (found.coverage, found.risk, found.thresholds))
        return {"coverage": coverage, "risk": risk, "confidence": least}

    last = len(found.coverage) - 1
    curve = np.unique(np.linspace(0, last, min(last + 1, CURVE_POINTS)).round().astype(int))
    # The nearest threshold that answers as many or more: rows of the same confidence cannot be parted.
    rounds = dict.fromkeys(int(np.searchsorted(found.coverage, share - 1e-9)) for share in COVERAGES)
    return {"area": found.area, "curve": [at(int(i)) for i in curve], "points": [at(i) for i in rounds]}
