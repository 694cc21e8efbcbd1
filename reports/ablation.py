"""Ablations: the loop with other numbers of steps, other settings and seeds, in one table.

Each cell is a run in a folder of its own; cells share the stages that are equal.
"""

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from bdl.reports.charts import Series, category_chart, standalone
from bdl.reports.records import REPORT, Row
from bdl.reports.report import NOT_MEASURED, difference, now, percent, signed, template
from bdl.reports.settings import differing
from bdl.runtime.config import Config
from bdl.runtime.files import write_json, write_text
from bdl.runtime.stage import flatten
from bdl.runtime.values import plain
from bdl.segmentation.metrics import in_words
from bdl.segmentation.stages import Segmenter

# The table as it is, and as people read it.
WRITTEN = ("ablation.json", "ablation.md", "ablation.csv", "ablation.svg", "ablation.html")
# Keys that have columns of their own, or differ between all runs.
_IN_COLUMNS = ("iterations", "self_training_steps", "seed", "out")


@dataclass(frozen=True)
class Cell:
    """One run of an ablation.

    Args:
        variant: Name of the settings.
        iterations: K.
        self_training_steps: N.
        seed: Seed.
        config: The whole configuration.
    """

    variant: str
    iterations: int
    self_training_steps: int
    seed: int
    config: Config


@dataclass(frozen=True)
class Line:
    """One network of the table.

    Args:
        variant: Name of the settings.
        iterations: K of its runs.
        self_training_steps: N of its runs.
        network: Its stage.
        k: Round.
        i: Self-training step.
        miou: Mean IoU in [0, 1] by seed; None where it was not measured.
        gain: The same less that of the run's source only.
        iou: IoU in [0, 1] by class and seed; None for a class in neither labels nor predictions.
        runs: By seed, the folder of the run, relative to the ablation's.
        target_labels: Number of labelled target images behind it.
    """

    variant: str
    iterations: int
    self_training_steps: int
    network: str
    k: int
    i: int
    miou: dict[int, float | None]
    gain: dict[int, float | None]
    iou: dict[str, dict[int, float | None]] = field(default_factory=dict)
    runs: dict[int, str] = field(default_factory=dict)
    target_labels: int = 0

    @property
    def labels(self) -> str:
        """How many labelled target images are behind it, in words; empty for none."""
        return in_words(self.target_labels)

    @property
    def symbol(self) -> str:
        """The paper's symbol for the network."""
        return Segmenter(k=self.k, i=self.i).symbol

    @property
    def measured(self) -> list[float]:
        """The values of the seeds that have one."""
        return [value for value in self.miou.values() if value is not None]

    @property
    def mean(self) -> float | None:
        """The mean over the seeds; None where nothing was measured."""
        return mean_of(self.miou)

    @property
    def mean_gain(self) -> float | None:
        """The mean gain over the seeds; None of source only, and where nothing was measured."""
        return mean_of(self.gain) if self.k else None

    @property
    def classes(self) -> dict[str, float | None]:
        """The mean IoU over the seeds, by class."""
        return {name: mean_of(values) for name, values in self.iou.items()}

    @property
    def links(self) -> dict[int, str]:
        """By seed, where the run's report is, as the address of a link."""
        return {seed: quote(f"{run}/{REPORT}") for seed, run in self.runs.items()}

    @property
    def spread(self) -> str:
        """Mean and standard deviation over the seeds in %, as a text."""
        if self.mean is None:
            return NOT_MEASURED
        if len(self.measured) == 1:
            return percent(self.mean)
        return f"{percent(self.mean)} ± {percent(statistics.stdev(self.measured))}"


def mean_of(values: dict[int, float | None]) -> float | None:
    """The mean over the seeds that have a value; None without any."""
    known = [value for value in values.values() if value is not None]
    return statistics.fmean(known) if known else None


def write_ablation(
    folder: Path,
    results: Sequence[tuple[Cell, Sequence[Row]]],
    cells: int,
    notes: Sequence[str] = (),
) -> list[Line]:
    """Write `WRITTEN` in `folder`.

    Args:
        folder: Of the ablation.
        results: The finished cells with the rows of their results.json.
        cells: How many are planned.
        notes: What makes their numbers not comparable, a line each.

    Returns:
        The lines of the table.
    """
    lines = summarize(results, folder)
    data, *files = (folder / name for name in WRITTEN)
    write_json(data, [vars(line) for line in lines])
    settings = settings_of([cell for cell, _ in results])
    page = as_page(folder.resolve().name, lines, cells, settings, notes)
    texts = [as_markdown(lines, notes), as_csv(lines), as_plot(lines), page]
    for file, text in zip(files, texts, strict=True):
        write_text(file, text)
    return lines


def summarize(results: Sequence[tuple[Cell, Sequence[Row]]], folder: Path) -> list[Line]:
    """A line for each network of each variant, K and N, with the values of its seeds.

    Args:
        results: The finished cells with the rows of their results.json.
        folder: Of the ablation, in which the runs' folders are.
    """
    lines: dict[tuple[str, int, int, str], Line] = {}
    for cell, rows in results:
        for row in rows:
            key = (cell.variant, cell.iterations, cell.self_training_steps, row.stage)
            new = Line(*key, row.k, row.i, {}, {}, target_labels=row.target_labels)
            line = lines.setdefault(key, new)
            line.miou[cell.seed] = row.miou
            line.gain[cell.seed] = difference(row.miou, rows[0].miou)
            line.runs[cell.seed] = Path(cell.config.out).relative_to(folder).as_posix()
            for name, iou in row.iou.items():
                line.iou.setdefault(name, {})[cell.seed] = iou
    return list(lines.values())


