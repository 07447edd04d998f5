"""Precision and recall in the report: facts and picture. For two classes, and for each class of imbalanced rows."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, precision_recall_curve

from bertlora.confidence.probabilities import Array
from bertlora.data.labels import IMBALANCE_RATIO
from bertlora.evaluation.metrics import all_log_odds
from bertlora.evaluation.report.charts import Picture, precision_recall
from bertlora.evaluation.report.plot import STYLES, Series, in_steps, legend, percent
from bertlora.evaluation.report.tables import in_percent, opening
from bertlora.evaluation.verdict import Evaluated

Table = dict[str, Any]

CURVE_POINTS = 200
LEVELS = [level / 10 for level in range(1, 11)]
NAME = 30  # letters of a class in the legend


def recall_facts(evaluated: Evaluated) -> Table | None:
    """Returns LoRA's precision at each recall: precision and recall at each threshold of a class's log odds.

    With two classes it is the curve of the second class. If a class has less than a quarter of the largest one's rows,
    it is the curve of each class, the rarest first, at most six. Otherwise there is None.

    Returns:
        `classes`: each has `label`, `share` (its fraction of the rows, the precision of chance), `average_precision`,
        `curve` and `levels`. The curve has at most 201 points [recall, precision], by rising recall; `levels` has the
        precision at round recalls.
    """
    counts = np.bincount(evaluated.y_true, minlength=len(evaluated.labels))
    if counts.min() * IMBALANCE_RATIO < counts.max():
        classes = np.argsort(counts, kind="stable").tolist()
    else:
        classes = [1] if len(counts) == 2 else []
    shown = [k for k in classes if 0 < counts[k] < len(evaluated.y_true)][:STYLES]
    if not shown:
        return None
    odds = all_log_odds(evaluated.logits("lora"))
    return {"classes": [_curve(evaluated, k, odds[:, k]) for k in shown]}


def _curve(evaluated: Evaluated, k: int, score: Array) -> Table:
    positive = evaluated.y_true == k
    falling = precision_recall_curve(positive, score)
    # The last point, recall 0 and precision 1, is a convention: no threshold gives it.
    precision, recall = (part[-2::-1] for part in falling[:2])
    return {
        "label": evaluated.labels[k],
        "share": float(positive.mean()),
        "average_precision": float(average_precision_score(positive, score)),
        "curve": _at(recall, precision, np.linspace(0, 1, CURVE_POINTS + 1)),
        "levels": [[level, point[1]] for level in LEVELS for point in _at(recall, precision, np.array([level]))],
    }


def _at(
    recall: npt.NDArray[np.float64], precision: npt.NDArray[np.float64], levels: npt.NDArray[np.float64]
) -> list[list[float]]:
    """Returns the points at which the recall first reaches each level, each point once."""
    places = np.unique(np.searchsorted(recall, levels - 1e-9))
    return [[float(recall[i]), float(precision[i])] for i in places]


def recall_picture(part: Table) -> Picture:
    """Returns precision over recall, a line per class."""
    title = "Precision and recall"
    series = [
        Series(_name(one), in_steps([(recall, precision) for recall, precision in one["curve"]]), i)
        for i, one in enumerate(part["classes"])
    ]
    said = "; ".join(
        f"'{one['label']}': average precision {one['average_precision']:.3f}, by chance {one['share']:.3f}"
        for one in part["classes"]
    )
    svg = precision_recall("recall", title, said + ".", series, [one["share"] for one in part["classes"]])
    columns = ["recall", *(f"precision, {opening(one['label'], NAME)}" for one in part["classes"])]
    levels = zip(*(one["levels"] for one in part["classes"]), strict=True)
    rows = [[percent(line[0][0]), *(in_percent(precision) for _, precision in line)] for line in levels]
    rows.append(["average precision", *(f"{one['average_precision']:.3f}" for one in part["classes"])])
    rows.append(["share of the class", *(in_percent(one["share"]) for one in part["classes"])])
    return Picture("recall", title, svg, columns, rows, legend(series))


def _name(one: Table) -> str:
    label = opening(one["label"], NAME)
    return f"{label}: average precision {one['average_precision']:.3f}, chance {in_percent(one['share'])}"
