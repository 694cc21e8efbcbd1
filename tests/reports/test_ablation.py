"""Ablations: the table and the charts hold the runs' own numbers."""

import csv
import html
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest

from bdl.reports.ablation import Cell, Line, as_csv, as_markdown, as_page, as_plot, write_ablation
from bdl.reports.records import Row
from bdl.runtime.config import Config
from tests.helpers.browser import needs_browser, opened


def cell(variant: str, seed: int, folder: Path) -> Cell:
    return Cell(variant, 1, 0, seed, Config(out=str(folder / variant / str(seed))))


def row(k: int, i: int, miou: float | None) -> Row:
    name = f"k{k}/segmentation-{i}" if k else "source-only"
    return Row(name, k, i, miou, {}, {}, 1.0)


def test_the_table_has_mean_spread_and_each_seeds_gain_over_its_own_source_only(tmp_path):
    values = {0: (0.20, 0.30), 1: (0.22, 0.36)}
    results = [
        (cell("plain", seed, tmp_path), [row(0, 0, source_only), row(1, 0, adapted)])
        for seed, (source_only, adapted) in values.items()
    ]

    lines = write_ablation(tmp_path, results, 2)

    # By hand: mean of 30 and 36 is 33, their standard deviation 6 / sqrt(2) = 4.24.
    assert "| plain | 1 | 0 | k1/segmentation-0 | 33.0 ± 4.2 | +10.0 | +14.0 |" in as_markdown(
        lines
    )
    table = list(csv.DictReader(io.StringIO(as_csv(lines))))
    assert [(row["network"], row["seed"], float(row["miou"])) for row in table] == [
        ("source-only", "0", 0.20),
        ("source-only", "1", 0.22),
        ("k1/segmentation-0", "0", 0.30),
        ("k1/segmentation-0", "1", 0.36),
    ]
    stored = json.loads((tmp_path / "ablation.json").read_text())
    assert stored[1]["miou"] == {"0": 0.30, "1": 0.36}
    assert (tmp_path / "ablation.md").read_text() == as_markdown(lines)
    assert (tmp_path / "ablation.svg").read_text() == as_plot(lines)
    assert "33.0 ± 4.2" in (tmp_path / "ablation.html").read_text(encoding="utf-8")


def table(page, identity):
    """The text of the cells of a table, by row."""
    body = page.partition(f'id="{identity}"')[2].partition("</table>")[0]
    rows = [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
        for row in re.findall(r"<tr.*?</tr>", body, re.DOTALL)
    ]
    return [[html.unescape(re.sub("<[^>]*>", "", cell)) for cell in row] for row in rows]


def test_the_page_has_settings_links_mean_gains_and_classes(tmp_path):
    """Of settings those alone that differ from the first variant's; links that lead to reports."""
    configs = {"as configured": {}, "weak & wide": {"log_every": 7, "translation": {"lr": 0.5}}}
    ious = {("as configured", 0): 0.1, ("as configured", 1): 0.3, ("weak & wide", 0): 0.5}
    results = []
    for (variant, seed), road in ious.items():
        out = tmp_path / variant / f"seed-{seed}"
        config = Config(out=str(out), seed=seed)
        for key, value in configs[variant].items():
            if isinstance(value, dict):
                vars(getattr(config, key)).update(value)
            else:
                setattr(config, key, value)
        last = replace(row(1, 0, road), iou={"road": road, "train": None})
        results.append((Cell(variant, 1, 0, seed, config), [row(0, 0, 0.1002), last]))
        out.mkdir(parents=True)
        (out / "report.html").touch()
    lines = write_ablation(tmp_path, results, len(results))
    page = (tmp_path / "ablation.html").read_text(encoding="utf-8")

    # By hand: gains of -0.02 and 19.98 points, the mean of which is 9.98.
    gains = [row[5:] for row in table(page, "ablation-table")[1:]]
    dash, minus = "\N{EN DASH}", "\N{MINUS SIGN}"
    assert gains == [
        [dash] * 3,
        ["+10.0", f"{minus}0.02", "+20.0"],
        [dash] * 3,
        ["+40.0", "+40.0", dash],
    ]
    assert table(page, "classes-table")[2][1:] == ["20.0", dash]
    links = set(re.findall(r'href="([^"#]*report.html)"', page))
    assert {(tmp_path / unquote(html.unescape(link))).is_file() for link in links} == {True}
    assert len(links) == 3 and lines[0].runs == {
        0: "as configured/seed-0",
        1: "as configured/seed-1",
    }
    changed = re.findall(r"<code>(.*?)</code> <span[^>]*>instead of (.*?)</span>", page)
    default = Config()
    assert changed == [
        ("log_every=7", str(default.log_every)),
        ("translation.lr=0.5", str(default.translation.lr)),
    ]


def test_the_table_says_how_many_target_labels_are_behind_a_network(tmp_path):
    results = [
        (
            cell(name, 0, tmp_path),
            [row(0, 0, 0.2), replace(row(1, 0, 0.3), target_labels=labels)],
        )
        for name, labels in (("none", 0), ("one", 1), ("five", 5))
    ]
    lines = write_ablation(tmp_path, results, 3)
    table = as_markdown(lines)
    assert "| none | 1 | 0 | k1/segmentation-0 | 30.0 |" in table
    assert "| one | 1 | 0 | k1/segmentation-0, with 1 target label | 30.0 |" in table
    assert "| five | 1 | 0 | k1/segmentation-0, with 5 target labels | 30.0 |" in table
    numbers = [(row["variant"], row["k"], row["target_labels"]) for row in map(vars, lines)]
    assert numbers[-2:] == [("five", 0, 0), ("five", 1, 5)]
    stored = list(csv.DictReader(io.StringIO(as_csv(lines))))
    assert [int(row["target_labels"]) for row in stored] == [0, 0, 0, 1, 0, 5]
    page = (tmp_path / "ablation.html").read_text(encoding="utf-8")
    assert page.count("with 5 target labels") == page.count("with 1 target label<") == 1


