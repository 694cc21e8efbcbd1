"""The run's report: one HTML file with the results, curves and images of what is there."""

import datetime
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup
from PIL import Image

from bdl.reports.charts import DARK, LIGHT, Line, line_chart
from bdl.reports.pictures import RIGHT, WRONG, Panel, Strip
from bdl.reports.records import Record, Row, trained
from bdl.runtime.console import duration
from bdl.runtime.files import write_text
from bdl.runtime.live import Progress
from bdl.runtime.metrics import TrainingMetrics
from bdl.runtime.store import Manifest
from bdl.runtime.yaml_text import to_line
from bdl.segmentation.metrics import EvaluationMetrics, PseudoLabelMetrics
from bdl.segmentation.stages import TrainedSegmenter
from bdl.translation.metrics import Drift, MeasureMetrics, TranslatorMetrics, Trust
from bdl.translation.stages import TrainedTranslator

if TYPE_CHECKING:
    import jinja2

Color = tuple[int, int, int]

NOT_MEASURED = "not measured"
_DASH, _MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
_FEW = 0.01  # of a class's pixels: with fewer right, what became of them is not shown
_SAMPLED = 5  # pictures in a row of samples: the source and four steps
_RELOADED = 30  # seconds until the page of a run that goes on is loaded again
_SOON = 10  # the same while the training that has begun has shown nothing yet
_SILENT = 15  # minutes without news after which a page says so
_MOVED = 4  # classes that are named as having gained or lost most
_TINY = 0.0005  # change of a class's IoU that is not worth being named

# The terms of both trainings in the order in which their charts stand.
_TERMS = {
    "miou": "mIoU on the validation images, %",
    "source": "cross entropy, source",
    "target_labels": "cross entropy, labelled target images",
    "pseudo_labels": "cross entropy, pseudo labels",
    "adversarial": "adversarial",
    "discriminator": "discriminator",
    "cycle": "cycle",
    "identity": "identity",
    "perceptual": "perceptual",
    "perceptual_reconstruction": "perceptual, of the reconstruction",
    "lr": "learning rate",
}
_KINDS = {
    "render": "rendering",
    "translate": "training translators",
    "export": "translating",
    "measure": "measuring translations",
    "segment": "training segmentation",
    "pseudo-label": "pseudo-labelling",
    "evaluate": "evaluation",
}


@dataclass
class Live:
    """The training that goes on.

    Args:
        symbol: Of its network.
        progress: How far it has come; None before it has shown anything.
        samples: A picture of each sample, by sample and step.
        batch: What it learns from.
    """

    symbol: str
    progress: Progress | None = None
    samples: dict[str, list[Panel]] = field(default_factory=dict)
    batch: list[Strip] = field(default_factory=list)

    def go_on(self, progress: Progress) -> None:
        """Take note of how far it has come."""
        self.progress = progress
        for sample in progress.samples:
            before = [Panel("source", Image.fromarray(sample.before))]
            panels = self.samples.setdefault(sample.name, before)
            panels.append(Panel(f"step {progress.done}", Image.fromarray(sample.after)))
            if len(panels) > _SAMPLED:  # every second one goes, and the latest stays
                panels[1:] = panels[:0:-2][::-1]

    @property
    def seconds_left(self) -> float | None:
        """What the training and the stages after it will take; None while unknown."""
        progress = self.progress
        if progress is None or progress.seconds_left is None or progress.seconds_after is None:
            return None
        return progress.seconds_left + progress.seconds_after

    @property
    def strips(self) -> list[Strip]:
        """The samples as a table of pictures."""
        return [Strip("sample", name, panels) for name, panels in self.samples.items()]

    @property
    def charts(self) -> "Charts | None":
        """Its curves so far; None while they are no lines."""
        if self.progress is None or len(self.progress.curves) < 2:
            return None
        metrics = TrainingMetrics(
            curves=list(self.progress.curves), validation=list(self.progress.validation)
        )
        return curve_charts([(self.symbol, 1, metrics)])


