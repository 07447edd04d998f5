"""From facts to charts, each with the table of its numbers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bertlora.confidence.agreement import FIGURE_NAMES
from bertlora.confidence.label_agreement import FIGURE_NAMES as LABEL_FIGURE_NAMES
from bertlora.evaluation.report.calibration import reliability_picture, risk_picture
from bertlora.evaluation.report.charts import Picture, histogram, intervals, line_chart
from bertlora.evaluation.report.plot import Axis, Series, legend, percent, plain, round_ticks, share_ticks
from bertlora.evaluation.report.recall import recall_picture
from bertlora.evaluation.report.tables import in_percent, interval

Table = dict[str, Any]
# Metrics in 0..1, by task the leading one.
SHARES = {"accuracy": "accuracy", "average_precision": LABEL_FIGURE_NAMES["average_precision"]}

ACCURACY_COLUMNS = ("accuracy", "95 % CI", "macro F1", "log loss", "ECE", "ECE by chance")


def pictures_of(facts: Table) -> dict[str, Picture | None]:
    """Returns the charts of a classification by name, None if there are no facts for a chart."""
    makers = {
        "accuracy": (accuracy_picture, facts["verdict"]),
        "reliability": (reliability_picture, facts["calibration"]),
        "risk": (risk_picture, facts["risk_coverage"]),
        "recall": (recall_picture, facts["precision_recall"]),
    }
    return shared_pictures(facts) | _made(makers)


def shared_pictures(facts: Table) -> dict[str, Picture | None]:
    """Returns the charts that every task has."""
    return _made(
        {
            "losses": (losses_picture, facts["training"]),
            "progress": (progress_picture, facts["training"]),
            "lengths": (lengths_picture, facts["lengths"]),
        }
    )


def _made(makers: Mapping[str, tuple[Callable[[Table], Picture | None], Table | None]]) -> dict[str, Picture | None]:
    return {name: None if part is None else make(part) for name, (make, part) in makers.items()}


def accuracy_picture(part: Table) -> Picture:
    """Returns accuracy with its interval, one line per classifier; the last of the most accurate ones stands out."""
    classifiers = part["classifiers"]
    best = max(range(len(classifiers)), key=lambda i: (classifiers[i]["accuracy"], i))
    return _accuracies(part, best, ["", *ACCURACY_COLUMNS], [[c["name"], *_accuracy_cells(c)] for c in classifiers])


def ranking_picture(part: Table) -> Picture:
    """Returns accuracy with its interval, one line per run, best first; runs of equal accuracy share a rank."""
    values = [c["accuracy"] for c in part["classifiers"]]
    rows = [[f"{1 + values.index(c['accuracy'])}. {c['name']}", *_accuracy_cells(c)] for c in part["classifiers"]]
    return _accuracies(part, 0, ["run", *ACCURACY_COLUMNS], rows)


def _accuracies(part: Table, best: int, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> Picture:
    rows = [(c["name"], c["accuracy"], *c["accuracy_ci95"]) for c in part["classifiers"]]
    title = f"Accuracy with 95 % CI, {part['n']:,} rows"
    said = "; ".join(
        f"{name} {in_percent(value)}, from {in_percent(low)} to {in_percent(high)}" for name, value, low, high in rows
    )
    return Picture("accuracy", title, intervals("accuracy", title, said + ".", rows, best), columns, cells)


def _accuracy_cells(c: Table) -> list[str]:
    figures = (f"{c[key]:.3f}" for key in ("macro_f1", "loss", "ece", "ece_floor"))
    return [in_percent(c["accuracy"]), interval(c["accuracy_ci95"]), *figures]


def losses_picture(part: Table) -> Picture:
    """Returns training and validation loss at each evaluation."""
    lines = part["epochs"]
    series = [Series("validation loss", _points_of(lines, "validation_loss"), 0)] if part["validated"] else []
    series.append(Series("training loss", _points_of(lines, "train_loss"), len(series)))
    values = [y for one in series for _, y in one.points]
    unit = "nats" if part["metric"] in SHARES else "standardised targets"
    y = Axis(f"loss ({unit})", round_ticks(0, max(values)), plain)
    columns = ["epoch", *(one.name for one in reversed(series))]
    keys = ["train_loss", "validation_loss"][: len(series)]
    rows = [[_epoch(line, part), *(_number(line[key]) for key in keys)] for line in lines]
    said = "; ".join(f"{one.name} from {one.points[0][1]:.3f} to {one.points[-1][1]:.3f}" for one in series)
    return curves_picture("losses", "Loss at each evaluation", said, series, y, columns, rows, part["best_epoch"])


def progress_picture(part: Table) -> Picture | None:
    """Returns validation accuracy, average precision or RMSE at each evaluation, None without validation rows."""
    if not part["validated"]:
        return None
    metric = part["metric"]
    points = _points_of(part["epochs"], metric)
    values = [y for _, y in points]
    if metric in SHARES:
        name, best, shown = SHARES[metric], max(values), in_percent
        y = Axis(name, share_ticks(min(values), max(values)), percent)
        cells = [f"{100 * value:.2f} %" for value in values]
    else:
        name, best, shown = FIGURE_NAMES[metric], min(values), "{:.4g}".format
        y = Axis(name, round_ticks(min(values), max(values)), plain)
        cells = [shown(value) for value in values]
    rows = [[_epoch(line, part), cell] for line, cell in zip(part["epochs"], cells, strict=True)]
    said = f"validation {name} from {shown(values[0])} to {shown(values[-1])}, at best {shown(best)}"
    title = f"Validation {name} at each evaluation"
    return curves_picture("progress", title, said, [Series(name, points)], y, ["epoch", name], rows, part["best_epoch"])


def lengths_picture(part: Table) -> Picture:
    """Returns the histogram of lengths, with a mark at the longest input."""
    bins = [(low, high, count) for low, high, count in part["bins"]]
    title = f"Length of the texts in tokens, {part['where']}"
    shown = part["room"] + 1 < bins[-1][1]
    mark = (float(part["room"] + 1), f"over {part['room']:,}") if shown else None
    said = f"Median {part['median']:,.0f} tokens, longest {part['longest']:,}; "
    said += f"{in_percent(part['over_share'])} are over {part['room']:,}."
    x = Axis("tokens", round_ticks(0, bins[-1][1]), plain)
    svg = histogram("lengths", title, said, bins, x, mark)
    rows = [[f"{low:,} to {high - 1:,}", f"{count:,}"] for low, high, count in bins]
    if part["longer"]:
        rows.append([f"{bins[-1][1]:,} or more", f"{part['longer']:,}"])
    return Picture("lengths", title, svg, ["tokens", "texts"], rows)


def curves_picture(
    name: str,
    title: str,
    said: str,
    series: Sequence[Series],
    y: Axis,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    best: float | None = None,
) -> Picture:
    """Returns lines over epochs, with a mark at the best epoch."""
    said = said[0].upper() + said[1:] + ("." if best is None else f"; epoch {best:g} was kept.")
    mark = None if best is None else (best, f"kept: epoch {best:g}")
    svg = line_chart(name, title, said, series, epoch_axis([x for one in series for x, _ in one.points]), y, mark)
    return Picture(name, title, svg, columns, rows, legend(series) if len(series) > 1 else [])


def epoch_axis(epochs: Sequence[float]) -> Axis:
    """Returns the axis of epochs, with ticks at whole numbers."""
    first, last = min(epochs), max(epochs)
    step = max(1, round((last - first) / 6))
    ticks = [float(tick) for tick in range(int(first), int(last) + 1, step) if tick >= first] or [first]
    return Axis("epoch", ticks, plain, (first, last) if last > first else (first - 0.5, first + 0.5))


def _epoch(line: Table, part: Table) -> str:
    """Returns the row header of an evaluation: its epoch."""
    return f"{line['epoch']:g}" + (", kept" if line["epoch"] == part["best_epoch"] else "")


def _points_of(lines: Sequence[Table], key: str) -> list[tuple[float, float]]:
    return [(line["epoch"], line[key]) for line in lines if line.get(key) is not None]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
