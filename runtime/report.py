"""The run's report: one HTML file with the results, curves and images of what is finished."""

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from runtime.files import write_text
from runtime.stages import Metrics


@dataclass
class Panel:
    """One picture and what it shows."""

    caption: str
    image: Image.Image


@dataclass
class Strip:
    """Pictures of one frame, in the order of the loop."""

    title: str
    panels: list[Panel]


@dataclass
class Record:
    """A finished stage: its manifest and its metrics."""

    name: str
    kind: str
    manifest: dict[str, Any]
    metrics: Metrics


@dataclass
class Report:
    """What the report shows; `rows` are those of results.json."""

    title: str
    rows: list[dict[str, Any]]
    records: list[Record]
    strips: list[Strip]
    configuration: dict[str, Any] = field(default_factory=dict)


def write_report(file: Path, report: Report) -> None:
    """Write the report, self-contained: it opens from disk, without a network."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["png"] = data_url
    write_text(file, environment.get_template("report.html.j2").render(report=report))


def data_url(image: Image.Image) -> str:
    """The picture as a PNG inside a URL."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
