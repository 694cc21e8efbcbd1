"""The report: its numbers are those of results.json, it is whole by itself, and a browser shows
it."""

import base64
import html
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.report import (
    Panel,
    Record,
    Report,
    Strip,
    beside,
    byte_size,
    data_url,
    most_moved,
    percent,
    points,
    symbol,
    with_gains,
    write_report,
)
from tests.browser import needs_browser, opened

ROWS = [
    {"stage": "source-only", "k": 0, "i": 0, "miou": 0.30, "few": 0.2, "seconds": 61.0},
    {"stage": "k1/segmentation-0", "k": 1, "i": 0, "miou": 0.427, "few": 0.5, "seconds": 30.0},
    {"stage": "k1/segmentation-1", "k": 1, "i": 1, "miou": 0.4, "few": None, "seconds": 3700.0},
]
IOU = [
    {"road": 0.5, "sky <b>": 0.4, "train": None},
    {"road": 0.904, "sky <b>": 0.4, "train": 0.1},
    {"road": 0.8, "sky <b>": 0.1, "train": 0.1},
]
ROWS = [{**row, "iou": iou} for row, iou in zip(ROWS, IOU, strict=True)]
# Of four road pixels three were right before, of which one became sky; no train was ever right.
MEASURES = {
    "images": 7,
    "target_images": 5,
    "drift": {
        "right_on_source": 0.65,
        "right_on_translation": 0.5,
        "broken": 0.3,
        "mended": None,
        "worst": [{"label": "road", "predicted": "sky <b>", "share": 1 / 3}],
        "on_source": [[3, 1, 0], [0, 8, 0], [1, 0, 0]],
        "on_translation": [[2, 2, 0], [0, 8, 0], [0, 0, 1]],
        "of_right": [[2, 1, 0], [0, 8, 0], [0, 0, 0]],
    },
    "kid": {
        "features": "<features>",
        "translated": {"mean": -0.0123, "std": 0.004},
        "source": None,
    },
    "ssim": 0.8765,
    "reconstruction_l1": None,
}
CLASSES = [("road", (128, 64, 128)), ("sky <b>", (70, 130, 180)), ("train", (0, 80, 100))]


def photo(width: int = 48, height: int = 24) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return Image.fromarray(values)


def labels() -> Image.Image:
    image = Image.fromarray(np.arange(48 * 24, dtype=np.uint8).reshape(24, 48) % 3)
    image.putpalette([channel for _, color in CLASSES for channel in color])
    return image


def record(name: str, kind: str, metrics: dict) -> Record:
    manifest = {
        "seconds": 12.0,
        "device": "cpu",
        "precision": "32-true",
        "processes": 1,
        "seed": 0,
        "finished": "2020-01-01T00:00:00+00:00",
        "versions": {"torch": "2.11.0"},
    }
    return Record(name, kind, manifest, metrics)


@pytest.fixture
def report() -> Report:
    curves = [{"step": 10, "source": 2.0, "lr": 1e-3}, {"step": 20, "source": 1.0, "lr": 5e-4}]
    translation = [
        {"step": 10, "cycle_a": 0.5, "cycle_b": 0.4, "lr": 2e-4},
        {"step": 20, "cycle_a": 0.3, "cycle_b": 0.2, "lr": 2e-4},
    ]
    kept = {"threshold": 0.75, "predicted": 30, "kept": 0.5}
    never = {"threshold": 0.0, "predicted": 0, "kept": 0.0}
    return Report(
        title="run <1>",
        rows=ROWS,
        records=[
            record("source-only", "segment", {"curves": curves, "warnings": ["loss <rose>"]}),
            record("k1/translator", "translate", {"curves": translation}),
            record(
                "k1/pseudo-labels-1",
                "pseudo-label",
                {"kept": 0.5, "classes": {"road": kept, "sky <b>": kept, "train": never}},
            ),
            record("k1/translated/measures", "measure", MEASURES),
            Record("k2/translator", "translate", None, None),
        ],
        strips=[
            Strip("source", "a", [Panel("source", photo()), Panel("F(1)", photo())]),
            Strip("validation", "x<y", [Panel("validation", photo()), Panel("label", labels())]),
        ],
        facts={"rounds, K": "1"},
        classes=CLASSES,
        subsets=["few"],
        command="bdl run --config demo",
        configuration="seed: 0",
    )


@pytest.fixture
def page(report: Report, tmp_path: Path) -> Path:
    file = tmp_path / "report.html"
    write_report(file, report)
    return file


