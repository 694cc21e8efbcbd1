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
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bdl.reports.charts import COLORS, DARK, LIGHT
from bdl.reports.pictures import Panel, Strip, beside, data_url, hatched
from bdl.reports.records import Record, Row
from bdl.reports.report import (
    Report,
    byte_size,
    decimals,
    direction,
    most_moved,
    percent,
    points,
    score,
    with_gains,
    write_report,
)
from bdl.runtime.metrics import Metrics, TrainingMetrics
from bdl.runtime.store import Manifest
from bdl.segmentation.metrics import EvaluationMetrics, PseudoLabelClass, PseudoLabelMetrics
from bdl.translation.metrics import (
    Confused,
    Distances,
    Drift,
    KernelDistance,
    MeasureMetrics,
    TranslatorMetrics,
    Trust,
)
from tests.helpers.browser import needs_browser, opened

IOU = [
    {"road": 0.5, "sky <b>": 0.4, "train": None},
    {"road": 0.904, "sky <b>": 0.4, "train": 0.1},
    {"road": 0.8, "sky <b>": 0.1, "train": 0.1},
]
ROWS = [
    Row("source-only", 0, 0, 0.30, {"few": 0.2}, IOU[0], 61.0),
    Row("k1/segmentation-0", 1, 0, 0.427, {"few": 0.5}, IOU[1], 30.0),
    Row("k1/segmentation-1", 1, 1, 0.4, {"few": None}, IOU[2], 3700.0),
]
UNMEASURED = [replace(row, miou=None, subsets={}, iou={}) for row in ROWS]
# Of four road pixels three were right before, of which one became sky; no train was ever right.
MEASURES = MeasureMetrics(
    images=7,
    target_images=5,
    drift=Drift(
        right_on_source=0.65,
        right_on_translation=0.5,
        lost=0.3,
        recovered=None,
        worst=[Confused(label=0, predicted=1, share=1 / 3)],
        on_source=[[3, 1, 0], [0, 8, 0], [1, 0, 0]],
        on_translation=[[2, 2, 0], [0, 8, 0], [0, 0, 1]],
        of_right=[[2, 1, 0], [0, 8, 0], [0, 0, 0]],
    ),
    kid=Distances("<features>", translated=KernelDistance(-0.0123, 0.004), source=None),
    ssim=0.8765,
    reconstruction_l1=None,
)
CLASSES = [("road", (128, 64, 128)), ("sky <b>", (70, 130, 180)), ("train", (0, 80, 100))]


def photo(width: int = 48, height: int = 24) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return Image.fromarray(values)


def labels() -> Image.Image:
    image = Image.fromarray(np.arange(48 * 24, dtype=np.uint8).reshape(24, 48) % 3)
    image.putpalette([channel for _, color in CLASSES for channel in color])
    return image


def record(name: str, kind: str, k: int, symbol: str, metrics: Metrics) -> Record:
    manifest = Manifest(
        seconds=12.0,
        device="cpu",
        precision="32-true",
        processes=1,
        seed=0,
        finished="2020-01-01T00:00:00+00:00",
        versions={"torch": "2.11.0"},
    )
    return Record(name, kind, k, 0, symbol, Path(), manifest, metrics)


