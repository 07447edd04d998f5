"""The content of a report as plain data: no HTML, so that it can be tested, and saved as JSON.

A part without data is None; the page then says so in a sentence.

Letters: N rows, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bertlora.data.inputs import Inputs
from bertlora.evaluation.cautions import Met
from bertlora.evaluation.comparison import RIVALS
from bertlora.evaluation.multilabel import EvaluatedLabels
from bertlora.evaluation.report.calibration import calibration_facts, risk_facts
from bertlora.evaluation.report.lengths import length_facts
from bertlora.evaluation.report.mistakes import error_facts, worst_errors
from bertlora.evaluation.report.multilabel import label_error_facts, several_label_facts, worst_labelled
from bertlora.evaluation.report.recall import recall_facts
from bertlora.evaluation.report.run_facts import check_facts, data_name, origin_facts, recipe_facts, training_facts
from bertlora.evaluation.report.values import largest_errors, value_error_facts, value_facts
from bertlora.evaluation.values import EvaluatedValues
from bertlora.evaluation.verdict import AnyEvaluated, Evaluated, verdict
from bertlora.run.loaded import Run
from bertlora.task import CLASSIFICATION, MULTILABEL, REGRESSION

if TYPE_CHECKING:
    from bertlora.model.explain import Explanation

# In the order of the report; a classifier without a name here comes before LoRA, under the name of its logits.
NAMES = {"base": "base, untrained head", "probe": "linear probe", "tfidf": "TF-IDF"}
DOUBTFUL_SHOWN = 20
Table = dict[str, Any]
# What outputs on rows give, by task.
PARTS = {
    CLASSIFICATION: ("verdict", "precision_recall", "calibration", "risk_coverage", "errors"),
    REGRESSION: ("verdict", "predictions", "coverage", "errors"),
    MULTILABEL: ("verdict", "labels", "calibration", "errors"),
}


@dataclass(frozen=True)
class Material:
    """The input of a report besides the run's own folder. A part that is not available is None or empty.

    Attributes:
        evaluated: the logits of LoRA and of any other classifiers on N labelled rows.
        where: where these rows are from, such as `test split`.
        met: how many of the rows the run knows.
        texts: the N texts.
        pairs: the N second texts of pairs.
        rows: the N row numbers in the source, from 0.
        inputs: the texts whose lengths are shown.
        lengths_where: where these texts are from, such as `training split`.
        slices: LoRA's accuracy by slice, as `slice_figures` returns it.
        explanations: row → token attributions of its text.
        doubtful: `doubtful` of `audit --json`, each with its `text` if that is known.
        advice: sentences (`text`), each with the measured `figure` behind it.
    """

    evaluated: AnyEvaluated | None = None
    where: str = ""
    met: Met | None = None
    texts: Sequence[str] | None = None
    pairs: Sequence[str] | None = None
    rows: Sequence[int] | npt.NDArray[np.int64] | None = None
    inputs: Inputs | None = None
    lengths_where: str = ""
    slices: Table | None = None
    explanations: Mapping[int, "Explanation"] = field(default_factory=dict)
    doubtful: Sequence[Table] | None = None
    advice: Sequence[Table] | None = None


def facts_of(run: Run, material: Material) -> Table:
    """Returns the content of a run's report."""
    m = material
    evaluated = None if m.evaluated is None or not len(m.evaluated.y_true) else m.evaluated
    return {
        "name": run.path.resolve().name,
        "task": {
            "kind": run.manifest.task,
            "labels": list(run.manifest.labels),
            "pairs": run.manifest.pairs,
            "data": data_name(run),
        },
        **_evaluated_facts(evaluated, run, m),
        "slices": m.slices,
        "advice": None if m.advice is None else list(m.advice),
        "training": training_facts(run.metrics()),
        "lengths": None if m.inputs is None else length_facts(m.inputs, m.lengths_where),
        "doubtful": None if m.doubtful is None else list(m.doubtful)[:DOUBTFUL_SHOWN],
        "checks": check_facts(run),
        "recipe": recipe_facts(run),
        "origin": origin_facts(run),
    }


def _evaluated_facts(evaluated: AnyEvaluated | None, run: Run, m: Material) -> Table:
    """Returns what the outputs on the rows say; None for each part without rows."""
    met, caution = ("", "") if m.met is None else (m.met.split, m.met.caution)
    parts: Table = dict.fromkeys(PARTS[run.manifest.task])
    match evaluated:
        case EvaluatedValues():
            parts |= value_facts(evaluated, m.where, caution)
            if m.texts is not None:
                parts["errors"] = value_error_facts(evaluated, m.texts, m.pairs, m.explanations, m.rows)
        case EvaluatedLabels():
            parts |= several_label_facts(evaluated, m.where, caution)
            if m.texts is not None:
                parts["errors"] = label_error_facts(evaluated, m.texts, m.pairs, m.explanations, m.rows)
        case Evaluated():
            parts |= {
                "verdict": verdict_facts(evaluated, m.where, m.met),
                "precision_recall": recall_facts(evaluated),
                "calibration": calibration_facts(evaluated, run.calibration.rows > 0, met),
                "risk_coverage": risk_facts(evaluated),
            }
            if m.texts is not None:
                parts["errors"] = error_facts(evaluated, m.texts, m.pairs, m.explanations, m.rows)
    return parts


def worst_rows(evaluated: AnyEvaluated) -> list[int]:
    """Returns the rows that the report shows as errors, the worst first."""
    match evaluated:
        case EvaluatedValues():
            return largest_errors(evaluated)
        case EvaluatedLabels():
            return worst_labelled(evaluated)
        case Evaluated():
            return worst_errors(evaluated)


def verdict_facts(evaluated: Evaluated, where: str, met: Met | None) -> Table:
    """Returns the metrics of each classifier, LoRA last, and the verdict, one sentence a line."""
    e = evaluated
    rivals = [*(key for key in NAMES if key in e.raw_logits), *(key for key in e.raw_logits if key not in NAMES)]
    names = {key: NAMES.get(key, key) for key in rivals if key != "lora"} | {"lora": "LoRA"}
    return {
        "sentence": verdict(e),
        "n": len(e.y_true),
        "rows_name": e.rows_name,
        "where": where,
        "caution": "" if met is None else met.caution,
        "has_rival": any(rival in e.raw_logits for rival in RIVALS),
        "classifiers": [{"name": name, **e.figures(key)} for key, name in names.items()],
    }
