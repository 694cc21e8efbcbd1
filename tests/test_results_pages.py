"""docs/results: every table is what the JSON beside its page says, and so is README's."""

import json
import re
import sys
from pathlib import Path
from statistics import mean

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
sys.path.insert(0, str(ROOT / "docs"))
import tabulate_results  # noqa: E402
from tabulate_results import MARK, classes, collect, filled, main, means, networks  # noqa: E402

PAGES = sorted(RESULTS.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_table_of_a_page_is_what_its_files_say(page):
    """If not: python docs/tabulate_results.py"""
    text = page.read_text(encoding="utf-8")
    assert filled(page) == text
    assert len(re.findall(MARK, text)) == len(re.findall(r"^\| *---", text, re.M))
    assert len(text.splitlines()) <= (60 if page.parent == RESULTS else 120)


def test_every_file_is_shown():
    """Tables of speed and memory are those of docs/list_performance.py."""
    shown = {
        (page.parent / file).resolve()
        for page in PAGES
        for _, _, files in re.findall(MARK, page.read_text(encoding="utf-8"))
        for file in files.split()
    }
    files = {file for file in RESULTS.rglob("*.*") if file.suffix not in (".md", ".png")}
    assert {file for file in files if file.parent.name != "performance"} == shown


README_ROWS = {
    "source only": ("M(0)", "M(0)", "M(0)"),
    "one round": ("M(1,1)", "M(1,2)", "M(1,2)"),
    "two rounds": ("M(2,1)", "M(2,2)", "M(2,2)"),
}


@pytest.mark.parametrize("name", README_ROWS)
def test_the_readme_has_the_means_of_the_recipes(name):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(rf"^\| {name} \| (.*) \|$", text, re.M)
    means_of = []
    for folder, symbol in zip(
        ("demo", "camvid-day-dusk", "streets-camvid-day"), README_ROWS[name], strict=True
    ):
        rows = json.loads((RESULTS / folder / "recipe.json").read_text(encoding="utf-8"))
        (row,) = rows.values()
        means_of.append(mean(seed[symbol]["miou"] for seed in row.values()))
    assert line.split(" | ") == [f"{100 * value:.1f}" for value in means_of]


def scores(miou: float, a: float, b: float | None = 0.5) -> dict:
    return {"miou": miou, "iou": {"a": a, "b": b}}


ROWS = {
    "whole": {
        "0": {"M(0)": scores(0.25, 0.1), "M(1,0)": scores(0.5, 0.3), "M(1,1)": scores(0.75, 0.6)},
        "1": {"M(0)": scores(0.5, 0.3), "M(1,0)": scores(0.5, 0.5, None)},
    },
    "bound": {"0": {"M(0)": scores(0.875, 0.9)}},
}


def test_one_row_is_shown_by_seed():
    """The mean is over networks that all seeds have."""
    assert networks({"whole": ROWS["whole"]}).splitlines() == [
        "| seed | M(0) | M(1,0) | M(1,1) | last over first |",
        "| --- | --- | --- | --- | --- |",
        "| 0 | 25.0 | 50.0 | 75.0 | +50.0 |",
        "| 1 | 50.0 | 50.0 |  | +0.0 |",
        "| mean | 37.5 | 50.0 |  | +12.5 |",
        "| over M(0) |  | +12.5 |  |  |",
    ]
    assert classes({"whole": ROWS["whole"]}).splitlines() == [
        "| IoU | a | b |",
        "| --- | --- | --- |",
        "| M(0) | 20 | 50 |",
        "| M(1,0) | 40 | 50 |",
    ]


def test_several_rows_are_shown_by_their_means():
    assert networks(ROWS).splitlines() == [
        "|  | seeds | M(0) | M(1,0) | last over first |",
        "| --- | --- | --- | --- | --- |",
        "| whole | 0, 1 | 37.5 | 50.0 | +12.5 (+25.0, +0.0) |",
        "| bound | 0 | 87.5 |  |  |",
    ]
    assert classes(ROWS).splitlines()[2:] == [
        "| whole: M(1,0) | 40 | 50 |",
        "| bound: M(0) | 90 | 50 |",
    ]
    assert means(ROWS).splitlines() == [
        "|  | whole | bound |",
        "| --- | --- | --- |",
        "| seeds | 2 | 1 |",
        "| M(0) | 37.5 | 87.5 |",
        "| M(1,0) | 50.0 |  |",
        "| last over first | +12.5 |  |",
    ]


@pytest.fixture
def run(tmp_path):
    """Writes a run's results, and gives its folder."""

    def write(name: str, seed: int, *rows: dict) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.yaml").write_text(f"seed: {seed}\n", encoding="utf-8")
        (folder / "results.json").write_text(json.dumps(rows), encoding="utf-8")
        return folder

    return write


def result(k: int, i: int, miou: float | None, **more: object) -> dict:
    stage = f"k{k}/segmentation-{i}" if k else "source-only"
    return {"stage": stage, "k": k, "i": i, "miou": miou, "iou": {"a": miou}, "seconds": 1, **more}


def test_a_row_is_collected_from_the_runs_of_several_seeds(run, tmp_path):
    run("dusk-b", 10, result(0, 0, 0.5), result(1, 0, None))
    run("dusk-a", 2, result(0, 0, 0.25), result(1, 1, 0.75))
    (tmp_path / "dusk-unfinished").mkdir()
    assert collect(f"K = 1, N = 1={tmp_path}/dusk-*") == {
        "K = 1, N = 1": {
            "2": {
                "M(0)": {"miou": 0.25, "iou": {"a": 0.25}},
                "M(1,1)": {"miou": 0.75, "iou": {"a": 0.75}},
            },
            "10": {"M(0)": {"miou": 0.5, "iou": {"a": 0.5}}},
        }
    }


def test_a_row_says_how_many_target_labels_it_learned_from(run):
    folder = run("few", 0, result(0, 0, 0.25), result(1, 0, 0.5, target_labels=5))
    assert list(collect(f"dusk={folder}")) == ["dusk, with 5 target labels"]


def test_runs_that_would_mislead_are_refused(run, tmp_path):
    run("a", 0, result(0, 0, 0.5))
    run("b", 0, result(0, 0, 0.5))
    stale = run("stale", 1, result(1, 0, 0.5, note="made with other settings"))
    for given, said in {
        f"row={tmp_path}/[ab]": "has seed 0",
        f"row={stale}": r"M\(1,0\) is made with other settings",
        f"row={tmp_path}/none": "no run with results.json",
    }.items():
        with pytest.raises(SystemExit, match=said):
            collect(given)


def test_a_command_puts_a_row_into_its_file_and_the_pages(run, tmp_path, monkeypatch):
    page = tmp_path / "pages" / "README.md"
    page.parent.mkdir()
    file = page.with_name("recipe.json")
    file.write_text(json.dumps({"kept": ROWS["bound"], "old": ROWS["bound"]}), encoding="utf-8")
    mark = "<!-- Made by docs/tabulate_results.py: networks of recipe.json -->\n"
    page.write_text(f"# Results\n\n{mark}\nText.\n", encoding="utf-8")
    monkeypatch.setattr(tabulate_results, "PAGES", page.parent)
    monkeypatch.setattr(sys, "argv", ["", str(file), f"old={run('new', 3, result(0, 0, 0.5))}"])
    for _ in range(2):  # the second time a table stands there
        main()
        assert page.read_text(encoding="utf-8") == (
            f"# Results\n\n{mark}\n|  | seeds | M(0) |\n| --- | --- | --- |\n"
            "| kept | 0 | 87.5 |\n| old | 3 | 50.0 |\n\nText.\n"
        )