def settings_of(cells: Sequence[Cell]) -> dict[str, list[tuple[str, Any, Any]]]:
    """By variant, the keys whose values are others than the first variant's, with the value and
    that of the first one; without those that the table has columns for."""
    flat = {cell.variant: flatten(plain(cell.config)) for cell in cells}
    base = flat[cells[0].variant]
    return {
        variant: [
            (key, value, usual)
            for key, (usual, value) in differing([base, own])
            if key not in _IN_COLUMNS
        ]
        for variant, own in flat.items()
    }


def as_markdown(lines: Sequence[Line], notes: Sequence[str] = ()) -> str:
    """The table in percent: mIoU as mean and standard deviation over the seeds, and every seed's
    gain over its source only; then the notes."""
    seeds = seeds_of(lines)
    head = ["variant", "K", "N", "network", "mIoU", *(f"gain, seed {seed}" for seed in seeds)]
    rows = [head, ["---"] * len(head)]
    for line in lines:
        gains = [line.gain.get(seed) for seed in seeds]
        numbers = [str(line.iterations), str(line.self_training_steps)]
        cells = ["" if gain is None else signed(gain) for gain in gains]
        network = ", ".join(filter(None, (line.network, line.labels)))
        rows.append([line.variant, *numbers, network, line.spread, *cells])
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return table + "".join(f"\nNot to be compared as it stands: {note}\n" for note in notes)


def as_csv(lines: Sequence[Line]) -> str:
    """A line a network and seed; mIoU and gain as fractions, empty where not measured."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["variant", "K", "N", "network", "seed", "miou", "gain", "target_labels"]
    writer.writerow(head)
    for line in lines:
        cell = [line.variant, line.iterations, line.self_training_steps, line.network]
        for seed in line.miou:
            numbers = [line.miou[seed], line.gain[seed], line.target_labels]
            writer.writerow([*cell, seed, *numbers])
    return text.getvalue()


def series_of(lines: Sequence[Line]) -> list[Series]:
    """mIoU in % over `networks_of`, by seed: a series for each variant and, where it has several,
    each N: on N depends from which network the second round starts. On K no network depends."""
    counts: dict[str, set[int]] = {}
    for line in lines:
        counts.setdefault(line.variant, set()).add(line.self_training_steps)
    by_name: dict[str, list[Line]] = {}
    for line in lines:
        several = len(counts[line.variant]) > 1
        name = f"{line.variant}, N = {line.self_training_steps}" if several else line.variant
        by_name.setdefault(name, []).append(line)
    networks = networks_of(lines)
    return [
        Series(name, [_values(its, network) for network in networks], color)
        for color, (name, its) in enumerate(by_name.items(), start=1)
    ]


def networks_of(lines: Iterable[Line]) -> list[str]:
    """The networks' symbols, in the order in which the loop makes them."""
    networks = {(line.k, line.i): line.symbol for line in lines}
    return [networks[k_and_i] for k_and_i in sorted(networks)]


def seeds_of(lines: Iterable[Line]) -> list[int]:
    """The seeds of all runs."""
    return sorted({seed for line in lines for seed in line.miou})


def chart(lines: Sequence[Line]) -> Markup:
    """mIoU over the networks: a dot a seed, a line through the means of each series."""
    return category_chart("mIoU by network", networks_of(lines), series_of(lines))


def as_plot(lines: Sequence[Line]) -> str:
    """The chart as an SVG file of its own, with a legend where there are several lines."""
    colors = {one.name: one.color for one in series_of(lines)}
    return standalone(chart(lines), colors if len(colors) > 1 else {})


def as_page(
    title: str,
    lines: Sequence[Line],
    cells: int,
    settings: dict[str, list[tuple[str, Any, Any]]],
    notes: Sequence[str] = (),
) -> str:
    """The chart and the tables as one self-contained HTML page.

    Args:
        title: Of the page.
        lines: The lines of the table.
        cells: How many runs are planned.
        settings: What `settings_of` gives.
        notes: What makes their numbers not comparable, a line each.
    """
    runs = [
        (line.variant, line.iterations, line.self_training_steps, seed)
        for line in lines
        for seed in line.miou
    ]
    means = [(line.mean, line) for line in lines if line.mean is not None]
    return template("ablation.html.j2").render(
        title=title,
        lines=lines,
        best=max(means, key=lambda item: item[0])[1] if means else None,
        series=series_of(lines),
        seeds=seeds_of(lines),
        chart=chart(lines),
        made=len({run[:-1] for run in runs}),
        finished=len(set(runs)),
        settings=settings,
        notes=notes,
        runs=runs_of(lines),
        classes=list(dict.fromkeys(name for line in lines for name in line.iou)),
        cells=cells,
        written=now(),
        zoom=False,
    )


def runs_of(lines: Iterable[Line]) -> dict[str, list[tuple[str, str]]]:
    """By variant, its runs: what tells them apart, and the address of a run's report."""
    runs: dict[str, dict[str, str]] = {}
    for line in lines:
        for seed, link in line.links.items():
            name = f"K = {line.iterations}, N = {line.self_training_steps}, seed {seed}"
            runs.setdefault(line.variant, {})[name] = link
    return {variant: list(links.items()) for variant, links in runs.items()}


def _values(lines: Sequence[Line], network: str) -> list[float]:
    """A network's mIoU in %, by seed."""
    values: dict[int, float | None] = {}
    for line in lines:
        if line.symbol == network:
            values |= line.miou
    return [100 * value for value in values.values() if value is not None]