class Table(HTMLParser):
    """The cells of the table with an id, by row."""

    def __init__(self, identity: str) -> None:
        super().__init__()
        self.identity, self.rows, self.inside = identity, [], False

    def handle_starttag(self, tag: str, attributes: list) -> None:
        if tag == "table":
            self.inside = dict(attributes).get("id") == self.identity
        if self.inside and tag == "tr":
            self.rows.append([])
        if self.inside and tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "table"

    def handle_data(self, data: str) -> None:
        if self.inside and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def results_cells(text: str) -> list[list[str]]:
    table = Table("results-table")
    table.feed(text)
    return table.rows


def expected_cells(rows: list[dict]) -> list[list[str]]:
    """What the table must say, computed from results.json alone."""

    def signed(value: float) -> str:
        return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")

    cells = []
    for place, row in enumerate(rows):
        few = "\N{EN DASH}" if row["few"] is None else f"{100 * row['few']:.1f}"
        first, before = rows[0]["miou"], rows[place - 1]["miou"]
        gains = [signed(row["miou"] - first), signed(row["miou"] - before)]
        cells.append(
            [str(row["k"]), str(row["i"]), f"{100 * row['miou']:.1f}", "", few]
            + (gains if place else ["\N{EN DASH}", "\N{EN DASH}"])
        )
    return cells


def test_the_table_says_what_results_say(page: Path) -> None:
    cells = results_cells(page.read_text(encoding="utf-8"))[1:]
    assert [row[1:-1] for row in cells] == expected_cells(ROWS)
    assert [row[-1] for row in cells] == ["1 min 01 s", "30 s", "1 h 01 min"]


def test_gains_by_hand() -> None:
    gains = [(row["gain"], row["step"]) for row in with_gains(ROWS)]
    assert gains[0] == (None, None)
    assert gains[1] == (pytest.approx(0.127), pytest.approx(0.127))
    assert gains[2] == (pytest.approx(0.1), pytest.approx(-0.027))


def test_without_source_only_there_is_no_gain_over_it() -> None:
    assert [row["gain"] for row in with_gains(ROWS[1:])] == [None, None]


def test_classes_that_moved_most() -> None:
    """From the first network to the last; a class without IoU in one of them has not moved."""
    moved = most_moved(ROWS)
    assert moved["gained"] == [("road", pytest.approx(0.3))]
    assert moved["lost"] == [("sky <b>", pytest.approx(-0.3))]


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        ("source-only", "M(0)"),
        ("k1/translator", "F(1)"),
        ("k2/translated/measures", "F(2)"),
        ("translated/measures", "given translations"),
        ("k12/segmentation-3", "M(12,3)"),
        ("k2/pseudo-labels-1", "pseudo labels for M(2,1)"),
        ("data/source", "data/source"),
    ],
)
def test_symbols(stage: str, text: str) -> None:
    assert symbol(stage) == text


def test_numbers_are_rounded_without_a_signed_zero() -> None:
    assert (percent(0.42749), percent(None)) == ("42.7", "\N{EN DASH}")
    assert (points(-0.0001), points(0.0004), points(-0.03)) == ("0.0", "0.0", "\N{MINUS SIGN}3.0")


def cells_of(text: str, table: str) -> list[list[str]]:
    found = Table(table)
    found.feed(text)
    return found.rows[1:]


def test_measures_of_translators_are_shown(page: Path) -> None:
    """Numbers that could not be taken are dashes."""
    text, dash = page.read_text(encoding="utf-8"), "\N{EN DASH}"
    (row,) = cells_of(text, "translations-table")
    assert row[:3] == ["F(1)", dash, "-0.012\N{PLUS-MINUS SIGN} 0.004"]
    assert row[3:] == ["0.876", dash, "65.0", "50.0", "30.0", dash]
    assert "Measured on 7 source images" in text and "&lt;features&gt;" in text


