"""The run's report: one HTML file with the results, curves and images of what is finished."""

import base64
import datetime
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from runtime.charts import Line, line_chart
from runtime.console import duration
from runtime.files import write_text
from runtime.stages import Metrics

Row = dict[str, Any]

_DASH, _MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
_WIDEST = 640  # pixels of an embedded picture: enough to zoom, and a report stays a few MB
_FEW = 0.01  # of a class's pixels: with fewer right, what became of them is not shown
_MOVED = 4  # classes that are named as having gained or lost most

# The terms of both trainings in the order in which their charts stand.
_TERMS = {
    "source": "cross entropy, source",
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
class Panel:
    """One picture and what it shows: a photo (RGB), or labels in their colours (palette)."""

    caption: str
    image: Image.Image


@dataclass
class Strip:
    """Pictures of one frame, in the order of the loop; all strips of a role have the same."""

    role: str
    frame: str
    panels: list[Panel]


@dataclass
class Record:
    """A stage: its manifest and its metrics, None where it is not finished."""

    name: str
    kind: str
    manifest: dict[str, Any] | None
    metrics: Metrics | None


@dataclass
class Report:
    """What the report shows; `rows` are those of results.json, `records` all the loop's stages.

    `facts` say what was run, `classes` are names and colours (RGB, 0..255) by train id,
    `working_on` names the stage that is being made.
    """

    title: str
    rows: list[Row]
    records: list[Record]
    strips: list[Strip]
    facts: dict[str, str] = field(default_factory=dict)
    classes: list[tuple[str, tuple[int, int, int]]] = field(default_factory=list)
    subsets: list[str] = field(default_factory=list)
    command: str = ""
    configuration: str = ""
    working_on: str | None = None


@cache
def template(name: str) -> jinja2.Template:
    """A page's template beside this file; all pages share the report's style and its zoom."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "picture": data_url,
        "percent": percent,
        "points": points,
        "duration": duration,
        "size": byte_size,
        "color": "#{0[0]:02x}{0[1]:02x}{0[2]:02x}".format,
        "symbol": symbol,
    }
    return environment.get_template(name)


def write_report(file: Path, report: Report) -> None:
    """Write the report, self-contained: it opens from disk, without a network."""
    finished = [record for record in report.records if record.manifest is not None]
    text = template("report.html.j2").render(
        report=report,
        written=now(),
        finished=finished,
        networks=with_gains(report.rows),
        best=max(report.rows, key=lambda row: row["miou"], default=None),
        heat=heat_map(report),
        moved=most_moved(report.rows),
        roles={strip.role: strips_of(report.strips, strip.role) for strip in report.strips},
        segmentation_charts=segmentation_charts(finished),
        translation_charts=translation_charts(finished),
        translations=[record for record in finished if record.kind == "measure"],
        drift=drift_map,
        pseudo_labels=[record for record in finished if record.kind == "pseudo-label"],
        times=times(finished),
        memory=memory(finished),
        kinds=kind_times(finished),
        warnings=warnings(finished),
        made_with=made_with(finished),
    )
    write_text(file, text)


def now() -> str:
    """When a page is written, for its reader."""
    return datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")


# Names and numbers


def symbol(stage: str) -> str:
    """A stage as the paper's symbols have it: M(0), F(1), M(2,1); what is made by or for a network
    or translator names it."""
    if stage == "source-only":
        return "M(0)"
    if stage == "translated/measures":
        return "given translations"
    k, _, name = stage.removeprefix("k").partition("/")
    i = name.rpartition("-")[2]
    symbols = {
        "translator": f"F({k})",
        "translated": f"F({k})",
        "translated/measures": f"F({k})",
        f"segmentation-{i}": f"M({k},{i})",
        f"pseudo-labels-{i}": f"pseudo labels for M({k},{i})",
    }
    return symbols.get(name, stage)


def percent(value: float | None) -> str:
    """0.4273 as 42.7; a dash for None."""
    return _DASH if value is None else f"{100 * value:.1f}"


def points(value: float | None) -> str:
    """A difference in percentage points, with its sign; a dash for None."""
    if value is None:
        return _DASH
    rounded = f"{100 * value:+.1f}"
    return "0.0" if rounded in ("+0.0", "-0.0") else rounded.replace("-", _MINUS)


def byte_size(number: float) -> str:
    """Bytes as a person says them: 640 MB, 1.5 GB."""
    return f"{number / 1e9:.1f} GB" if number >= 999.5e6 else f"{number / 1e6:.0f} MB"


def with_gains(rows: Sequence[Row]) -> list[Row]:
    """The rows with "gain" over source only and "step" over the row before (None without one)."""
    first = next((row["miou"] for row in rows if row["k"] == 0), None)
    return [
        {
            **row,
            "gain": row["miou"] - first if first is not None and row["k"] > 0 else None,
            "step": row["miou"] - rows[place - 1]["miou"] if place else None,
        }
        for place, row in enumerate(rows)
    ]


def class_changes(rows: Sequence[Row]) -> dict[str, float]:
    """For each class, IoU of the last network less that of the first, where both have one."""
    if len(rows) < 2:
        return {}
    first, last = rows[0]["iou"], rows[-1]["iou"]
    return {
        name: last[name] - first[name]
        for name in first
        if first[name] is not None and last.get(name) is not None
    }


def most_moved(rows: Sequence[Row]) -> dict[str, list[tuple[str, float]]]:
    """The classes that gained and lost most, most first; those that moved the other way are not
    in a list."""
    changes = sorted(class_changes(rows).items(), key=lambda item: item[1])
    return {
        "gained": [item for item in reversed(changes) if item[1] > 0][:_MOVED],
        "lost": [item for item in changes if item[1] < 0][:_MOVED],
    }


def heat_map(report: Report) -> list[dict[str, Any]]:
    """A row for each class: its name, colour, IoU by network, and the change from first to last."""
    changes = class_changes(report.rows)
    return [
        {
            "name": name,
            "color": color,
            "iou": [row["iou"].get(name) for row in report.rows],
            "change": changes.get(name),
        }
        for name, color in report.classes
    ]


def drift_map(report: Report, drift: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each class: its name, colour, the share of its pixels that the frozen network had
    right on the source and on the translation, and what it sees on the translation of the former,
    as shares by class (None where it had hardly any right: a few pixels are no pattern)."""
    rows = []
    for place, (name, color) in enumerate(report.classes):
        before, after, of_right = (
            drift[key][place] for key in ("on_source", "on_translation", "of_right")
        )
        pixels, right = sum(before), sum(of_right)
        rows.append(
            {
                "name": name,
                "color": color,
                "before": before[place] / pixels if pixels else None,
                "after": after[place] / pixels if pixels else None,
                "cells": [
                    count / right if right and right >= _FEW * pixels else None
                    for count in of_right
                ],
            }
        )
    return rows


def strips_of(strips: Iterable[Strip], role: str) -> list[Strip]:
    return [strip for strip in strips if strip.role == role]


# Curves


def segmentation_charts(records: Sequence[Record]) -> dict[str, Any] | None:
    """A chart for each loss term, with a line for each network; None before the first."""
    trained = _with_curves(records, "segment")
    lines: dict[str, list[Line]] = {}
    for color, record in enumerate(trained):
        for term, curve in _curves(record).items():
            lines.setdefault(term, []).append(Line(symbol(record.name), curve, color))
    return _charts(trained, lines)


def translation_charts(records: Sequence[Record]) -> dict[str, Any] | None:
    """A chart for each loss term, with two lines for each translator: both directions."""
    trained = _with_curves(records, "translate")
    lines: dict[str, list[Line]] = {}
    for color, record in enumerate(trained):
        for name, curve in _curves(record).items():
            dashed = name.endswith("_b")
            term = name[:-2] if name.endswith(("_a", "_b")) else name
            text = f"{symbol(record.name)} {name}"
            lines.setdefault(term, []).append(Line(text, curve, color, dashed))
    return _charts(trained, lines)


def _with_curves(records: Sequence[Record], kind: str) -> list[Record]:
    return [r for r in records if r.kind == kind and r.metrics and r.metrics.get("curves")]


def _curves(record: Record) -> dict[str, list[tuple[float, float]]]:
    """Points (step, value) of each term."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in (record.metrics or {})["curves"]:
        for term, value in row.items():
            if term != "step":
                curves.setdefault(term, []).append((row["step"], value))
    return curves


def _charts(trained: Sequence[Record], lines: dict[str, list[Line]]) -> dict[str, Any] | None:
    if not trained:
        return None
    known = list(_TERMS)
    ordered = sorted(lines, key=lambda term: known.index(term) if term in known else len(known))
    titles = {term: _TERMS.get(term, term.replace("_", " ")) for term in ordered}
    return {
        "legend": [symbol(record.name) for record in trained],
        "charts": [(titles[term], line_chart(titles[term], lines[term])) for term in ordered],
    }


# Time, warnings, versions


def times(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Seconds of each finished stage by its name, and their share of the longest in %."""
    seconds = {record.name: float((record.manifest or {})["seconds"]) for record in records}
    longest = max(seconds.values(), default=0) or 1
    return {
        name: {"seconds": value, "share": 100 * value / longest} for name, value in seconds.items()
    }


def memory(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    """Peak memory in bytes by column of the table and name of the stage; a column that no stage
    fills is left out."""
    columns = {"peak memory": "peak_memory", "of the GPU": "peak_gpu_memory"}
    found = {
        title: {r.name: r.manifest[key] for r in records if r.manifest and key in r.manifest}
        for title, key in columns.items()
    }
    return {title: sizes for title, sizes in found.items() if sizes}


def kind_times(records: Sequence[Record]) -> list[tuple[str, float]]:
    """Seconds by kind of stage, longest first."""
    sums: dict[str, float] = {}
    for record in records:
        kind = _KINDS.get(record.kind, record.kind)
        sums[kind] = sums.get(kind, 0.0) + float((record.manifest or {})["seconds"])
    return sorted(sums.items(), key=lambda item: -item[1])


def warnings(records: Sequence[Record]) -> list[tuple[str, str]]:
    """(stage, text) of all that stages warn of in their metrics."""
    return [
        (record.name, str(text))
        for record in records
        for text in (record.metrics or {}).get("warnings", [])
    ]


def made_with(records: Sequence[Record]) -> dict[str, str]:
    """Device, precision, processes, versions and time; where stages differ, each that occurs."""
    manifests = [record.manifest or {} for record in records]
    if not manifests:
        return {}
    found = {key: _agreed(manifests, key) for key in ("device", "precision", "processes", "seed")}
    for name in manifests[-1].get("versions", {}):
        found[name] = _agreed([manifest.get("versions", {}) for manifest in manifests], name)
    found["last stage finished"] = str(max(manifest["finished"] for manifest in manifests))
    return found


def _agreed(contents: Iterable[dict[str, Any]], key: str) -> str:
    values = dict.fromkeys(str(content[key]) for content in contents if key in content)
    return ", ".join(values)


# Pictures


def embedded(image: Image.Image) -> Image.Image:
    """The picture at the size at which it is embedded: labels keep to whole pixels."""
    if image.width <= _WIDEST:
        return image
    resample = Image.Resampling.NEAREST if image.mode == "P" else Image.Resampling.LANCZOS
    return image.resize((_WIDEST, round(image.height * _WIDEST / image.width)), resample)


def beside(panels: Sequence[Panel]) -> Image.Image:
    """The panels' pictures in one, from left to right, all as high as the first."""
    height = embedded(panels[0].image).height
    parts = []
    for image in (panel.image for panel in panels):
        resample = Image.Resampling.NEAREST if image.mode == "P" else Image.Resampling.LANCZOS
        width = max(1, round(image.width * height / image.height))
        parts.append(image.resize((width, height), resample).convert("RGB"))
    joined = Image.new("RGB", (sum(part.width for part in parts), height))
    left = 0
    for part in parts:
        joined.paste(part, (left, 0))
        left += part.width
    return joined


def data_url(image: Image.Image) -> Markup:
    """The picture inside a URL: labels as PNG with their palette, photos as WebP."""
    buffer = io.BytesIO()
    if image.mode == "P":
        embedded(image).save(buffer, format="PNG", optimize=True)
    else:
        embedded(image).save(buffer, format="WEBP", quality=88)
    kind = "png" if image.mode == "P" else "webp"
    return Markup(f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}")