def test_without_validation_the_table_says_so(tmp_path):
    results = [(cell("plain", 0, tmp_path), [row(0, 0, None), row(1, 0, None)])]
    lines = write_ablation(tmp_path, results, 1)
    assert "| plain | 1 | 0 | k1/segmentation-0 | not measured |  |" in as_markdown(lines)
    assert as_csv(lines).splitlines()[1] == "plain,1,0,source-only,0,,,0"
    assert "<circle" not in as_plot(lines) and "not measured" in as_plot(lines)
    page = as_page("runs", lines, cells=1, settings={})
    assert page.count("<td>not measured</td>") == 2 and 'class="best"' not in page


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, 1), (400, 0)], ids=["light", "dark, narrow"])
def test_a_browser_shows_the_page(tmp_path, width, scheme):
    """No error, a dot for each seed of each network inside the window, the numbers of the CSV in
    the table, nothing wider than the window, and the theme that is asked for."""
    cells = [cell(name, seed, tmp_path) for name in ("plain", "weak <b>") for seed in (0, 1)]
    results = []
    for number, made in enumerate(cells):
        miou = 0.2 + 0.1 * made.seed + 0.03 * number
        networks = ((0, 0), (1, 0), (1, 1))
        rows = [row(k, i, miou + 0.05 * number) for number, (k, i) in enumerate(networks)]
        results.append((made, rows))

    write_ablation(tmp_path, results, len(cells))
    rows = list(csv.DictReader((tmp_path / "ablation.csv").open(encoding="utf-8")))
    dom, probe = opened(tmp_path / "ablation.html", width, scheme)
    assert probe["errors"] == [] and probe["dots"] == len(rows) == 2 * 2 * 3
    table = re.sub(r"<[^>]*>", " ", dom[dom.index('id="ablation-table"') :])
    for line in rows:
        if line["network"] != "source-only":
            assert f"{100 * float(line['gain']):+.1f}" in table.split()
    assert probe["wide"] <= probe["window"] == width
    assert probe["background"] == ("rgb(251, 251, 250)" if scheme else "rgb(19, 21, 24)")


def test_the_page_and_the_plot_say_what_the_table_says(tmp_path):
    lines = [
        Line("plain", 1, 0, "source-only", 0, 0, {0: 0.20, 1: 0.22}, {0: 0.0, 1: 0.0}),
        Line("plain", 1, 0, "k1/segmentation-0", 1, 0, {0: 0.30, 1: 0.36}, {0: 0.10, 1: 0.14}),
        Line("<weak>", 1, 0, "k1/segmentation-0", 1, 0, {0: 0.21}, {0: -0.04}),
    ]
    page = as_page("runs", lines, cells=4, settings={})
    assert "33.0 ± 4.2" in page and "+14.0" in page and "\N{MINUS SIGN}4.0" in page
    assert "<weak>" not in page and "&lt;weak&gt;" in page
    assert '<tr class="best"><td class="text">plain</td><td>1</td>' in page
    assert "3 of 4 runs are finished; 2 settings, 2 seeds." in page
    page = as_page("runs", lines, cells=3, settings={})
    assert "all 3 runs are finished; 2 settings, 2 seeds." in page and "3 of" not in page
    values = re.findall(r"<title>([^<]*)\n(.*?): ([^<]*)</title>", as_plot(lines))
    assert values == [
        ("plain", "M(0)", "20.0"),
        ("plain", "M(0)", "22.0"),
        ("plain", "M(1,0)", "30.0"),
        ("plain", "M(1,0)", "36.0"),
        ("&lt;weak&gt;", "M(1,0)", "21.0"),
    ]


def test_a_network_of_several_k_is_one_dot_a_seed():
    """M(0) of the runs with K = 0 and K = 1 is the same network."""
    lines = [Line("plain", k, 0, "source-only", 0, 0, {0: 0.2}, {0: 0.0}) for k in (0, 1)]
    assert as_plot(lines).count("<circle") == 1


def test_runs_with_several_n_have_a_line_each():
    """M(2,0) is another network with N = 2 than with N = 0: its translator saw another M."""
    lines = [
        Line("plain", 2, n, network, k, 0, {0: 0.2 + 0.1 * n}, {0: 0.0})
        for n in (0, 2)
        for k, network in ((0, "source-only"), (2, "k2/segmentation-0"))
    ]
    values = re.findall(r"<title>([^<]*)\n(.*?): ([^<]*)</title>", as_plot(lines))
    assert values == [
        ("plain, N = 0", "M(0)", "20.0"),
        ("plain, N = 0", "M(2,0)", "20.0"),
        ("plain, N = 2", "M(0)", "40.0"),
        ("plain, N = 2", "M(2,0)", "40.0"),
    ]
    # The page's legend and the file's have the lines' colours.
    colors = re.findall(r'class="line c(\d)"[^>]*><title>([^<]*)', as_plot(lines))
    assert sorted(colors) == [("1", "plain, N = 0"), ("2", "plain, N = 2")]
    page = as_page("runs", lines, cells=2, settings={})
    assert re.findall(r'class="key c(\d)"></i>([^<]*)</li>', page) == colors
    legend = re.findall(r'class="line c(\d)" d="M42[^>]*/><text[^>]*>([^<]*)', as_plot(lines))
    assert legend == colors
