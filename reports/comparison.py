"""Finished runs side by side: the rows and notes of their comparison, and its page."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bdl.reports.charts import Series, category_chart
from bdl.reports.pictures import Strip
from bdl.reports.records import Record, Row, trained
from bdl.reports.report import (
    Charts,
    ClassLabels,
    Color,
    class_labels,
    curve_charts,
    now,
    score,
    template,
)
from bdl.reports.settings import differing
from bdl.runtime.files import write_text
from bdl.segmentation.metrics import PseudoLabelMetrics
from bdl.segmentation.stages import TrainedSegmenter


@dataclass(frozen=True)
class Validation:
    """What a run is scored on.

    Args:
        version: Of the form of its record.
        settings: Images, labels and size, as the record has them.
        pixels: Labelled pixels by class.
    """

    version: int
    settings: Any
    pixels: tuple[int, ...] = ()

    def same_as(self, other: "Validation") -> bool:
        """Whether both are the same images at the same size. Records of different versions state
        them differently; then the pixels decide."""
        if self.version == other.version:
            return bool(self.settings == other.settings)
        return self.pixels == other.pixels


@dataclass
class ComparedRun:
    """A run and what the comparison says of it.

    Args:
        name: Of the run.
        rows: The rows of its results.json; at least one.
        settings: Its configuration by dotted key.
        facts: On what it was made.
        validation: What it is scored on; None if on nothing.
        records: Its finished stages.
        classes: Names of the classes by train id.
    """

    name: str
    rows: list[Row]
    settings: dict[str, Any]
    facts: dict[str, str] = field(default_factory=dict)
    validation: Validation | None = None
    records: list[Record] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)

    @property
    def last(self) -> Row:
        """The last network of the loop."""
        return max(self.rows, key=lambda row: (row.k, row.i))


@dataclass
class NetworkLine:
    """A network that a run has, and its row in each run; None in one that lacks it."""

    stage: str
    symbol: str
    rows: list[Row | None]

    @property
    def miou(self) -> list[float | None]:
        """mIoU by run; None where there is none."""
        return [row.miou if row is not None else None for row in self.rows]


def write_comparison(
    file: Path,
    runs: Sequence[ComparedRun],
    classes: Sequence[tuple[str, Color]] = (),
    strips: Sequence[Strip] = (),
) -> None:
    """Write the page, self-contained as a run's report is; `classes` colour the `strips`."""
    fact_names = dict.fromkeys(key for run in runs for key in run.facts)
    text = template("comparison.html.j2").render(
        runs=runs,
        written=now(),
        networks=networks(runs),
        chart=chart(runs),
        measured=any(run.last.miou is not None for run in runs),
        class_rows=class_rows(runs),
        curves=curves(runs),
        shares=class_shares(runs),
        colors=dict(classes),
        differences=differences(runs),
        notes=notes(runs),
        facts=[(key, [run.facts.get(key) for run in runs]) for key in fact_names],
        strips=strips,
        zoom=bool(strips),
    )
    write_text(file, text)


def networks(runs: Sequence[ComparedRun]) -> list[NetworkLine]:
    """Each network that a run has, in the loop's order."""
    by_run = [{row.stage: row for row in run.rows} for run in runs]
    some = {row.stage: row for rows in by_run for row in rows.values()}
    return [
        NetworkLine(row.stage, row.symbol, [rows.get(row.stage) for rows in by_run])
        for row in sorted(some.values(), key=lambda row: (row.k, row.i))
    ]


def class_rows(runs: Sequence[ComparedRun]) -> list[tuple[str, list[float | None]]]:
    """The mean and every class, with the IoU of each run's last network."""
    names = dict.fromkeys(name for run in runs for name in run.last.iou)
    rows = [("mean", [run.last.miou for run in runs])]
    return rows + [(name, [run.last.iou.get(name) for run in runs]) for name in names]


def curves(runs: Sequence[ComparedRun]) -> Charts | None:
    """The curves of each run's last trained network; None where no run has any."""
    return curve_charts(
        [
            (run.name, color, metrics)
            for color, run in enumerate(runs, start=1)
            for _, metrics in trained(run.records, TrainedSegmenter.kind)[-1:]
        ]
    )


def class_shares(runs: Sequence[ComparedRun]) -> list[tuple[str, list[ClassLabels | None]]]:
    """Every class, with its share of each run's last pseudo labels; empty without any."""
    shares: list[dict[str, ClassLabels]] = []
    for run in runs:
        made = [r.metrics for r in run.records if isinstance(r.metrics, PseudoLabelMetrics)]
        shares.append(dict(zip(run.classes, class_labels(made[-1]), strict=False)) if made else {})
    names = dict.fromkeys(name for share in shares for name in share)
    return [(name, [share.get(name) for share in shares]) for name in names]


def differences(runs: Sequence[ComparedRun]) -> list[tuple[str, list[Any]]]:
    """The keys whose values are not the same in all runs, but for the folder `out`."""
    return [row for row in differing([run.settings for run in runs]) if row[0] != "out"]


def notes(runs: Sequence[ComparedRun]) -> list[str]:
    """What makes the numbers not comparable, or not those of the runs' configurations."""
    first, texts = runs[0], []
    for run in runs:
        texts += [f"{row.stage} of {run.name} was {row.note}." for row in run.rows if row.note]
    for run in runs[1:]:
        if run.last.target_labels != first.last.target_labels:
            texts.append(
                f"{run.name} learned from {run.last.target_labels} labelled target images, "
                f"{first.name} from {first.last.target_labels}."
            )
        if list(run.last.iou) != list(first.last.iou) and run.last.iou and first.last.iou:
            texts.append(f"{run.name} has other classes than {first.name}.")
        else:
            texts += scored_otherwise(run, first)
    return texts


def scored_otherwise(run: ComparedRun, first: ComparedRun) -> list[str]:
    """A line if both are not scored on the same images at the same size."""
    if run.validation is None or first.validation is None:
        if run.validation is first.validation:
            return []
        unscored = run if run.validation is None else first
        return [f"{unscored.name} is not scored: it has no validation images."]
    if run.validation.same_as(first.validation):
        return []
    return [
        f"{run.name} is scored on other validation images than {first.name}, or at another size."
    ]


def chart(runs: Sequence[ComparedRun]) -> str:
    """mIoU in % over the networks, a line for each run."""
    lines = networks(runs)

    def values(run: int) -> list[list[float]]:
        miou = [line.miou[run] for line in lines]
        return [[] if value is None else [100 * value] for value in miou]

    series = [Series(run.name, values(number), number + 1) for number, run in enumerate(runs)]
    return category_chart("mIoU by network and run", [line.symbol for line in lines], series)


def as_text(runs: Sequence[ComparedRun]) -> str:
    """mIoU in % by network and run, as a plain table; "-" for a network that a run lacks."""
    rows = [("network", [run.name for run in runs])]
    if any(run.last.target_labels for run in runs):
        rows.append(("target labels", [str(run.last.target_labels) for run in runs]))
    for line in networks(runs):
        cells = ["-" if row is None else score(row.miou) for row in line.rows]
        rows.append((line.stage, cells))
    widths = [max(7, *(len(cells[run]) for _, cells in rows)) for run in range(len(runs))]
    return "\n".join(
        f"{name:<20}" + "".join(f"  {cell:>{w}}" for cell, w in zip(cells, widths, strict=True))
        for name, cells in rows
    )
