"""The charts' numbers: ticks, thinning, and where points land."""

import itertools
import math
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdl.reports.charts import (
    Line,
    Series,
    category_chart,
    line_chart,
    nice_ticks,
    short,
    standalone,
    thin,
)


@given(
    st.floats(-1e6, 1e6, allow_subnormal=False),
    st.floats(1e-6, 1e6, allow_subnormal=False),
    st.integers(2, 8),
)
def test_ticks_cover_the_range_in_few_equal_steps(low: float, extent: float, count: int) -> None:
    high = low + extent
    ticks = nice_ticks(low, high, count)
    slack = 1e-6 * max(abs(low), abs(high), extent)
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= count + 3
    digits = (ticks[1] - ticks[0]) / 10 ** math.floor(math.log10((ticks[1] - ticks[0]) * 1.0001))
    assert any(math.isclose(digits, nice, rel_tol=1e-3) for nice in (1, 2, 5))


def test_ticks_of_an_empty_range_are_still_a_scale() -> None:
    assert nice_ticks(0, 0, 4) == [0, 0.5, 1]


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=500), st.integers(1, 150))
def test_thinning_keeps_the_order_and_the_mean_of_each_run(values: list[float], count: int) -> None:
    points = [(float(x), y) for x, y in enumerate(values)]
    thinned = thin(points, count)
    assert len(thinned) == min(len(points), count)
    assert all(a[0] < b[0] for a, b in itertools.pairwise(thinned))
    assert min(values) - 1e-9 <= min(y for _, y in thinned)
    assert max(y for _, y in thinned) <= max(values) + 1e-9


def test_thinning_by_hand() -> None:
    assert thin([(0, 1), (1, 3), (2, 10), (3, 20)], 2) == [(0.5, 2), (2.5, 15)]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (300, "300"), (20_000, "20k"), (1.5e-4, "1.5e-4"), (2e-5, "2e-5")],
)
def test_tick_labels(value: float, text: str) -> None:
    assert short(value) == text


def test_points_land_where_the_scale_says() -> None:
    """The scale's top is 2 and its end 100: the first point is at the top left of the plot, the
    last at its bottom right."""
    svg = ElementTree.fromstring(line_chart("loss", [Line("M(0)", [(0, 2.0), (100, 0.0)], 1)]))
    (path,) = [node for node in svg.iter("path") if "line" in node.get("class", "")]
    assert path.get("d") == "M42.0 10.0L326.0 166.0"
    assert path.get("class") == "line c1"


def test_a_value_that_is_not_finite_leaves_a_gap() -> None:
    points = [(0, 1.0), (1, 1.0), (2, math.nan), (3, 1.0), (4, 1.0)]
    svg = ElementTree.fromstring(line_chart("loss", [Line("M(0)", points, 0)]))
    (path,) = [node for node in svg.iter("path") if "line" in node.get("class", "")]
    assert path.get("d", "").count("M") == 2
    assert "nan" not in ElementTree.tostring(svg, "unicode")


def test_names_are_escaped() -> None:
    chart = line_chart('a"<b>', [Line("<i>&", [(0, 1.0), (1, 2.0)], 0, dashed=True)])
    svg = ElementTree.fromstring(chart)
    assert svg.get("aria-label") == 'a"<b>'
    assert "<i>&" in [node.text for node in svg.iter("title")]


def dots(svg: ElementTree.Element) -> list[tuple[float, float]]:
    circles = [node for node in svg.iter() if node.tag.endswith("circle")]
    return [(float(node.get("cx", "")), float(node.get("cy", ""))) for node in circles]


def test_values_of_categories_land_where_the_scale_says() -> None:
    """Two categories share 480 - 42 - 14 pixels, so their middles are at 148 and 360. The scale
    goes from 10 to 20 over 216 pixels below 10; the line joins the means, 15 and 20."""
    chart = category_chart("mIoU", ["M(0)", "M(1,0)"], [Series("a", [[10.0, 20.0], [20.0]], 1)])
    svg = ElementTree.fromstring(chart)
    assert dots(svg) == [(148, 226), (148, 10), (360, 10)]
    (path,) = [node for node in svg.iter("path") if "line" in node.get("class", "")]
    assert path.get("d") == "M148.0 118.0L360.0 10.0"
    assert [node.text for node in svg.iter("text") if node.get("class") == "x"] == [
        "M(0)",
        "M(1,0)",
    ]


def test_equal_values_of_two_series_do_not_hide_each_other() -> None:
    series = [Series("a", [[1.0]], 1), Series("b", [[1.0]], 2)]
    points = dots(ElementTree.fromstring(category_chart("mIoU", ["M(0)"], series)))
    assert points[1][0] - points[0][0] >= 6 and points[0][1] == points[1][1]


def test_a_dot_by_itself_stands_over_its_network_however_many_series_there_are() -> None:
    series = [Series(str(n), [[1.0], [2.0] if n == 0 else []], n) for n in range(8)]
    svg = ElementTree.fromstring(category_chart("mIoU", ["M(0)", "M(1,0)"], series))
    (name,) = [node for node in svg.iter("text") if node.text == "M(1,0)"]
    (alone,) = [x for x, y in dots(svg) if y != dots(svg)[0][1]]
    assert alone == float(name.get("x", ""))


def test_a_network_that_a_run_lacks_has_no_dot_and_the_line_goes_on() -> None:
    chart = category_chart("mIoU", ["a", "b", "c"], [Series("run", [[1.0], [], [2.0]], 1)])
    svg = ElementTree.fromstring(chart)
    assert len(dots(svg)) == 2
    (path,) = [node for node in svg.iter("path") if "line" in node.get("class", "")]
    assert path.get("d", "").count("L") == 1


def test_a_chart_without_values_says_so() -> None:
    svg = ElementTree.fromstring(category_chart("mIoU", ["M(0)"], [Series("run", [[]], 1)]))
    assert [node.text for node in svg.iter("text")] == ["M(0)", "not measured"]
    assert dots(svg) == []


def test_a_chart_of_its_own_is_a_file_with_its_colours_and_names() -> None:
    chart = category_chart("mIoU", ["M(0)"], [Series("a<b", [[1.0]], 2), Series("c", [[2.0]], 3)])
    svg = ElementTree.fromstring(standalone(chart, {"a<b": 2, "c": 3}))
    space = "{http://www.w3.org/2000/svg}"
    assert svg.tag == f"{space}svg" and svg.get("viewBox") == "0 -36 480 286"
    names = [node.text for node in svg.iter(f"{space}text") if node.get("class") == "name"]
    assert names == ["a<b", "c"]
    looks = [str(node.get("class")) for node in svg.iter(f"{space}path")]
    # The legend's strokes, then the series' own.
    assert [look for look in looks if look.startswith("line")] == ["line c2", "line c3"] * 2
    style = svg.find(f"{space}style")
    assert style is not None and ".c1{--c:#0072b2}" in (style.text or "")