def test_the_drift_map_says_what_became_of_pixels_that_were_right(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert cells_of(text, "drift-k1/translated/measures") == [
        ["road", "75.0", "50.0", "67", "33", ""],
        ["sky <b>", "100.0", "100.0", "", "100", ""],
        ["train", "0.0", "100.0", "", "", ""],
    ]
    assert "sky &lt;b&gt; → road" not in text
    assert re.search(r"road → sky &lt;b&gt; <span.*>33.3 %</span>", text)


def test_without_measures_there_is_no_section_of_them(page: Path, report: Report) -> None:
    write_report(page, replace(report, records=report.records[:3]))
    assert 'id="translations"' not in page.read_text(encoding="utf-8")


def test_names_from_disk_are_escaped(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in ("run <1>", "sky <b>", "x<y", "loss <rose>"):
        assert name not in text
        assert html.escape(name) in text


def test_peak_memory_stands_beside_the_time_of_stages_that_know_it(
    page: Path, report: Report
) -> None:
    assert "peak memory" not in page.read_text(encoding="utf-8")
    assert report.records[0].manifest is not None
    report.records[0].manifest["peak_memory"] = 1_540_000_000
    write_report(page, report)
    (row,) = re.findall(
        r"<tr><th scope=\"row\">source-only</th>.*?</tr>", page.read_text(), re.DOTALL
    )
    assert "<td>1.5 GB</td>" in row
    assert "<th>peak memory</th>" in page.read_text() and "of the GPU" not in page.read_text()


def test_bytes_are_said_in_the_unit_that_fits() -> None:
    sizes = [byte_size(n) for n in (640_000_000, 999_600_000, 999_400_000, 1_540_000_000)]
    assert sizes == ["640 MB", "1.0 GB", "999 MB", "1.5 GB"]


def test_nothing_is_fetched(page: Path) -> None:
    """All that an element or the style sheet refers to is inside the file."""
    text = page.read_text(encoding="utf-8")
    for reference in re.findall(r'(?:src|href)="([^"]*)"', text):
        assert reference.startswith(("data:", "#"))
    assert (
        "url(" not in text
        and "@import" not in text
        and "http" not in text.replace("http-equiv", "")
    )


def test_warnings_and_stages_to_come_are_shown(page: Path, report: Report) -> None:
    text = page.read_text(encoding="utf-8")
    assert "1 warning" in text and "4 of 5 stages are finished" in text and "to come" in text
    assert "location.reload" not in text
    write_report(page, replace(report, working_on="k2/translator"))
    text = page.read_text(encoding="utf-8")
    assert "work on <strong>k2/translator</strong>" in text and "location.reload" in text


def test_a_run_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    stages = [Record("source-only", "segment", None, None)]
    write_report(tmp_path / "report.html", Report("new", [], stages, [], working_on="source-only"))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "0 of 1 stages are finished" in text and 'id="results"' not in text


def decoded(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_labels_are_embedded_exactly_and_photos_nearly() -> None:
    image = decoded(data_url(labels()))
    assert image.format == "PNG"
    assert np.array_equal(np.asarray(image), np.asarray(labels()))
    assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(labels().convert("RGB")))
    smooth = Image.fromarray(
        np.broadcast_to(np.arange(96, dtype=np.uint8)[:, None, None], (96, 96, 3)).copy()
    )
    difference = np.asarray(decoded(data_url(smooth)), int) - np.asarray(smooth, int)
    assert abs(difference).max() <= 8


def test_large_pictures_are_made_smaller_labels_without_new_classes() -> None:
    large = labels().resize((1500, 750), Image.Resampling.NEAREST)
    image = decoded(data_url(large))
    assert image.size == (640, 320)
    assert set(np.unique(np.asarray(image))) == {0, 1, 2}


def test_pictures_beside_each_other() -> None:
    joined = np.asarray(beside([Panel("photo", photo(10, 5)), Panel("labels", labels())]))
    assert joined.shape == (5, 20, 3)
    assert np.array_equal(joined[:, :10], np.asarray(photo(10, 5)))
    assert {tuple(pixel) for pixel in joined[:, 10:].reshape(-1, 3)} <= {c for _, c in CLASSES}


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, 1), (400, 0)], ids=["light", "dark, narrow"])
def test_a_browser_shows_it(page: Path, width: int, scheme: int) -> None:
    """No error, every picture decoded, the zoom works by click and key, nothing wider than the
    window, and the theme is the one asked for."""
    dom, probe = opened(page, width, scheme)
    assert probe["errors"] == []
    assert probe["images"] == [[48, 24]] * 4
    assert probe["shown"] == [True, "source a: source", "source a: F(1)"]
    assert probe["wide"] <= max(width, probe["window"])
    assert probe["background"] == ("rgb(251, 251, 250)" if scheme else "rgb(19, 21, 24)")
    assert [row[1:-1] for row in results_cells(dom)[1:]] == expected_cells(ROWS)