@pytest.fixture
def report() -> Report:
    curves = [{"step": 10, "source": 2.0, "lr": 1e-3}, {"step": 20, "source": 1.0, "lr": 5e-4}]
    translation = [
        {"step": 10, "cycle_a": 0.5, "cycle_b": 0.4, "lr": 2e-4},
        {"step": 20, "cycle_a": 0.3, "cycle_b": 0.2, "lr": 2e-4},
    ]
    kept = PseudoLabelClass(threshold=0.75, predicted=30, kept=0.5)
    never = PseudoLabelClass(threshold=0.0, predicted=0, kept=0.0)
    trained = TrainingMetrics(["loss <rose>"], steps=20, curves=curves)
    labels_for = "pseudo labels for M(1,1)"
    return Report(
        title="run <1>",
        rows=ROWS,
        records=[
            record("source-only", "segment", 0, "M(0)", trained),
            record("k1/translator", "translate", 1, "F(1)", TrainingMetrics(curves=translation)),
            record(
                "k1/pseudo-labels-1",
                "pseudo-label",
                1,
                labels_for,
                PseudoLabelMetrics(kept=0.5, classes=[kept, kept, never]),
            ),
            record("k1/translated/measures", "measure", 1, "F(1)", MEASURES),
            Record("k2/translator", "translate", 2, 0, "F(2)", Path()),
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


def test_the_page_and_charts_have_the_same_colours(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for colors in (LIGHT, DARK):
        named = [f"--c{number}: {color};" for number, color in enumerate(colors)]
        assert " ".join(named) in text and len(colors) == COLORS


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


def expected_cells(rows: list[Row]) -> list[list[str]]:
    """What the table must say, computed from the rows alone."""

    def signed(value: float) -> str:
        return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")

    cells = []
    for number, row in enumerate(rows):
        few = "\N{EN DASH}" if row.subsets["few"] is None else f"{100 * row.subsets['few']:.1f}"
        first, before = rows[0].miou, rows[number - 1].miou
        assert row.miou is not None and first is not None and before is not None
        gains = [signed(row.miou - first), signed(row.miou - before)]
        cells.append(
            [str(row.k), str(row.i), f"{100 * row.miou:.1f}", "", few]
            + (gains if number else ["\N{EN DASH}", "\N{EN DASH}"])
        )
    return cells


def test_the_table_says_what_results_say(page: Path) -> None:
    cells = results_cells(page.read_text(encoding="utf-8"))[1:]
    assert [row[1:-1] for row in cells] == expected_cells(ROWS)
    assert [row[-1] for row in cells] == ["1 min 01 s", "30 s", "1 h 01 min"]


def test_gains_by_hand() -> None:
    gains = [(network.gain, network.step) for network in with_gains(ROWS)]
    assert gains[0] == (None, None)
    assert gains[1] == (pytest.approx(0.127), pytest.approx(0.127))
    assert gains[2] == (pytest.approx(0.1), pytest.approx(-0.027))


def test_without_source_only_there_is_no_gain_over_it() -> None:
    assert [network.gain for network in with_gains(ROWS[1:])] == [None, None]


def test_classes_that_moved_most() -> None:
    """From the first network to the last; a class without IoU in one of them has not moved."""
    moved = most_moved(ROWS)
    assert moved["gained"] == [("road", pytest.approx(0.3))]
    assert moved["lost"] == [("sky <b>", pytest.approx(-0.3))]


def test_numbers_are_rounded_without_a_signed_zero() -> None:
    assert (percent(0.42749), percent(None)) == ("42.7", "\N{EN DASH}")
    assert (points(-0.0), points(1e-13), points(-0.03)) == ("0.0", "0.0", "\N{MINUS SIGN}3.0")
    assert (percent(-0.0), percent(0), decimals(0.0), decimals(None)) == (
        "0.0",
        "0.0",
        "0.000",
        "\N{EN DASH}",
    )
    assert (score(0.42749), score(None)) == ("42.7", "not measured")


@given(st.integers(-99_999, 99_999))
def test_points_are_rounded_halves_away_from_zero(hundredths: int) -> None:
    """As whole numbers of hundredths of a point say; what is less than a tenth keeps its first
    figure; and only what is 0 is shown as 0.0, neither good nor bad."""
    text = points(hundredths / 10_000)
    tenths = (abs(hundredths) + 5) // 10
    sign = "" if not hundredths else "\N{MINUS SIGN}" if hundredths < 0 else "+"
    size = f"{tenths // 10}.{tenths % 10}" if tenths or not hundredths else f"0.0{abs(hundredths)}"
    assert text == sign + size
    assert direction(hundredths / 10_000) == {"": "", "+": "good"}.get(sign, "bad")


@given(st.floats(-1, 1).filter(lambda value: abs(value) > 1e-9))
def test_what_is_not_nothing_is_never_shown_as_nothing(value: float) -> None:
    for shown in (points(value), percent(value), decimals(value)):
        number = float(shown.replace("\N{MINUS SIGN}", "-"))
        assert number and (number > 0) == (value > 0)


def test_a_class_that_hardly_changed_is_not_named_as_gaining_or_losing() -> None:
    rows = [ROWS[0], replace(ROWS[1], iou={"road": 0.4998, "sky <b>": 0.4004, "train": None})]
    assert most_moved(rows) == {"gained": [], "lost": []}


def cells_of(text: str, table: str) -> list[list[str]]:
    parser = Table(table)
    parser.feed(text)
    return parser.rows[1:]


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
    assert re.search(r"road → sky &lt;b&gt; <span.*>33.3&nbsp;%</span>", text)


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
    report.records[0].manifest.peak_memory = 1_540_000_000
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
    stages = [Record("source-only", "segment", 0, 0, "M(0)", Path())]
    write_report(tmp_path / "report.html", Report("new", [], stages, [], working_on="source-only"))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "0 of 1 stages are finished" in text and 'id="results"' not in text


def test_without_validation_the_page_shows_all_but_scores(page: Path, report: Report) -> None:
    write_report(page, replace(report, rows=UNMEASURED))
    text = page.read_text(encoding="utf-8")
    dash = "\N{EN DASH}"
    cells = results_cells(text)[1:]
    assert [row[3] for row in cells] == ["not measured"] * 3
    assert [row[4:-1] for row in cells] == [["", dash, dash, dash]] * 3
    assert 'id="classes"' not in text and "best" not in text
    for section in ("pictures", "translations", "curves", "pseudo-labels", "stages"):
        assert f'id="{section}"' in text


def test_a_network_without_scores_among_others_leaves_gaps_alone(
    page: Path, report: Report
) -> None:
    """Of labels without a known class no mean exists."""
    write_report(page, replace(report, rows=[ROWS[0], UNMEASURED[1], ROWS[2]]))
    cells = results_cells(page.read_text(encoding="utf-8"))[1:]
    assert [row[3] for row in cells] == ["30.0", "not measured", "40.0"]
    assert cells[2][-3:-1] == ["+10.0", "\N{EN DASH}"]


def test_what_is_not_of_the_configuration_is_marked(page: Path, report: Report) -> None:
    """In the table of results, in every section of the stage's own, and beside its time."""
    assert "of the configuration as it is" not in page.read_text(encoding="utf-8")
    notes = [f"made from an earlier <{number}>" for number in range(5)]
    records = [replace(r, note=note) for r, note in zip(report.records, notes, strict=True)]
    rows = [ROWS[0], replace(ROWS[1], note="made with other <settings>"), ROWS[2]]
    write_report(page, replace(report, rows=rows, records=records[:4]))
    text = page.read_text(encoding="utf-8")
    marks = [html.unescape(mark) for mark in re.findall(r'class="note">(.*?)</span>', text)]
    assert marks.count("made with other <settings>") == 3  # best, the table's row, and the classes'
    assert [marks.count(note) for note in notes[:4]] == [1, 1, 2, 2]
    assert "4 are not of the configuration as it is" in text


def test_a_stage_that_is_the_same_as_another_is_said_to_be_and_its_time_counts_once(
    page: Path, report: Report
) -> None:
    first = report.records[1]
    assert first.manifest is not None
    same = replace(first, stage="k2/translator", k=2, symbol="F(2)")
    same = replace(same, manifest=replace(first.manifest, same_as="k1/translator"))
    write_report(page, replace(report, records=[first, same]))
    text = page.read_text(encoding="utf-8")
    assert "the same as k1/translator" in text
    assert '<dd class="big">12 s</dd><dd class="small">sum over 2 stages</dd>' in text
    assert "Training translators 12 s." in text


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


@pytest.mark.parametrize("size", [(1, 1), (24, 17_000), (70_000, 3), (3, 70_000)])
def test_pictures_of_odd_shapes_are_embedded(size: tuple[int, int]) -> None:
    for image in (Image.new("RGB", size), Image.new("P", size)):
        shown = decoded(data_url(image))
        assert min(shown.size) >= 1 and shown.width <= 640 and shown.height <= 2560
    joined = beside([Panel("photo", photo(10, 5)), Panel("odd", Image.new("RGB", size))])
    assert joined.height == 5


def test_pictures_beside_each_other() -> None:
    joined = np.asarray(beside([Panel("photo", photo(10, 5)), Panel("labels", labels())]))
    assert joined.shape == (5, 20, 3)
    assert np.array_equal(joined[:, :10], np.asarray(photo(10, 5)))
    assert {tuple(pixel) for pixel in joined[:, 10:].reshape(-1, 3)} <= {c for _, c in CLASSES}


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, 1), (400, 0)], ids=["light", "dark, narrow"])
def test_a_browser_shows_it(report: Report, page: Path, width: int, scheme: int) -> None:
    """No error, every picture decoded, those of a row as high as each other, the zoom works by
    click and key, nothing wider than the window, and the theme is the one asked for."""
    long = record("k1/segmentation-0/evaluation", "evaluate", 1, "M(1,0)", Metrics())
    peaks = {"seconds": 3599.0, "peak_memory": 10**9, "peak_gpu_memory": 10**9}
    assert long.manifest is not None
    report.records.append(replace(long, manifest=replace(long.manifest, **peaks)))
    write_report(page, report)
    dom, probe = opened(page, width, scheme)
    assert probe["errors"] == []
    assert probe["images"] == [[48, 24]] * 4 and probe["heights"] == [1] * 2
    assert probe["shown"] == [True, "source a: source", "source a: F(1)"]
    assert probe["wide"] <= probe["window"] == width
    assert probe["background"] == ("rgb(251, 251, 250)" if scheme else "rgb(19, 21, 24)")
    assert [row[1:-1] for row in results_cells(dom)[1:]] == expected_cells(ROWS)


