"""Ablations: the table holds the runs' own numbers, and finished stages are shared by links."""

import csv
import io
import json
import os
import re
from pathlib import Path

import pytest

from runtime.ablation import Cell, Line, as_csv, as_markdown, as_page, as_plot, run_ablation
from runtime.config import Config
from runtime.stages import Stage, begin, finish, make_plan, take_over
from tests.browser import needs_browser, opened


def cell(variant: str, seed: int, folder: Path) -> Cell:
    return Cell(variant, 1, 0, seed, Config(out=str(folder / variant / str(seed))))


def test_the_table_has_mean_spread_and_each_seeds_gain_over_its_own_source_only(tmp_path):
    values = {0: (0.20, 0.30), 1: (0.22, 0.36)}
    cells = [cell("plain", 0, tmp_path), cell("plain", 1, tmp_path)]

    def run(made: Cell, others: list[Path]) -> list[dict]:
        assert others == [other.folder for other in cells if other is not made]
        source_only, adapted = values[made.seed]
        return [
            {"stage": "source-only", "miou": source_only},
            {"stage": "k1/segmentation-0", "miou": adapted},
        ]

    lines = run_ablation(tmp_path, cells, run)

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


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, 1), (400, 0)], ids=["light", "dark, narrow"])
def test_a_browser_shows_the_page(tmp_path, width, scheme):
    """No error, a dot for each seed of each network inside the window, the numbers of the CSV in
    the table, nothing wider than the window, and the theme that is asked for."""
    cells = [cell(name, seed, tmp_path) for name in ("plain", "weak <b>") for seed in (0, 1)]

    def run(made: Cell, others: list[Path]) -> list[dict]:
        miou = 0.2 + 0.1 * made.seed + 0.03 * cells.index(made)
        stages = ("source-only", "k1/segmentation-0", "k1/segmentation-1")
        return [{"stage": name, "miou": miou + 0.05 * n} for n, name in enumerate(stages)]

    run_ablation(tmp_path, cells, run)
    rows = list(csv.DictReader((tmp_path / "ablation.csv").open(encoding="utf-8")))
    dom, probe = opened(tmp_path / "ablation.html", width, scheme)
    assert probe["errors"] == [] and probe["dots"] == len(rows) == 2 * 2 * 3
    table = re.sub(r"<[^>]*>", " ", dom[dom.index('id="ablation-table"') :])
    for row in rows:
        gain = f"{100 * float(row['gain']):+.1f}"
        assert ("0.0" if gain == "+0.0" else gain) in table.split()
    assert probe["wide"] <= max(width, probe["window"])
    assert probe["background"] == ("rgb(251, 251, 250)" if scheme else "rgb(19, 21, 24)")


def test_the_page_and_the_plot_say_what_the_table_says(tmp_path):
    lines = [
        Line("plain", 1, 0, "source-only", {0: 0.20, 1: 0.22}, {0: 0.0, 1: 0.0}),
        Line("plain", 1, 0, "k1/segmentation-0", {0: 0.30, 1: 0.36}, {0: 0.10, 1: 0.14}),
        Line("<weak>", 1, 0, "k1/segmentation-0", {0: 0.21}, {0: -0.04}),
    ]
    page = as_page("runs", lines, cells=4)
    assert "33.0 ± 4.2" in page and "+14.0" in page and "\N{MINUS SIGN}4.0" in page
    assert "<weak>" not in page and "&lt;weak&gt;" in page
    assert '<tr class="best"><td class="text">plain</td><td>1</td>' in page
    assert "2 settings, 2 seeds; 4 runs planned" in page
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
    lines = [Line("plain", k, 0, "source-only", {0: 0.2}, {0: 0.0}) for k in (0, 1)]
    assert as_plot(lines).count("<circle") == 1


def test_runs_with_several_n_have_a_line_each():
    """M(2,0) is another network with N = 2 than with N = 0: its translator saw another M."""
    lines = [
        Line("plain", 2, n, network, {0: 0.2 + 0.1 * n}, {0: 0.0})
        for n in (0, 2)
        for network in ("source-only", "k2/segmentation-0")
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
    page = as_page("runs", lines, cells=2)
    assert re.findall(r'class="key c(\d)"></i>([^<]*)</li>', page) == colors
    legend = re.findall(r'class="line c(\d)" d="M42[^>]*/><text[^>]*>([^<]*)', as_plot(lines))
    assert legend == colors


def make(folder: Path, stage: Stage, content: str) -> None:
    begin(folder, stage)
    (folder / stage.name / "weights.pt").write_text(content)
    finish(folder, stage, {}, 1.0, {})


def a_stage(name: str, setting: int, *inputs: Stage) -> Stage:
    return Stage(name, "segment", {"setting": setting}, inputs, lambda folder: {}, 1, "steps")


def test_a_stage_finished_elsewhere_is_taken_over_without_the_stages_inside_it(tmp_path):
    trained = a_stage("source-only", 1)
    scored = a_stage("source-only/evaluation", 1, trained)
    make(tmp_path / "one", trained, "trained")
    make(tmp_path / "one", scored, "scored")

    take_over(tmp_path / "two", [trained], [tmp_path / "one"])

    taken = tmp_path / "two" / "source-only"
    assert (taken / "weights.pt").read_text() == "trained"
    assert not (taken / "evaluation").exists()
    assert os.path.samefile(taken / "weights.pt", tmp_path / "one" / "source-only" / "weights.pt")
    plan = make_plan(tmp_path / "two", [trained, scored])
    assert [entry.run for entry in plan] == [False, True]


def test_a_stage_of_other_settings_or_unfinished_is_not_taken_over(tmp_path):
    make(tmp_path / "one", a_stage("source-only", 1), "trained")
    begin(tmp_path / "one", a_stage("k1/translator", 1))

    wanted = [a_stage("source-only", 2), a_stage("k1/translator", 1)]
    take_over(tmp_path / "two", wanted, [tmp_path / "one"])

    assert not (tmp_path / "two").exists()