@dataclass
class Report:
    """What a report is made from.

    Args:
        title: Of the page.
        rows: The rows of results.json.
        records: All the loop's stages.
        strips: Pictures of the followed frames.
        facts: What was run, by what it is about.
        classes: Names and colours (RGB, 0..255) by train id.
        subsets: Names of the means over subsets of the classes.
        command: What makes the run anew.
        configuration: As YAML.
        working_on: Name of the stage that is being made, if one is.
        live: How its training goes on, once it has shown something.
        seconds_left: What that stage and those after it will take; None while unknown.
        stopped: Why the stage is not made any further, if something stopped the run.
        worst: The validation images on which a network errs most.
        batches: By the network's symbol, images that it learned from.
        warnings: What was warned of before the first stage.
    """

    title: str
    rows: list[Row]
    records: list[Record]
    strips: list[Strip]
    facts: dict[str, str] = field(default_factory=dict)
    classes: list[tuple[str, Color]] = field(default_factory=list)
    subsets: list[str] = field(default_factory=list)
    command: str = ""
    configuration: str = ""
    working_on: str | None = None
    live: Live | None = None
    seconds_left: float | None = None
    stopped: str | None = None
    worst: "Worst | None" = None
    batches: dict[str, list[Strip]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def panels(self) -> Iterator[Panel]:
        """All its pictures but those of a training that goes on."""
        worst = self.worst.strips if self.worst is not None else []
        for strip in chain(self.strips, worst, *self.batches.values()):
            yield from strip.panels


@dataclass
class Worst:
    """The validation images on which a network errs most, the worst first; frames of `strips`
    say how much of them is right."""

    symbol: str
    strips: list[Strip]


@dataclass
class Network:
    """A row with its gains as fractions, None where there is none: `gain` over source only,
    `step` over the row before."""

    row: Row
    gain: float | None
    step: float | None


@dataclass
class ClassRow:
    """A class: its name and colour, its IoU by network, and the change from first to last."""

    name: str
    color: Color
    iou: list[float | None]
    change: float | None


@dataclass
class DriftRow:
    """What became of a class in translation.

    Args:
        name: Of the class.
        color: Of the class.
        before: Share of its pixels that the frozen network has right on the source.
        after: The same on the translation.
        cells: Of those right on the source, the share that is taken for each class on the
            translation; None where hardly any were right: a few pixels are no pattern.
    """

    name: str
    color: Color
    before: float | None
    after: float | None
    cells: list[float | None]


@dataclass
class Translation:
    """What a translator changes; `worst` holds names of classes (label, prediction) and shares;
    empty where the frozen network does not know the target, and so finds no faults."""

    record: Record
    metrics: MeasureMetrics
    worst: list[tuple[str, str, float]]
    drift: list[DriftRow]


@dataclass
class ClassShares:
    """The share of each class in labelled pixels.

    Args:
        titles: What each column counts: source labels, then predictions on the target and the
            pseudo labels made of them, by self-training step.
        rows: Each class's name, colour and shares by column; they add up to 1 in each column, but
            for one that has no pixels, where they are None.
    """

    titles: list[str]
    rows: list[tuple[str, Color, list[float | None]]]


@dataclass
class Confusion:
    """What a network takes each class for.

    Args:
        record: Its evaluation.
        rows: Each class's name, colour, and of its labelled pixels the share that is predicted as
            each class; None for a class without any.
    """

    record: Record
    rows: list[tuple[str, Color, list[float] | None]]


@dataclass
class ClassLabels:
    """Of one class in pseudo labels: the share of all pixels predicted as it, its threshold, and
    the share of its pixels that were kept; both None where it was never predicted."""

    share: float
    threshold: float | None
    kept: float | None


@dataclass
class PseudoLabelling:
    """Pseudo labels, `classes` by train id. `changed` is the share that changed since those before,
    None of the first."""

    record: Record
    kept: float
    changed: float | None
    classes: list[ClassLabels]


@dataclass
class Charts:
    """Charts by title, and the names and colours of their lines."""

    legend: list[tuple[str, int]]
    charts: list[tuple[str, Markup]]


@dataclass
class StageLine:
    """A stage, its share of the longest stage's time in %, and its peaks in bytes by column."""

    record: Record
    share: float
    memory: list[int | None]


@dataclass
class Page:
    """All that the template shows."""

    report: Report
    written: str
    written_at: int  # milliseconds since 1970
    finished: list[Record]
    networks: list[Network]
    best: Row | None
    heat: list[ClassRow]
    moved: dict[str, list[tuple[str, float]]]
    roles: dict[str, list[Strip]]
    zoom: bool
    reloaded: int
    segmentation_charts: Charts | None
    translation_charts: Charts | None
    translations: list[Translation]
    trust: list[tuple[str, Trust]]
    pseudo_labels: list[PseudoLabelling]
    shares: ClassShares | None
    confusion: Confusion | None
    stages: list[StageLine]
    memory: list[str]
    kinds: list[tuple[str, float]]
    seconds: float
    warnings: list[tuple[str, str]]
    made_with: dict[str, str]


@cache
def template(name: str) -> "jinja2.Template":
    """A page's template beside this file; all pages share the report's style and its zoom."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "score": score,
        "points": points,
        "direction": direction,
        "duration": duration,
        "decimals": decimals,
        "setting": to_line,
        "breakable": breakable,
        "size": byte_size,
        "color": "#{0[0]:02x}{0[1]:02x}{0[2]:02x}".format,
    }
    environment.globals |= {
        "difference": difference,
        "silent": _SILENT,
        "right": RIGHT,
        "wrong": WRONG,
        "light": LIGHT,
        "dark": DARK,
    }
    return environment.get_template(name)


def write_report(file: Path, report: Report) -> None:
    """Write the report, self-contained: it opens from disk, without a network."""
    write_text(file, template("report.html.j2").render(vars(page_of(report))))


def page_of(report: Report) -> Page:
    """All that the template shows of a report."""
    finished = [record for record in report.records if record.manifest is not None]
    columns = memory_columns(finished)
    return Page(
        report=report,
        written=now(),
        written_at=round(1000 * time.time()),
        finished=finished,
        networks=with_gains(report.rows),
        best=best_of(report.rows),
        heat=heat_map(report),
        moved=most_moved(report.rows),
        roles={strip.role: strips_of(report.strips, strip.role) for strip in report.strips},
        zoom=bool(report.strips or (report.live and report.live.progress) or report.batches),
        reloaded=_SOON if report.live is None else _RELOADED,
        segmentation_charts=training_charts(finished, TrainedSegmenter.kind),
        translation_charts=training_charts(finished, TrainedTranslator.kind),
        translations=translations(finished, report.classes),
        trust=[
            (record.symbol, record.metrics.trust)
            for record in finished
            if isinstance(record.metrics, TranslatorMetrics) and record.metrics.trust is not None
        ],
        pseudo_labels=pseudo_labels(finished),
        shares=class_shares(finished, report.classes),
        confusion=last_confusion(finished, report.classes),
        stages=stage_lines(report.records, list(columns.values())),
        memory=list(columns),
        kinds=kind_times(finished),
        seconds=sum(record.seconds for record in finished),
        warnings=[("data and settings", text) for text in report.warnings] + warnings(finished),
        made_with=made_with([r.manifest for r in finished if r.manifest is not None]),
    )


def now() -> str:
    """When a page is written, for its reader."""
    return _clock(datetime.datetime.now())


def _clock(time: datetime.datetime) -> str:
    """A date and a time of the day, where the reader is."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M %Z")