def test_shares_of_classes_stand_side_by_side(page: Path) -> None:
    """By hand: 4, 8 and 1 source pixels; 30 and 30 predicted, of which the same share is kept."""
    text = page.read_text(encoding="utf-8")
    rows = cells_of(text, "shares-table")
    assert [row[1:] for row in rows] == [
        [f"{100 * n / 13:.1f}", share, share] for n, share in ((4, "50.0"), (8, "50.0"), (1, "0.0"))
    ]


def test_the_confusion_of_the_last_network_is_shown_in_shares(
    report: Report, tmp_path: Path
) -> None:
    """Each row of its label's pixels; a class without labels has none, and hardly any is empty."""
    first = EvaluationMetrics(miou=0.1, iou=[0.1] * 3, confusion=[[1, 0, 0]] * 3)
    last = EvaluationMetrics(miou=0.1, iou=[0.1] * 3, confusion=[[75, 25, 0], [1, 999, 0], [0] * 3])
    for number, metrics in enumerate((first, last)):
        report.records.append(record(f"{number}", "evaluate", 1, f"M(1,{number})", metrics))
    write_report(tmp_path / "page.html", report)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    rows = cells_of(text, "confusion-table")
    assert [row[1:] for row in rows] == [["75", "25", ""], ["", "100", ""], ["not labelled"]]
    assert "What M(1,1) takes each class for" in text


