"""Line charts as inline SVG: small, sharp at any size, coloured by the page's own style sheet."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

# Of lines, on a light and on a dark page; style sheets name them .c0 to .c7.
LIGHT = ("#33383f", "#0072b2", "#d55e00", "#009e73", "#a6478a", "#b08900", "#56a5d8", "#8a5a2b")
DARK = ("#d5d9de", "#4da6e0", "#f08a4b", "#3cc79a", "#d78cc0", "#dcb93f", "#a5d3f2", "#c79a6b")
COLORS = len(LIGHT)

_WIDTH, _HEIGHT = 340, 190
_WIDE = 480, 250  # width and height of a chart of categories
_BESIDE = 6  # pixels between the dots of two series
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 14, 10, 24
_DRAWN = 150  # points that a line is drawn with at most
_HOVERED = 24  # points of a line that tell their value

_LEGEND = 18  # pixels that a line of a legend takes

# What pages take from their style sheet: light, and dark where the reader prefers it.
_STYLE = (
    "svg{font-family:system-ui,sans-serif;background:#fbfbfa}"
    "text{font-size:10.5px;fill:#60646c;text-anchor:end}text.x{text-anchor:middle}"
    "text.name{text-anchor:start}"
    ".grid{stroke:#e3e3e0}.line{fill:none;stroke:var(--c);stroke-width:1.6}"
    "circle{fill:var(--c);opacity:0}circle.dot,circle:hover{opacity:1}"
    + "".join(f".c{number}{{--c:{color}}}" for number, color in enumerate(LIGHT))
    + "@media(prefers-color-scheme:dark){svg{background:#131518}text{fill:#a0a5ad}"
    ".grid{stroke:#30343a}"
    + "".join(f".c{number}{{--c:{color}}}" for number, color in enumerate(DARK))
    + "}"
)


@dataclass(frozen=True)
class Line:
    """One curve: its name, its points by rising x, and the look that the legend explains."""

    name: str
    points: Sequence[tuple[float, float]]
    color: int
    dashed: bool = False


@dataclass(frozen=True)
class Series:
    """The values of each category, e.g. of every seed; an empty list where there is none."""

    name: str
    values: Sequence[Sequence[float]]
    color: int


def line_chart(title: str, lines: Sequence[Line]) -> Markup:
    """A chart of curves over a y axis that begins at zero, or below for negative values.

    Args:
        title: What screen readers say of it.
        lines: The curves. A value that is not finite leaves a gap.

    Returns:
        An SVG in which a point says its name, x and y when hovered over.
    """
    shown = [point for line in lines for point in line.points if math.isfinite(point[1])]
    x_end = max((x for x, _ in shown), default=0) or 1
    values = [0.0, *(y for _, y in shown)]
    axes = _Axes(_WIDTH, _HEIGHT, nice_ticks(min(values), max(values), 4))
    parts = [
        _label(axes.point(x / x_end, 0)[0], _HEIGHT, short(x))
        for x in nice_ticks(0, x_end, 4)
        if x <= x_end * 1.001
    ]
    for line in lines:
        points = [
            axes.point(x / x_end, y) if math.isfinite(y) else None for x, y in thin(line.points)
        ]
        parts.append(_curve(line.name, f"c{line.color % COLORS}", points, line.dashed))
    for line in lines:
        for x, y in thin(line.points, _HOVERED):
            if math.isfinite(y):
                text = f"{line.name}\nstep {x:.0f}: {y:.3g}"
                parts.append(_dot(text, f"c{line.color % COLORS}", axes.point(x / x_end, y), 5))
    return axes.drawn(title, parts)


def category_chart(title: str, categories: Sequence[str], series: Sequence[Series]) -> Markup:
    """A chart with a dot for every value, and for each of `series` a line through the means.

    The y axis covers the values only: it compares them, and does not begin at zero.

    Args:
        title: What screen readers say of it.
        categories: Their names along the x axis.
        series: Values by category.

    Returns:
        An SVG in which a dot says its name, category and value; without any value it says so.
    """
    values = [value for one in series for values in one.values for value in values]
    ticks = nice_ticks(min(values, default=0), max(values, default=1), 5)
    axes = _Axes(*_WIDE, ticks if values else [])

    def point(index: int, number: int, value: float) -> tuple[float, float]:
        # Side by side, so that equal values of several series are all seen; around the category's
        # middle, whichever of the series have values there.
        there = [other for other, one in enumerate(series) if one.values[index]]
        beside = (there.index(number) - (len(there) - 1) / 2) * _BESIDE
        return axes.point((index + 0.5) / len(categories), value, beside)

    parts = [
        _label(axes.across((index + 0.5) / len(categories)), _WIDE[1], category)
        for index, category in enumerate(categories)
    ]
    for number, one in enumerate(series):
        look = f"c{one.color % COLORS}"
        means = [
            point(index, number, sum(there) / len(there))
            for index, there in enumerate(one.values)
            if there
        ]
        parts.append(_curve(one.name, look, means))
        for index, there in enumerate(one.values):
            for value in there:
                text = f"{one.name}\n{categories[index]}: {value:.1f}"
                parts.append(_dot(text, f"dot {look}", point(index, number, value), 3.2))
    if not values:
        parts.append(_label(axes.across(0.5), _WIDE[1] // 2, "not measured"))
    return axes.drawn(title, parts)


@dataclass(frozen=True)
class _Axes:
    """A plot's size in pixels, and the ticks that its y axis covers; without any it has none."""

    width: int
    height: int
    ticks: Sequence[float]

    def across(self, share: float, beside: float = 0.0) -> float:
        """The pixel at a share of the x axis, moved by `beside`."""
        return round(_LEFT + share * (self.width - _LEFT - _RIGHT) + beside, 1)

    def point(self, share: float, value: float, beside: float = 0.0) -> tuple[float, float]:
        """Where a value stands at a share of the x axis."""
        down = (self.ticks[-1] - value) / (self.ticks[-1] - self.ticks[0])
        down = round(_TOP + down * (self.height - _TOP - _BOTTOM), 1)
        return self.across(share, beside), down

    def drawn(self, title: str, parts: Sequence[Markup]) -> Markup:
        """The SVG with a line for each tick, and `parts` over them."""
        grid = [
            Markup('<path class="grid" d="M{} {}H{}"/><text x="{}" y="{}">{}</text>').format(
                _LEFT, down, self.width - _RIGHT, _LEFT - 6, round(down + 3.5, 1), short(tick)
            )
            for tick in self.ticks
            for down in [self.point(0, tick)[1]]
        ]
        return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
            self.width, self.height, title, Markup("").join([*grid, *parts])
        )