# Numbers


def percent(value: float | None) -> str:
    """0.4273 as 42.7, and what is not 0 never as 0.0; a dash for None."""
    if value is None:
        return _DASH
    text = f"{100 * value:.1f}"
    return f"{_rounded_points(value):f}" if text in ("0.0", "-0.0") else text


def score(value: float | None) -> str:
    """The same of a measurement; for None it says so."""
    return NOT_MEASURED if value is None else percent(value)


def points(value: float | None) -> str:
    """A difference in percentage points, with its sign, halves away from zero, and what is not 0
    never as 0.0; a dash for None."""
    return _DASH if value is None else signed(value).replace("-", _MINUS)


def signed(value: float) -> str:
    """The same for plain text."""
    rounded = _rounded_points(value)
    return f"{rounded:+f}" if rounded else "0.0"


def decimals(value: float | None) -> str:
    """0.8765 as 0.877, and what is not 0 never as 0.000; a dash for None."""
    if value is None:
        return _DASH
    text = f"{value:.3f}"
    return text if float(text) or not value else f"{Decimal(f'{value:.0e}'):f}"


def direction(value: float | None) -> str:
    """The style of a difference: "good", "bad", or "" for None and none."""
    rounded = Decimal(0) if value is None else _rounded_points(value)
    return "good" if rounded > 0 else "bad" if rounded < 0 else ""