@given(st.integers(1, 200), st.integers(1, 60), st.integers(0, 5))
def test_ignored_pixels_look_like_no_class(width: int, height: int, seed: int) -> None:
    """Not even like a black one; all others keep their colours."""
    random = np.random.default_rng(seed)
    ids = random.choice([0, 1, 255], (height, width)).astype(np.uint8)
    image = Image.fromarray(ids)
    image.putpalette([0, 0, 0, 90, 90, 90] + [0] * 762)
    before, after = np.asarray(image.convert("RGB")), np.asarray(hatched(image).convert("RGB"))
    assert np.array_equal(before[ids != 255], after[ids != 255])
    shown = {tuple(color) for color in after[ids == 255].tolist()}
    assert shown.isdisjoint({(0, 0, 0), (90, 90, 90)}) and len(shown) <= 2


def test_ignored_areas_are_striped() -> None:
    image = Image.fromarray(np.full((40, 160), 255, np.uint8))
    image.putpalette([0] * 768)
    assert len({tuple(c) for c in np.asarray(hatched(image).convert("RGB"))[0].tolist()}) == 2
    assert hatched(photo()).mode == "RGB"


def test_trust_is_shown_and_faults_only_where_the_network_knows_the_target(tmp_path, report):
    """Of the labels three quarters are sky; a network that sees trains alone says nothing."""
    write_report(tmp_path / "known.html", report)
    known = (tmp_path / "known.html").read_text(encoding="utf-8")
    assert (
        "says nothing" not in known
        and "Most often" in known
        and "perceptual terms, by" not in known
    )
    trust = Trust(0.25, 0.4875, 0.7, 0.8, [0, 0, 9], [4, 8, 1])
    records = [
        replace(item, metrics=replace(item.metrics, on_target=[0, 0, 9]))
        if isinstance(item.metrics, MeasureMetrics)
        else item
        for item in report.records
    ]
    records.append(record("k1/translator", "translate", 1, "F(1)", TranslatorMetrics(trust=trust)))
    write_report(tmp_path / "unknown.html", replace(report, records=records))
    unknown = (tmp_path / "unknown.html").read_text(encoding="utf-8")
    assert "says nothing: the network does not know the target" in unknown
    assert "Most often" not in unknown
    assert "F(1) 25 %; classes overlap by 49 %" in unknown


def test_changed_pseudo_labels_are_shown(tmp_path, report):
    records = [
        replace(item, metrics=replace(item.metrics, changed=0.125))
        if isinstance(item.metrics, PseudoLabelMetrics)
        else item
        for item in report.records
    ]
    write_report(tmp_path / "report.html", replace(report, records=records))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "12.5 % of what was labelled before is another class" in text
