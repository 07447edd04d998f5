"""The report of a regression: its facts, sentences, tables and charts. What both tasks share is in `facts` and `page`.

Letters: N rows.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bertlora.confidence.agreement import FIGURE_NAMES
from bertlora.confidence.spread import COVERAGE
from bertlora.evaluation.comparison import RIVALS
from bertlora.evaluation.report.charts import TALL, Picture, intervals
from bertlora.evaluation.report.mistakes import shown_texts
from bertlora.evaluation.report.plot import Axis, Plot, Series, percent, plain, round_ticks, tag
from bertlora.evaluation.report.tables import in_percent, interval
from bertlora.evaluation.value_slices import VALUE_SLICE_COLUMNS, error_slice_rows
from bertlora.evaluation.values import EvaluatedValues
from bertlora.evaluation.verdict import AnyEvaluated, verdict

if TYPE_CHECKING:
    from bertlora.model.explain import Explanation

Table = dict[str, Any]

# In the order of the report.
NAMES = {"base": "mean of the training targets", "probe": "linear probe", "tfidf": "TF-IDF", "lora": "LoRA"}
VALUE_SECTIONS = {
    "verdict": "Verdict",
    "advice": "What to do next",
    "training": "Training",
    "predictions": "Predicted against true",
    "coverage": "Calibration of the intervals",
    "slices": "Slices",
    "lengths": "Length and truncation",
    "errors": "Largest errors",
    "checks": "Data checks",
    "recipe": "Recipe",
    "origin": "Origin",
}
VALUE_NOTES = {
    "verdict": "LoRA and simpler models on the same rows: the mean of the training targets for every text, ridge "
    "regression on the frozen base model (linear probe), ridge regression on TF-IDF. RMSE: root of the mean squared "
    "error, in the unit of the targets. CI: bootstrap confidence interval.",
    "advice": "Each with the measured figure behind it.",
    "training": "The losses are those of standardised targets: 1 is what the mean of the training targets gives.",
    "predictions": "On the dotted line the prediction is right. The band holds the intervals for 90 %.",
    "coverage": "Split conformal intervals, chosen on the validation rows. On the dotted line they hold what they "
    "promise. Whiskers: 95 % CIs.",
    "slices": "LoRA's mean absolute error (MAE) on parts of the rows, lowest p first. Slices are chosen by number of "
    "rows, not by their errors. p: rank-sum test against the other rows, corrected for the number of slices by "
    "Holm's method.",
    "lengths": "In tokens, without special tokens.",
    "errors": "Hard texts, wrong targets, or patterns that the model has not learned.",
}
MOST_POINTS = 1000
GROUPS = 10
SHOWN = 8


def value_facts(evaluated: EvaluatedValues, where: str, caution: str) -> Table:
    """Returns verdict, predictions and coverage of a regression."""
    return {
        "verdict": model_facts(evaluated, NAMES, where, caution),
        "predictions": _prediction_facts(evaluated),
        "coverage": evaluated.coverage,
    }


def model_facts(e: AnyEvaluated, names: Mapping[str, str], where: str, caution: str) -> Table:
    """Returns the figures of each model, and the verdict, one sentence a line.

    Args:
        e: the outputs of the models.
        names: by model, how the report calls it, in the order of the report, LoRA last.
        where: where the rows are from.
        caution: a sentence if the run has met the rows.
    """
    return {
        "sentence": verdict(e),
        "n": len(e.y_true),
        "rows_name": e.rows_name,
        "where": where,
        "caution": caution,
        "has_rival": any(rival in e.names for rival in RIVALS),
        "classifiers": [{"name": names[name], **e.figures(name)} for name in names if name in e.names],
    }


def _prediction_facts(e: EvaluatedValues) -> Table:
    """Returns at most 1,000 points (true, predicted), the half width of the band, and ten groups by prediction."""
    predicted, rows = e.values["lora"], np.arange(len(e.y_true))
    if len(rows) > MOST_POINTS:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST_POINTS, replace=False))
    groups = np.array_split(np.argsort(predicted, kind="stable"), min(GROUPS, len(predicted)))
    return {
        "name": e.labels[0],
        "points": [[float(e.y_true[i]), float(predicted[i])] for i in rows],
        "half_width": e.spread.half_width(COVERAGE),
        "groups": [
            {
                "low": float(predicted[group[0]]),
                "high": float(predicted[group[-1]]),
                "n": len(group),
                "predicted": float(predicted[group].mean()),
                "true": float(e.y_true[group].mean()),
            }
            for group in groups
        ],
    }


def largest_errors(evaluated: EvaluatedValues, most: int = SHOWN) -> list[int]:
    """Returns the rows with the largest absolute errors of LoRA, the largest first."""
    errors = np.abs(evaluated.values["lora"] - evaluated.y_true)
    return [int(row) for row in np.argsort(-errors, kind="stable")[:most]]


def value_error_facts(
    evaluated: EvaluatedValues,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    explanations: "Mapping[int, Explanation]",
    rows: Sequence[int] | npt.NDArray[np.int64] | None = None,
) -> Table:
    """Returns the largest errors; see `error_facts`."""
    shown = []
    for row in largest_errors(evaluated):
        own = [texts[row]] if pairs is None else [texts[row], pairs[row]]
        shown.append(
            {
                "row": row if rows is None else int(rows[row]),
                "given": f"{evaluated.y_true[row]:.4g}",
                "predicted": f"{evaluated.values['lora'][row]:.4g}",
                "texts": shown_texts(own, explanations.get(row)),
            }
        )
    return {"n": len(evaluated.y_true), "explained": bool(explanations), "shown": shown}


def value_view(facts: Table) -> Table:
    """Returns the verdict and the slices as the template needs them."""
    part, slices = facts["verdict"], facts["slices"]
    view: Table = {"verdict": None, "slices": None, "predictions": facts["predictions"], "coverage": facts["coverage"]}
    if part is not None:
        first, *others = part["sentence"].split("\n")
        columns, rows = _all_figures(part["classifiers"])
        view["verdict"] = part | {"large": first, "others": others, "more": {"columns": columns, "rows": rows}}
    if slices is not None:
        rows = error_slice_rows(slices["found"])
        view["slices"] = {
            "sentence": slices["verdict"],
            "columns": VALUE_SLICE_COLUMNS,
            "first": rows[:GROUPS],
            "all": rows,
        }
    return view


def value_headline(task: Table, found: Table | None) -> str:
    """Returns the task, and how good LoRA is, in a line."""
    text = f"Predict {task['labels'][0]} of {'text pairs' if task['pairs'] else 'texts'}"
    if not found:
        return text
    lora = found["classifiers"][-1]
    pearson = "" if lora["pearson"] is None else f", Pearson {lora['pearson']:.3f}"
    return f"{text}: RMSE {lora['rmse']:.3g}{pearson} on {found['n']:,} {found['rows_name']}"


def value_pictures(facts: Table) -> dict[str, Picture | None]:
    """Returns the charts of a regression by name, None if there are no facts for one."""
    found = facts["verdict"]
    return {
        "accuracy": found and rmse_picture(found),
        "predictions": facts["predictions"] and scatter_picture(facts["predictions"]),
        "coverage": coverage_picture(facts["coverage"]) if facts["coverage"] else None,
    }


def rmse_picture(part: Table) -> Picture:
    """Returns the RMSE with its interval, one line per model; the last of the best ones stands out."""
    models = part["classifiers"]
    best = min(range(len(models)), key=lambda i: (models[i]["rmse"], -i))
    rows = [(m["name"], m["rmse"], *m["rmse_ci95"]) for m in models]
    title = f"RMSE with 95 % CI, {part['n']:,} rows: less is better"
    said = "; ".join(f"{name} {value:.4g}, from {low:.4g} to {high:.4g}" for name, value, low, high in rows)
    ticks = round_ticks(min(low for _, _, low, _ in rows), max(high for *_, high in rows))
    svg = intervals("accuracy", title, said + ".", rows, best, ticks=ticks, form=plain, value=lambda v: f"{v:.4g}")
    columns, cells = _all_figures(models)
    return Picture("accuracy", title, svg, columns, cells)


def _all_figures(models: Sequence[Table]) -> tuple[list[str], list[list[str]]]:
    """Returns columns and cells of all figures of each model, with their intervals."""
    columns = ["", *(column for name in FIGURE_NAMES.values() for column in (name, "95 % CI"))]
    rows = []
    for model in models:
        cells = [model["name"]]
        for key in FIGURE_NAMES:
            value, ends = model[key], model[f"{key}_ci95"]
            cells += ["", ""] if value is None else [f"{value:.4g}", " to ".join(f"{end:.3g}" for end in ends)]
        rows.append(cells)
    return columns, rows


def scatter_picture(part: Table) -> Picture:
    """Returns predicted over true numbers, with the line on which both are equal, and the band of the intervals."""
    points, half = part["points"], part["half_width"]
    low, high = (end(value for point in points for value in point) for end in (min, max))
    ticks = round_ticks(low, high)
    plot = Plot(Axis(f"true {part['name']}", ticks, plain), Axis("predicted", ticks, plain), TALL)
    ends = ticks[0], ticks[-1]
    if half is not None:
        # The interval of a prediction holds the true numbers around it: predicted = true plus or minus half.
        corners = [(ends[0], ends[0] - half), (ends[1], ends[1] - half), (ends[1], ends[1] + half)]
        corners.append((ends[0], ends[0] + half))
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (plot.place(*corner) for corner in corners))
        plot.add(tag("polygon", points=places, class_="band"))
    (x1, y1), (x2, y2) = plot.place(ends[0], ends[0]), plot.place(ends[1], ends[1])
    plot.add(tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="ideal"))
    for true, predicted in points:
        x, y = plot.place(true, predicted)
        plot.add(tag("circle", cx=x, cy=y, r=2.0, class_="dot full s0"))
    title = f"Predicted against true {part['name']}, {len(points):,} rows"
    said = "; ".join(f"predicted {g['predicted']:.3g}, true {g['true']:.3g} on average" for g in part["groups"])
    columns = ["predicted", "mean predicted", "mean true", "rows"]
    rows = [
        [f"{g['low']:.3g} to {g['high']:.3g}", f"{g['predicted']:.4g}", f"{g['true']:.4g}", f"{g['n']:,}"]
        for g in part["groups"]
    ]
    return Picture("predictions", title, plot.picture("predictions", title, said + "."), columns, rows)


def coverage_picture(lines: Sequence[Table]) -> Picture:
    """Returns the share of intervals that contain the truth, over the share that they promise."""
    title = "Coverage of the intervals"
    shares = [0.4, 0.6, 0.8, 1.0]
    low = min(0.4, *(line["covered_ci95"][0] for line in lines))
    y = Axis("contain the truth", round_ticks(low, 1.0), percent)
    plot = Plot(Axis("promised", shares, percent), y, TALL)
    (x1, y1), (x2, y2) = plot.place(0.4, 0.4), plot.place(1, 1)
    plot.add(tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="ideal"))
    for line in lines:
        (x, top), (_, bottom) = (plot.place(line["level"], end) for end in line["covered_ci95"])
        plot.add(tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="whisker"))
    plot.draw(Series("LoRA", [(line["level"], line["covered"]) for line in lines]))
    said = "; ".join(f"{percent(line['level'])} promised, {in_percent(line['covered'])} measured" for line in lines)
    columns = ["promised", "contain the truth", "95 % CI", "plus or minus"]
    rows = [
        [
            percent(line["level"]),
            in_percent(line["covered"]),
            interval(line["covered_ci95"]),
            f"{line['half_width']:.4g}",
        ]
        for line in lines
    ]
    return Picture("coverage", title, plot.picture("coverage", title, said + "."), columns, rows)