def _rounded_points(value: float) -> Decimal:
    """In points with one decimal, or, of less than that, with the first that is not 0."""
    # Of the shortest decimal that is this float: 0.05 points are a half, whatever 0.0005 is.
    exact = Decimal(repr(round(100 * value, 9)))
    rounded = exact.quantize(Decimal("0.1"), ROUND_HALF_UP)
    if exact and not rounded:
        rounded = exact.quantize(Decimal(1).scaleb(exact.adjusted()), ROUND_HALF_UP)
    return rounded + 0  # which makes 0 of -0


def difference(one: float | None, other: float | None) -> float | None:
    """`one` less `other`; None where either is."""
    return None if one is None or other is None else one - other


def breakable(name: str) -> Markup:
    """A name that a line may end in behind a dot, an underscore or a slash."""
    return Markup("<wbr>").join(Markup.escape(part) for part in re.split(r"(?<=[._/])", name))


def byte_size(number: float) -> str:
    """Bytes as a person says them: 640 MB, 1.5 GB."""
    return f"{number / 1e9:.1f} GB" if number >= 999.5e6 else f"{number / 1e6:.0f} MB"


# Networks and classes


def with_gains(rows: Sequence[Row]) -> list[Network]:
    """The rows with their gains over source only and over the row before."""
    first = next((row.miou for row in rows if row.k == 0), None)
    return [
        Network(
            row,
            gain=difference(row.miou, first) if row.k > 0 else None,
            step=difference(row.miou, rows[number - 1].miou) if number else None,
        )
        for number, row in enumerate(rows)
    ]


def best_of(rows: Sequence[Row]) -> Row | None:
    """The first row of the highest mIoU; None where none is measured."""
    measured = [(row.miou, row) for row in rows if row.miou is not None]
    return max(measured, key=lambda item: item[0])[1] if measured else None


def class_changes(rows: Sequence[Row]) -> dict[str, float]:
    """For each class, IoU of the last network less that of the first, where both have one."""
    if len(rows) < 2:
        return {}
    first, last = rows[0].iou, rows[-1].iou
    changes = {name: difference(last.get(name), first[name]) for name in first}
    return {name: change for name, change in changes.items() if change is not None}


def most_moved(rows: Sequence[Row]) -> dict[str, list[tuple[str, float]]]:
    """The classes that gained and lost most, most first; those that moved the other way, or hardly,
    are not in a list."""
    changes = sorted(class_changes(rows).items(), key=lambda item: item[1])
    return {
        "gained": [item for item in reversed(changes) if item[1] >= _TINY][:_MOVED],
        "lost": [item for item in changes if item[1] <= -_TINY][:_MOVED],
    }


def heat_map(report: Report) -> list[ClassRow]:
    """A row for each class."""
    changes = class_changes(report.rows)
    return [
        ClassRow(name, color, [row.iou.get(name) for row in report.rows], changes.get(name))
        for name, color in report.classes
    ]


# Translations and pseudo labels


