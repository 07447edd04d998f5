"""The parts of charts: SVG elements, axes, lines and markers.

Sizes are in units of the view box, which is 380 wide: about the pixels of a phone. The style sheet sets colours and
dashes, so that charts follow the theme of the page, and print well.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH = 380.0
HEIGHT = 244.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 18.0, 38.0, 42.0
LETTER = 6.3  # a little more than the mean width of a letter at the size of the axes
STYLES = 6
MOST_MARKERS = 40

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """An axis: its name, its ticks, the format of a tick, and its ends if these are not the outer ticks."""

    name: str
    ticks: Sequence[float]
    form: Callable[[float], str]
    ends: tuple[float, float] | None = None

    @property
    def span(self) -> tuple[float, float]:
        """The ends."""
        return self.ends or (self.ticks[0], self.ticks[-1])


@dataclass(frozen=True)
class Series:
    """A line: its name, its points from left to right, and the number of its style; 0 is the most prominent."""

    name: str
    points: Points
    style: int = 0


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """Returns an element. Texts and values are escaped; `class_` becomes class, and `text_anchor` text-anchor."""
    said = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _written(value))
        for key, value in attributes.items()
    )
    return Markup("<{}{}>{}</{}>").format(name, said, Markup("").join(children), name)


def _written(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1000 else value


def round_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Returns at most `most` + 1 round numbers around low..high, spaced by 1, 2 or 5 times a power of ten."""
    width = high - low
    if width < 1e-9 * max(1.0, abs(high)):  # a single value
        width = abs(high) if abs(high) > 1e-6 else 1.0
    raw = width / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def share_ticks(low: float, high: float) -> list[float]:
    """Returns round ticks around low..high within 0..1; the first and the last are at least two points apart."""
    if high - low < 0.02:
        low, high = max(low - 0.01, 0.0), min(high + 0.01, 1.0)
    return round_ticks(low, high)


def percent(value: float) -> str:
    """Returns a fraction as a percentage with at most one decimal."""
    return f"{round(100 * value, 1):g} %"


def plain(value: float) -> str:
    """Returns a number in its shortest form."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


class Plot:
    """A plot area with two axes: it converts values to positions, and collects shapes."""

    def __init__(self, x: Axis, y: Axis, height: float = HEIGHT) -> None:
        self.x, self.y, self.height = x, y, height
        self._shapes: list[Markup] = [*self._rows(), *self._columns()]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Returns the position of a point."""
        return self.across(x), self.down(y)

    def across(self, x: float) -> float:
        """Returns the horizontal position of a value, clipped to the area."""
        return LEFT + share_of(x, self.x.span) * (WIDTH - LEFT - RIGHT)

    def down(self, y: float) -> float:
        """Returns the vertical position of a value, clipped to the area."""
        return self.height - BOTTOM - share_of(y, self.y.span) * (self.height - TOP - BOTTOM)

    def add(self, *shapes: Markup) -> None:
        """Draws shapes on top of the others."""
        self._shapes += shapes

    def mark(self, x: float, text: str) -> None:
        """Draws a vertical line with a label above it, on the side that has room."""
        place = self.across(x)
        right = place + 6 + LETTER * len(text) < WIDTH - RIGHT
        self.add(
            tag("line", x1=place, x2=place, y1=TOP - 15, y2=self.height - BOTTOM, class_="mark"),
            tag(
                "text",
                text,
                x=place + (6 if right else -6),
                y=TOP - 8,
                text_anchor="start" if right else "end",
                class_="marked",
            ),
        )

    def draw(self, series: Series) -> None:
        """Draws a line, with markers unless there are too many points."""
        places = [self.place(x, y) for x, y in series.points]
        if len(places) > 1:
            joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            self.add(tag("polyline", points=joined, class_=f"line s{series.style % STYLES}"))
        if len(places) <= MOST_MARKERS:
            self.add(*(marker(x, y, series.style) for x, y in places))

    def picture(self, name: str, title: str, description: str) -> Markup:
        """Returns the chart."""
        return picture(name, title, description, self._shapes, self.height)

    def _rows(self) -> list[Markup]:
        shapes = [tag("text", self.y.name, x=0.0, y=11.0, class_="axis-name")]
        for tick in self.y.ticks:
            y = self.down(tick)
            shapes.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
            shapes.append(tag("text", self.y.form(tick), x=LEFT - 8, y=y + 4, text_anchor="end"))
        return shapes

    def _columns(self) -> list[Markup]:
        bottom = self.height - BOTTOM
        shapes = [tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="axis")]
        for tick in self.x.ticks:
            x = self.across(tick)
            shapes.append(tag("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis"))
            shapes.append(tag("text", self.x.form(tick), x=x, y=bottom + 18, text_anchor="middle"))
        middle = (LEFT + WIDTH - RIGHT) / 2
        shapes.append(tag("text", self.x.name, x=middle, y=bottom + 37, text_anchor="middle", class_="axis-name"))
        return shapes


def picture(name: str, title: str, description: str, shapes: Sequence[Markup], height: float) -> Markup:
    """Returns an SVG that screen readers treat as one image."""
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", description, id=f"{name}-desc"),
        *shapes,
        viewBox=f"0 0 {WIDTH:g} {height:g}",
        role="img",
        aria_labelledby=f"{name}-title",
        aria_describedby=f"{name}-desc",
    )


def in_steps(points: Points) -> Points:
    """Returns the corners of steps from x = 0: each y holds from the x before it up to its own x."""
    before = [0.0, *(x for x, _ in points)]
    return [corner for left, (x, y) in zip(before, points, strict=False) for corner in ((left, y), (x, y))]


def marker(x: float, y: float, style: int) -> Markup:
    """Returns the marker of a style: disc, open square, triangle, and then circle, square, open triangle."""
    style %= STYLES
    full = "full" if style % 2 == 0 else "open"
    named = f"dot {full} s{style}"
    if style % 3 == 0:
        return tag("circle", cx=x, cy=y, r=3.6, class_=named)
    if style % 3 == 1:
        return tag("rect", x=x - 3.3, y=y - 3.3, width=6.6, height=6.6, class_=named)
    return tag(
        "polygon", points=f"{x:.1f},{y - 4.4:.1f} {x + 4.2:.1f},{y + 3.2:.1f} {x - 4.2:.1f},{y + 3.2:.1f}", class_=named
    )


def sample(style: int) -> Markup:
    """Returns a short line of a style for the legend; screen readers skip it."""
    line = tag("line", x1=1.0, x2=35.0, y1=6.0, y2=6.0, class_=f"line s{style % STYLES}")
    return tag("svg", line, marker(18.0, 6.0, style), viewBox="0 0 36 12", class_="sample", aria_hidden="true")


def legend(series: Sequence[Series]) -> list[tuple[Markup, str]]:
    """Returns the legend of lines."""
    return [(sample(one.style), one.name) for one in series]


def patch(style: str) -> Markup:
    """Returns a small area of a style for the legend; screen readers skip it."""
    area = tag("rect", x=1.0, y=1.0, width=34.0, height=10.0, class_=style)
    return tag("svg", area, viewBox="0 0 36 12", class_="sample", aria_hidden="true")


def share_of(value: float, span: tuple[float, float]) -> float:
    low, high = span
    return min(max((value - low) / (high - low), 0.0), 1.0)
