"""Small charts as inline SVG. Each has a title and a description for screen readers.

Series differ in colour, dashes and markers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from bertlora.evaluation.report.plot import (
    BOTTOM,
    HEIGHT,
    LETTER,
    WIDTH,
    Axis,
    Plot,
    Series,
    percent,
    picture,
    plain,
    round_ticks,
    share_of,
    share_ticks,
    tag,
)

TALL = 276.0
LABEL = 40  # letters
SHARES = [0, 0.25, 0.5, 0.75, 1.0]


@dataclass(frozen=True)
class Picture:
    """A chart, its legend, and its numbers.

    Attributes:
        name: prefix of the ids of its parts in the page.
        title: caption.
        svg: the chart.
        key: legend, (sample of the line, name), if there is more than one line.
        columns, rows: the numbers, as strings; the first column is the row header.
    """

    name: str
    title: str
    svg: Markup
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    key: Sequence[tuple[Markup, str]] = field(default_factory=list)


def line_chart(
    name: str,
    title: str,
    description: str,
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    mark: tuple[float, str] | None = None,
    height: float = HEIGHT,
) -> Markup:
    """Returns lines over two axes, and a vertical line with a label at `mark`."""
    plot = Plot(x, y, height)
    if mark:
        plot.mark(*mark)
    for one in reversed(series):
        plot.draw(one)
    return plot.picture(name, title, description)


def histogram(
    name: str,
    title: str,
    description: str,
    bins: Sequence[tuple[float, float, int]],
    x: Axis,
    mark: tuple[float, str] | None,
) -> Markup:
    """Returns bars over bins (low, high, count); bars beyond the mark are pale."""
    plot = Plot(x, Axis("texts", round_ticks(0, max(count for *_, count in bins), 4), plain))
    for low, high, count in bins:
        left, right, top = plot.across(low), plot.across(high), plot.down(count)
        height = plot.height - BOTTOM - top
        style = "bar beyond" if mark and low >= mark[0] else "bar"
        width = max(right - left - 1.0, 0.8)
        plot.add(tag("rect", x=left + 0.5, y=top, width=width, height=height, class_=style))
    if mark:
        plot.mark(*mark)
    return plot.picture(name, title, description)


def reliability(
    name: str,
    title: str,
    description: str,
    series: Sequence[Series],
    bins: Sequence[Mapping[str, Any]],
    low: float,
    across: str = "confidence",
    up: str = "accuracy",
) -> Markup:
    """Returns accuracy over confidence, with the line on which both are equal, and what chance gives around it.

    Args:
        name: see `picture`.
        title: see `picture`.
        description: see `picture`.
        series: points (confidence, accuracy); the first stands out.
        bins: the bins of the first series, with the fields of `Bin`. The range of perfect probabilities is drawn as a
            band, the interval of the accuracy as a whisker, and the share of the rows as a bar at the bottom.
        low: start of the axes; no confidence is below 1/K.
        across: name of the horizontal axis.
        up: name of the vertical axis.
    """
    ticks = [tick for tick in round_ticks(low, 1.0) if tick >= low - 1e-9]
    plot = Plot(Axis(across, ticks, percent, (low, 1.0)), Axis(up, SHARES, percent), TALL)
    foot, rows = plot.height - BOTTOM, sum(one["count"] for one in bins)
    for one in bins:
        left, height = plot.across(one["low"]), 50.0 * one["count"] / rows
        width = plot.across(one["high"]) - left - 1
        plot.add(tag("rect", x=left + 0.5, y=foot - height, width=width, height=height, class_="foot"))
        top, bottom = (plot.down(end) for end in reversed(one["perfect_range95"]))
        plot.add(tag("rect", x=left + 0.5, y=top, width=width, height=max(bottom - top, 1.0), class_="band"))
        (x, y1), (_, y2) = (plot.place(one["confidence"], end) for end in one["accuracy_ci95"])
        plot.add(tag("line", x1=x, x2=x, y1=y1, y2=y2, class_="whisker"))
    (x1, y1), (x2, y2) = plot.place(low, low), plot.place(1, 1)
    plot.add(tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="ideal"))
    for one_series in reversed(series):
        plot.draw(one_series)
    return plot.picture(name, title, description)


def precision_recall(
    name: str, title: str, description: str, series: Sequence[Series], shares: Sequence[float]
) -> Markup:
    """Returns precision over recall, with a line for each class at the precision of chance: the share of the class.

    Args:
        name: see `picture`.
        title: see `picture`.
        description: see `picture`.
        series: points (recall, precision) of each class, by rising recall; the first stands out.
        shares: of these classes among all rows.
    """
    plot = Plot(Axis("recall", SHARES, percent), Axis("precision", SHARES, percent), TALL)
    for share in shares:
        (x1, y), (x2, _) = plot.place(0, share), plot.place(1, share)
        plot.add(tag("line", x1=x1, x2=x2, y1=y, y2=y, class_="ideal"))
    if len(shares) <= 2:  # the labels of more classes would cover each other
        for share in shares:
            # Where no curve is: above the line on the left; a high line has the curve of a rare class there.
            x, y = plot.place(share > 0.75, share)
            place = {"x": x - 6, "y": y + 14, "text_anchor": "end"} if share > 0.75 else {"x": x + 6, "y": y - 6}
            plot.add(tag("text", f"chance {percent(share)}", **place))
    for one in reversed(series):
        plot.draw(one)
    return plot.picture(name, title, description)


def intervals(
    name: str,
    title: str,
    description: str,
    rows: Sequence[tuple[str, float, float, float]],
    strong: int,
    ticks: Sequence[float] = (),
    form: Callable[[float], str] = percent,
    value: Callable[[float], str] = lambda share: f"{100 * share:.1f} %",
) -> Markup:
    """Returns a dot with an interval for each row (label, value, low, high); row `strong` stands out.

    Args:
        name: see `picture`.
        title: see `picture`.
        description: see `picture`.
        rows: the rows; without `ticks` in 0..1.
        strong: the row that stands out.
        ticks: of the axis.
        form: the format of a tick.
        value: the format of a value.
    """
    row = 44.0
    values = [number for _, *parts in rows for number in parts]
    ticks = ticks or share_ticks(min(values), max(values))
    bottom = row * len(rows) + 6
    inner = 10.0, WIDTH - 18.0

    def across(number: float) -> float:
        return inner[0] + share_of(number, (ticks[0], ticks[-1])) * (inner[1] - inner[0])

    shapes = [tag("line", x1=across(t), x2=across(t), y1=6.0, y2=bottom, class_="grid") for t in ticks]
    shapes += [tag("text", form(t), x=across(t), y=bottom + 17, text_anchor="middle") for t in ticks]
    for i, (label, middle, low, high) in enumerate(rows):
        y = row * i + 34.0
        style = 0 if i == strong else 1
        short = label if len(label) <= LABEL else f"{label[: LABEL - 1]}…"
        said = f"{short}, {value(middle)}"
        # The text starts at the interval, unless it would leave the picture on the right.
        start = across(low) if across(low) + LETTER * len(said) < inner[1] else inner[1] - LETTER * len(said)
        shapes.append(tag("text", said, x=max(start, 2.0), y=y - 12, class_="strong" if style == 0 else "label"))
        shapes.append(tag("line", x1=across(low), x2=across(high), y1=y, y2=y, class_=f"interval s{style}"))
        for end in (low, high):
            shapes.append(tag("line", x1=across(end), x2=across(end), y1=y - 4, y2=y + 4, class_=f"interval s{style}"))
        shapes.append(tag("circle", cx=across(middle), cy=y, r=5.2, class_=f"dot full s{style}"))
    return picture(name, title, description, shapes, bottom + 26)