def _label(across: float, height: int, text: str) -> Markup:
    """A text below the x axis of a plot of that height."""
    return Markup('<text class="x" x="{}" y="{}">{}</text>').format(across, height - 6, text)


def _curve(
    name: str, look: str, points: Sequence[tuple[float, float] | None], dashed: bool = False
) -> Markup:
    """A line through the points, broken where one is None."""
    commands, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
        else:
            commands.append(f"{pen}{point[0]} {point[1]}")
            pen = "L"
    return Markup('<path class="line {}" d="{}"><title>{}</title></path>').format(
        look + (" dashed" if dashed else ""), "".join(commands), name
    )


def _dot(text: str, look: str, point: tuple[float, float], radius: float) -> Markup:
    """A dot that says `text` when hovered over."""
    return Markup('<circle class="{}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
        look, *point, radius, text
    )


def standalone(chart: Markup, legend: Mapping[str, int]) -> str:
    """The chart as a file of its own, with the page's style, in the reader's theme.

    Args:
        chart: What one of the functions above made.
        legend: Colours by the names of lines or series; may be empty.
    """
    width, height = re.findall(r'viewBox="0 0 (\d+) (\d+)"', chart)[0]
    entries, above = "", _LEGEND * len(legend)
    for row, (name, color) in enumerate(legend.items()):
        down = _LEGEND * (row + 0.5) - above
        entries += Markup(
            '<path class="line c{}" d="M{} {}h18"/><text class="name" x="{}" y="{}">{}</text>'
        ).format(color % COLORS, _LEFT, down, _LEFT + 26, down + 3.5, name)
    size = f'viewBox="0 {-above} {width} {int(height) + above}"'
    head, _, rest = str(chart).partition(">")
    head = head.replace(f'viewBox="0 0 {width} {height}"', size)
    head = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return f"{head}><style>{_STYLE}</style>{entries}{rest}\n"


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` steps of 1, 2 or 5 times a power of ten that cover low to high."""
    if not high > low:
        high = low + 1
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def thin(
    points: Sequence[tuple[float, float]], count: int = _DRAWN
) -> Sequence[tuple[float, float]]:
    """At most `count` points: the means of runs of neighbours. Fewer are left as they are."""
    if len(points) <= count:
        return points
    edges = [round(number * len(points) / count) for number in range(count + 1)]
    means = []
    for start, stop in itertools.pairwise(edges):
        run = points[start:stop]
        means.append((sum(x for x, _ in run) / len(run), sum(y for _, y in run) / len(run)))
    return means


def short(value: float) -> str:
    """A tick's label: 0, 0.25, 300, 20k, 1.5e-4."""
    if abs(value) >= 1000:
        return f"{value / 1000:g}k"
    if 0 < abs(value) < 0.001:
        digits, exponent = f"{value:.1e}".split("e")
        return f"{digits.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.3g}"
