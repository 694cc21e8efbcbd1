"""Line charts as inline SVG: small, sharp at any size, coloured by the page's own style sheet."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

COLORS = 8  # the style sheet names as many: .c0 to .c7

_WIDTH, _HEIGHT = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 14, 10, 24
_DRAWN = 150  # points that a line is drawn with at most
_HOVERED = 24  # points of a line that tell their value


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
        parts.append(
            Markup('<path class="grid" d="M{} {}H{}"/><text x="{}" y="{}">{}</text>').format(
                _LEFT, down, _WIDTH - _RIGHT, _LEFT - 6, round(down + 3.5, 1), short(tick)
            )
        )
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