def translations(
    records: Sequence[Record], classes: Sequence[tuple[str, Color]]
) -> list[Translation]:
    """What each translator that was measured changes."""
    measured = []
    for record in records:
        metrics = record.metrics
        if isinstance(metrics, MeasureMetrics) and metrics.drift is not None:
            drift = metrics.drift
            faults = drift.worst if metrics.knows_target else []
            worst = [(classes[w.label][0], classes[w.predicted][0], w.share) for w in faults]
            measured.append(Translation(record, metrics, worst, drift_map(drift, classes)))
    return measured


def drift_map(drift: Drift, classes: Sequence[tuple[str, Color]]) -> list[DriftRow]:
    """A row for each class."""
    rows = []
    for train_id, (name, color) in enumerate(classes):
        before, after = drift.on_source[train_id], drift.on_translation[train_id]
        of_right = drift.of_right[train_id]
        pixels, right = sum(before), sum(of_right)
        shown = right > 0 and right >= _FEW * pixels
        rows.append(
            DriftRow(
                name,
                color,
                before=before[train_id] / pixels if pixels else None,
                after=after[train_id] / pixels if pixels else None,
                cells=[count / right if shown else None for count in of_right],
            )
        )
    return rows


def pseudo_labels(records: Sequence[Record]) -> list[PseudoLabelling]:
    """Thresholds and shares of all pseudo labels that were made."""
    return [
        PseudoLabelling(
            record, record.metrics.kept, record.metrics.changed, class_labels(record.metrics)
        )
        for record in records
        if isinstance(record.metrics, PseudoLabelMetrics)
    ]


def class_labels(metrics: PseudoLabelMetrics) -> list[ClassLabels]:
    """Shares by train id."""
    pixels = sum(one.predicted for one in metrics.classes)
    return [
        ClassLabels(one.predicted / pixels, one.threshold, one.kept)
        if one.predicted
        else ClassLabels(0.0, None, None)
        for one in metrics.classes
    ]


def class_shares(
    records: Sequence[Record], classes: Sequence[tuple[str, Color]]
) -> ClassShares | None:
    """Shares of the classes in source and target, side by side; None before pseudo labels are made.

    Source labels are counted on the images that a translator was measured on.
    """
    counts: list[tuple[str, list[float]]] = []
    for record in records:
        metrics = record.metrics
        if isinstance(metrics, MeasureMetrics) and metrics.drift is not None and not counts:
            counts.append(("source labels", [float(sum(row)) for row in metrics.drift.on_source]))
    labelled = [record for record in records if isinstance(record.metrics, PseudoLabelMetrics)]
    for record in labelled:
        assert isinstance(record.metrics, PseudoLabelMetrics)
        of, made = f"M({record.k},{record.i - 1}) on the target", record.metrics.classes
        counts.append((of, [float(one.predicted) for one in made]))
        counts.append((record.symbol, [one.predicted * one.kept for one in made]))
    if not labelled:
        return None
    shares = [[n / sum(column) if any(column) else None for n in column] for _, column in counts]
    return ClassShares(
        [title for title, _ in counts],
        [(*named, [column[i] for column in shares]) for i, named in enumerate(classes)],
    )


def last_confusion(
    records: Sequence[Record], classes: Sequence[tuple[str, Color]]
) -> Confusion | None:
    """The confusion matrix of the last network that was evaluated, each row in shares of it."""
    for record in reversed(records):
        metrics = record.metrics
        if isinstance(metrics, EvaluationMetrics) and any(map(any, metrics.confusion)):
            shares = [
                [count / sum(row) for count in row] if any(row) else None
                for row in metrics.confusion
            ]
            rows = [(*named, row) for named, row in zip(classes, shares, strict=True)]
            return Confusion(record, rows)
    return None


def strips_of(strips: Iterable[Strip], role: str) -> list[Strip]:
    """The strips of one role."""
    return [strip for strip in strips if strip.role == role]


# Curves


def training_charts(records: Sequence[Record], kind: str) -> Charts | None:
    """The charts of all finished trainings of that kind; None before the first."""
    return curve_charts(
        [
            (record.symbol, color, metrics)
            for color, (record, metrics) in enumerate(trained(records, kind))
        ]
    )


