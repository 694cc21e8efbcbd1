"""`compare`: its page and table hold the runs' own numbers, and say where these do not compare."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import yaml

from bdl import pipeline
from bdl.reports.comparison import (
    ComparedRun,
    Validation,
    as_text,
    class_shares,
    differences,
    networks,
    notes,
    write_comparison,
)
from bdl.reports.finished_runs import compared_frames, read_runs
from bdl.reports.records import Record, Row
from bdl.runtime.metrics import TrainingMetrics
from bdl.segmentation.metrics import PseudoLabelClass, PseudoLabelMetrics
from tests.helpers.browser import needs_browser, opened


def row(stage: str, k: int, i: int, miou: float | None) -> Row:
    return Row(stage, k, i, miou, {}, {} if miou is None else {"road": miou}, 1.0)


def compared(name: str, rows: list[Row], **settings) -> ComparedRun:
    return ComparedRun(name, rows, settings, validation=Validation(2, "the same"))


def test_networks_are_in_the_loops_order_whatever_each_run_has():
    one = compared("one", [row("source-only", 0, 0, 0.3), row("k1/segmentation-0", 1, 0, 0.4)])
    other = compared("other", [row("source-only", 0, 0, 0.2), row("k2/segmentation-0", 2, 0, 0.5)])
    assert [(line.stage, line.miou) for line in networks([other, one])] == [
        ("source-only", [0.2, 0.3]),
        ("k1/segmentation-0", [None, 0.4]),
        ("k2/segmentation-0", [0.5, None]),
    ]


def test_only_settings_that_differ_are_listed():
    rows = [row("source-only", 0, 0, 0.3)]
    one = compared("one", rows, out="a", seed=0, device="cpu")
    other = compared("other", rows, out="b", seed=1, device="cpu", added=None)
    assert differences([one, other]) == [("seed", [0, 1])]
    third = compared("third", rows, out="c", seed=0, device="cpu", new=3)
    assert differences([one, third]) == [("new", [None, 3])]


def test_what_does_not_compare_is_said():
    rows = [row("source-only", 0, 0, 0.3)]
    first = compared("first", rows)
    assert notes([first, compared("same", rows)]) == []
    other = ComparedRun("other", rows, {}, validation=Validation(2, "another"))
    (note,) = notes([first, other])
    assert "other is scored on other validation images than first" in note
    classes = compared("third", [replace(rows[0], iou={"sky": 0.3})])
    assert notes([first, classes]) == ["third has other classes than first."]
    stale = compared("fourth", [replace(rows[0], note="made with other settings")])
    assert notes([first, stale]) == ["source-only of fourth was made with other settings."]
    unscored = ComparedRun("fifth", rows, {})
    assert notes([first, unscored]) == ["fifth is not scored: it has no validation images."]


def test_runs_whose_records_differ_in_form_are_told_apart_by_their_labels():
    rows = [row("source-only", 0, 0, 0.3)]
    old, new, other = (
        ComparedRun(name, rows, {}, validation=Validation(version, name, pixels))
        for name, version, pixels in (("old", 1, (3, 4)), ("new", 2, (3, 4)), ("other", 2, (3, 5)))
    )
    assert notes([old, new]) == []
    assert "other is scored on other validation images" in notes([old, other])[0]


def test_without_validation_curves_and_class_shares_are_compared(tmp_path):
    """And a run that measures beside one that does not is still shown."""
    labels = PseudoLabelMetrics(
        classes=[PseudoLabelClass(0.5, 30, 0.25), PseudoLabelClass(0.5, 10, 1.0)]
    )
    trained = TrainingMetrics(steps=1, curves=[{"step": 1, "source": 0.5}])
    records = [
        Record("source-only", "segment", 0, 0, "M(0)", tmp_path, metrics=trained),
        Record("k1/pseudo-labels-1", "pseudo-label", 1, 1, "for M(1,1)", tmp_path, metrics=labels),
    ]
    runs = [
        ComparedRun(name, [row("source-only", 0, 0, None)], {}, records=records, classes=classes)
        for name, classes in (("one", ["road", "sky"]), ("other", ["road", "train"]))
    ]
    shares = [
        (name, [cell and (cell.share, cell.kept) for cell in cells])
        for name, cells in class_shares(runs)
    ]
    assert shares == [
        ("road", [(0.75, 0.25), (0.75, 0.25)]),
        ("sky", [(0.25, 1.0), None]),
        ("train", [None, (0.25, 1.0)]),
    ]
    write_comparison(tmp_path / "page.html", runs)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'id="curves"' in text and 'id="shares-table"' in text and 'id="classes"' not in text
    assert text.count('class="first">not measured</td>') == 2
    assert as_text(runs).splitlines()[1].split() == ["source-only", *["not", "measured"] * 2]
    measured = ComparedRun("measured", [row("source-only", 0, 0, 0.3)], {})
    write_comparison(tmp_path / "page.html", [measured, *runs])
    assert ">30.0</td>" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.fixture
def two_runs(tiny_run, tmp_path):
    """The tiny run, and a copy whose records say that its seed was 1 and its K 1."""
    one, other = tiny_run.copy(tmp_path / "one"), tiny_run.copy(tmp_path / "other")
    config = yaml.safe_load((other.folder / "config.yaml").read_text(encoding="utf-8"))
    config |= {"seed": 1, "iterations": 1}
    (other.folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    rows = [row for row in other.read("results.json") if row["k"] < 2]
    (other.folder / "results.json").write_text(json.dumps(rows), encoding="utf-8")
    return one, other


def test_the_page_and_the_table_hold_the_runs_numbers(two_runs, tmp_path, capsys):
    one, other = two_runs
    page = tmp_path / "page.html"
    arguments = ["compare", str(one.folder), str(other.folder), "--out", str(page)]
    assert pipeline.main(arguments) == 0
    text = page.read_text(encoding="utf-8")
    table = text[text.index('id="networks-table"') :]
    cells = dict(re.findall(r'<tr data-stage="(.*?)">.*?<td class="first">(.*?)</td>', table, re.S))
    assert cells == {r["stage"]: f"{100 * r['miou']:.1f}" for r in one.read("results.json")}
    said = capsys.readouterr().out
    for r in other.read("results.json"):
        miou = f"{100 * r['miou']:.1f}"
        assert re.search(rf"^{r['stage']} +{miou} +{miou}$", said, re.MULTILINE)
    assert re.search(r"^k2/segmentation-1 +[\d.]+ +-$", said, re.MULTILINE)
    assert re.findall(r'<tr><th scope="row">(seed|iterations|device)</th>', text)[:2] == [
        "seed",
        "iterations",
    ]
    assert "http" not in text.replace("http-equiv", "") and "location.reload" not in text


def test_frames_are_beside_each_other_with_photo_and_label(two_runs):
    runs = read_runs([run.folder for run in two_runs])
    strips = compared_frames(runs)
    assert [[panel.caption for panel in strip.panels] for strip in strips] == [
        ["validation", "label", "one", "other"]
    ] * 3
    assert {panel.image.size for strip in strips for panel in strip.panels} == {(64, 32)}


def test_without_the_data_the_predictions_are_still_shown(two_runs):
    shutil.rmtree(two_runs[0].folder / "data")
    strips = compared_frames(read_runs([run.folder for run in two_runs]))
    assert [panel.caption for panel in strips[0].panels] == ["one", "other"]


def test_a_run_scored_on_other_images_is_not_put_beside_them(two_runs):
    one, other = two_runs
    file = other.folder / "k1/segmentation-1/evaluation/manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    manifest["inputs"]["data/validation"] = "0" * 64
    file.write_text(json.dumps(manifest), encoding="utf-8")
    runs = read_runs([one.folder, other.folder])
    assert [panel.caption for panel in compared_frames(runs)[0].panels][-1] == "one"
    assert "other validation images" in notes([run.compared for run in runs])[0]


def test_runs_are_named_by_what_tells_them_apart(two_runs, tmp_path):
    folders = [tmp_path / "K1/seed-0", tmp_path / "K2/seed-0"]
    for run, folder in zip(two_runs, folders, strict=True):
        shutil.copytree(run.folder, folder)
    assert [run.compared.name for run in read_runs(folders)] == ["K1", "K2"]
    shutil.copytree(folders[0], tmp_path / "K2/seed-1")
    folders[1] = tmp_path / "K2/seed-1"
    assert [run.compared.name for run in read_runs(folders)] == ["K1/seed-0", "K2/seed-1"]


def test_no_page_but_a_comparison_is_replaced(two_runs, tmp_path, capsys):
    folders = [str(run.folder) for run in two_runs]
    page, own = tmp_path / "page.html", two_runs[0].folder / "report.html"
    for out, expected in ((page, 0), (page, 0), (own, 2)):
        assert pipeline.main(["compare", *folders, "--out", str(out)]) == expected
    assert "is a run's own report" in capsys.readouterr().err
    shutil.copy(own, page)
    before = page.read_bytes()
    assert pipeline.main(["compare", *folders, "--out", str(page)]) == 2
    assert "is no comparison that bdl wrote" in capsys.readouterr().err
    assert page.read_bytes() == before


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda folder: None, "is not the folder of a run"),
        (lambda folder: (folder / "results.json").write_text("["), "is not valid JSON"),
        (lambda folder: (folder / "results.json").write_text("[]"), "no evaluated network yet"),
    ],
)
def test_a_folder_that_is_no_finished_run_is_one_line(two_runs, tmp_path, capsys, make, expected):
    empty = tmp_path / "empty"
    empty.mkdir()
    if make(empty):
        (empty / "config.yaml").write_text("seed: 0")
    arguments = ["compare", str(two_runs[0].folder), str(empty), "--out", str(tmp_path / "x.html")]
    assert pipeline.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {empty}") and expected in line
    assert not (tmp_path / "x.html").exists()


def test_one_run_alone_is_nothing_to_compare(two_runs, capsys):
    folder = str(two_runs[0].folder)
    assert pipeline.main(["compare", folder]) == 2
    assert "two runs or more" in capsys.readouterr().err
    assert pipeline.main(["compare", folder, folder]) == 2
    assert "given twice" in capsys.readouterr().err


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, 1), (400, 0)], ids=["light", "dark, narrow"])
def test_a_browser_shows_the_page(two_runs, tmp_path, width, scheme):
    """No error, every picture decoded, the zoom goes from the photo to its label, and nothing is
    wider than the window."""
    page = tmp_path / "page.html"
    folders = [str(run.folder) for run in two_runs]
    assert pipeline.main(["compare", *folders, "--out", str(page)]) == 0
    _, probe = opened(page, width, scheme)
    assert probe["errors"] == []
    assert probe["images"] == [[64, 32]] * 12
    assert probe["shown"] == [True, "00000: validation", "00000: label"]
    assert probe["dots"] == 5 + 3  # of the plot: a dot for each network of either run
    assert probe["wide"] <= probe["window"] == width
    assert probe["background"] == ("rgb(251, 251, 250)" if scheme else "rgb(19, 21, 24)")
