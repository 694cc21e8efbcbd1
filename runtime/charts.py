"""Line charts as inline SVG: small, sharp at any size, coloured by the page's own style sheet."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

COLORS = 8  # the style sheet names as many: .c0 to .c7

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
    + "".join(
        f".c{number}{{--c:{color}}}"
        for number, color in enumerate(
            ["#33383f", "#0072b2", "#d55e00", "#009e73", "#a6478a", "#b08900", "#56a5d8", "#8a5a2b"]
        )
    )
    + "@media(prefers-color-scheme:dark){svg{background:#131518}text{fill:#a0a5ad}"
    ".grid{stroke:#30343a}"
    + "".join(
        f".c{number}{{--c:{color}}}"
        for number, color in enumerate(
            ["#d5d9de", "#4da6e0", "#f08a4b", "#3cc79a", "#d78cc0", "#dcb93f", "#a5d3f2", "#c79a6b"]
        )
    )
    + "}"
)


@dataclass(frozen=True)
class Line:
    """One curve: its name, its points by rising x, and the look that the legend explains."""

    name: str
    points: Sequence[tuple[float, float]]
    color: int
    dashed: bool = False


def line_chart(title: str, lines: Sequence[Line]) -> Markup:
    """An SVG of `lines` over a y axis that begins at zero (or below, for negative values).

    Values that are not finite leave a gap. A point says its name, x and y when hovered over.
    """
    shown = [point for line in lines for point in line.points if math.isfinite(point[1])]
    x_end = max((x for x, _ in shown), default=0) or 1
    values = [0.0, *(y for _, y in shown)]
    x_ticks = nice_ticks(0, x_end, 4)
    y_ticks = nice_ticks(min(values), max(values), 4)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + x / x_end * (_WIDTH - _LEFT - _RIGHT)
        down = _TOP + (y_high - y) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)
        return round(across, 1), round(down, 1)

    parts = []
    for tick in y_ticks:
        _, down = place(0, tick)
        parts.append(_grid(down, tick, _WIDTH))
    for tick in x_ticks:
        if tick <= x_end * 1.001:
            across, _ = place(tick, y_low)
            parts.append(
                Markup('<text class="x" x="{}" y="{}">{}</text>').format(
                    across, _HEIGHT - 6, short(tick)
                )
            )
    for line in lines:
        look = f"c{line.color % COLORS}" + (" dashed" if line.dashed else "")
        path = _path([place(x, y) if math.isfinite(y) else None for x, y in thin(line.points)])
        parts.append(
            Markup('<path class="line {}" d="{}"><title>{}</title></path>').format(
                look, path, line.name
            )
        )
    for line in lines:
        for x, y in thin(line.points, _HOVERED):
            if math.isfinite(y):
                across, down = place(x, y)
                parts.append(
                    Markup(
                        '<circle class="c{}" cx="{}" cy="{}" r="5"><title>{}\nstep {}: {}'
                        "</title></circle>"
                    ).format(line.color % COLORS, across, down, line.name, f"{x:.0f}", f"{y:.3g}")
                )
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, title, Markup("").join(parts)
    )


@dataclass(frozen=True)
class Series:
    """The values of each category, e.g. of every seed; an empty list where there is none."""

    name: str
    values: Sequence[Sequence[float]]
    color: int


def category_chart(title: str, categories: Sequence[str], series: Sequence[Series]) -> Markup:
    """An SVG with a dot for every value, and for each of `series` a line through the means.

    The y axis covers the values only: it compares them, and does not begin at zero.
    """
    values = [value for one in series for values in one.values for value in values]
    ticks = nice_ticks(min(values, default=0), max(values, default=1), 5)
    width, bottom = _WIDE[0] - _LEFT - _RIGHT, _WIDE[1] - _BOTTOM

    def height(value: float) -> float:
        return round(_TOP + (ticks[-1] - value) / (ticks[-1] - ticks[0]) * (bottom - _TOP), 1)

    def place(index: int, number: int, value: float) -> tuple[float, float]:
        # Side by side, so that equal values of several series are all seen; around the category's
        # middle, whichever of the series have values there.
        there = [other for other, one in enumerate(series) if one.values[index]]
        beside = (there.index(number) - (len(there) - 1) / 2) * _BESIDE
        across = _LEFT + (index + 0.5) / len(categories) * width + beside
        return round(across, 1), height(value)

    parts = [_grid(height(tick), tick, _WIDE[0]) for tick in ticks]
    for index, category in enumerate(categories):
        across = round(_LEFT + (index + 0.5) / len(categories) * width, 1)
        parts.append(
            Markup('<text class="x" x="{}" y="{}">{}</text>').format(across, _WIDE[1] - 6, category)
        )
    for number, one in enumerate(series):
        look = f"c{one.color % COLORS}"
        means = [
            place(index, number, sum(found) / len(found))
            for index, found in enumerate(one.values)
            if found
        ]
        parts.append(
            Markup('<path class="line {}" d="{}"><title>{}</title></path>').format(
                look, _path(means), one.name
            )
        )
        for index, value in ((i, value) for i, found in enumerate(one.values) for value in found):
            across, down = place(index, number, value)
            parts.append(
                Markup(
                    '<circle class="dot {}" cx="{}" cy="{}" r="3.2"><title>{}\n{}: {}'
                    "</title></circle>"
                ).format(look, across, down, one.name, categories[index], f"{value:.1f}")
            )
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        *_WIDE, title, Markup("").join(parts)
    )


def standalone(chart: Markup, legend: Mapping[str, int]) -> str:
    """The chart as a file of its own: with the page's style, in the reader's theme, and with a
    legend of the names of its series and their colours, which may be empty."""
    width, height = re.findall(r'viewBox="0 0 (\d+) (\d+)"', chart)[0]
    entries, above = "", _LEGEND * len(legend)
    for place, (name, color) in enumerate(legend.items()):
        down = _LEGEND * (place + 0.5) - above
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


def _grid(down: float, tick: float, width: int) -> Markup:
    """A tick of the y axis across a chart."""
    return Markup('<path class="grid" d="M{} {}H{}"/><text x="{}" y="{}">{}</text>').format(
        _LEFT, down, width - _RIGHT, _LEFT - 6, round(down + 3.5, 1), short(tick)
    )


def _path(places: Sequence[tuple[float, float] | None]) -> str:
    """The path through the places, broken where one is None."""
    commands, pen = [], "M"
    for place in places:
        if place is None:
            pen = "M"
        else:
            commands.append(f"{pen}{place[0]} {place[1]}")
            pen = "L"
    return "".join(commands)