def curve_charts(trainings: Sequence[tuple[str, int, TrainingMetrics]]) -> Charts | None:
    """A chart for each loss term, with a line for each training.

    Args:
        trainings: Names, numbers of colours, and curves. Terms of both directions of a translator
            ("cycle_a", "cycle_b") share a chart.

    Returns:
        The charts; None without trainings.
    """
    if not trainings:
        return None
    lines: dict[str, list[Line]] = {}
    for name, color, metrics in trainings:
        for key, curve in _curves(metrics).items():
            directed = key.endswith(("_a", "_b"))
            term = key[:-2] if directed else key
            text = f"{name} {key}" if directed else name
            lines.setdefault(term, []).append(Line(text, curve, color, key.endswith("_b")))
    known = list(_TERMS)
    ordered = sorted(lines, key=lambda term: known.index(term) if term in known else len(known))
    titles = {term: _TERMS.get(term, term.replace("_", " ")) for term in ordered}
    return Charts(
        legend=[(name, color) for name, color, _ in trainings],
        charts=[(titles[term], line_chart(titles[term], lines[term])) for term in ordered],
    )


def _curves(metrics: TrainingMetrics) -> dict[str, list[tuple[float, float]]]:
    """Points (step, value) of each term."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in metrics.curves:
        for term, value in row.items():
            if term != "step":
                curves.setdefault(term, []).append((row["step"], value))
    if metrics.validation:
        curves["miou"] = [(row["step"], 100 * row["miou"]) for row in metrics.validation]
    return curves


# Time, memory, warnings, versions


Peak = Callable[[Manifest], int | None]


def memory_columns(records: Sequence[Record]) -> dict[str, Peak]:
    """Columns of peak memory; one that no stage fills is left out."""
    columns: dict[str, Peak] = {
        "peak memory": lambda manifest: manifest.peak_memory,
        "of the GPU": lambda manifest: manifest.peak_gpu_memory,
    }
    manifests = [record.manifest for record in records if record.manifest is not None]
    return {
        title: peak
        for title, peak in columns.items()
        if any(peak(manifest) is not None for manifest in manifests)
    }


def stage_lines(records: Sequence[Record], columns: Sequence[Peak]) -> list[StageLine]:
    """A line for each stage, finished or not."""
    longest = max((record.seconds for record in records), default=0) or 1
    return [
        StageLine(
            record,
            share=100 * record.seconds / longest,
            memory=[peak(record.manifest) if record.manifest else None for peak in columns],
        )
        for record in records
    ]


def kind_times(records: Sequence[Record]) -> list[tuple[str, float]]:
    """Seconds by kind of stage, longest first."""
    sums: dict[str, float] = {}
    for record in records:
        kind = _KINDS.get(record.kind, record.kind)
        sums[kind] = sums.get(kind, 0.0) + record.seconds
    return sorted(sums.items(), key=lambda item: -item[1])


def warnings(records: Sequence[Record]) -> list[tuple[str, str]]:
    """(stage, text) of all that stages warn of in their metrics."""
    return [
        (record.stage, text)
        for record in records
        if record.metrics is not None
        for text in record.metrics.warnings
    ]


def made_with(manifests: Sequence[Manifest]) -> dict[str, str]:
    """Device, precision, processes, versions and time; where stages differ, each that occurs."""
    if not manifests:
        return {}
    facts = {
        "device": listed(m.device for m in manifests),
        "precision": listed(m.precision for m in manifests),
        "processes": listed(m.processes for m in manifests),
        "seed": listed(m.seed for m in manifests),
    }
    for name in manifests[-1].versions:
        facts[name] = listed(m.versions.get(name) for m in manifests)
    if last := max(manifest.finished for manifest in manifests):
        facts["last stage finished"] = _clock(datetime.datetime.fromisoformat(last))
    return facts


def listed(values: Iterable[str | int | None]) -> str:
    """Each value once; what is not known is left out."""
    return ", ".join(dict.fromkeys(str(value) for value in values if value not in (None, "")))
