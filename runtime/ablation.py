"""Ablations: the loop with other numbers of steps, other settings and seeds, in one table.

Each cell is a run in a folder of its own. A stage that another cell has finished for the same
fingerprint is taken over from there, so that cells share all they can.
"""

import csv
import io
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from runtime.charts import Series, category_chart, standalone
from runtime.config import Config
from runtime.files import write_json, write_text
from runtime.report import now, symbol, template

Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run of an ablation: a `variant` of the settings, K, N, and a seed."""

    variant: str
    iterations: int
    self_training_steps: int
    seed: int
    config: Config

    @property
    def folder(self) -> Path:
        return Path(self.config.out)


@dataclass(frozen=True)
class Line:
    """One network of the table: its mIoU and its gain over source only, by seed."""

    variant: str
    iterations: int
    self_training_steps: int
    network: str
    miou: dict[int, float]
    gain: dict[int, float]


def run_ablation(
    folder: Path, cells: Sequence[Cell], run: Callable[[Cell, list[Path]], list[Row]]
) -> list[Line]:
    """Run every cell and write `folder`/ablation.json, .md, .csv, .svg and .html, anew after each.

    `run(cell, others)` makes the cell's run, taking over what it can from the folders `others`,
    and returns the rows of its results.json.
    """
    results: list[tuple[Cell, list[Row]]] = []
    lines: list[Line] = []
    for cell in cells:
        results.append((cell, run(cell, [other.folder for other in cells if other is not cell])))
        lines = summarize(results)
        write_json(folder / "ablation.json", [vars(line) for line in lines])
        write_text(folder / "ablation.md", as_markdown(lines))
        write_text(folder / "ablation.csv", as_csv(lines))
        write_text(folder / "ablation.svg", as_plot(lines))
        write_text(folder / "ablation.html", as_page(folder.resolve().name, lines, len(cells)))
    return lines


def summarize(results: Sequence[tuple[Cell, list[Row]]]) -> list[Line]:
    """A line for each network of each variant, K and N, with the values of its seeds."""
    lines: dict[tuple[str, int, int, str], Line] = {}
    for cell, rows in results:
        for row in rows:
            key = (cell.variant, cell.iterations, cell.self_training_steps, str(row["stage"]))
            line = lines.setdefault(key, Line(*key, miou={}, gain={}))
            line.miou[cell.seed] = row["miou"]
            line.gain[cell.seed] = row["miou"] - rows[0]["miou"]
    return list(lines.values())


def as_markdown(lines: Sequence[Line]) -> str:
    """The table in percent: mIoU as mean and standard deviation over the seeds, and every seed's
    gain over its source only."""
    seeds = sorted({seed for line in lines for seed in line.gain})
    head = ["variant", "K", "N", "network", "mIoU", *(f"gain, seed {seed}" for seed in seeds)]
    rows = [head, ["---"] * len(head)]
    for line in lines:
        gains = [f"{100 * line.gain[seed]:+.1f}" if seed in line.gain else "" for seed in seeds]
        numbers = [str(line.iterations), str(line.self_training_steps)]
        miou = _spread(list(line.miou.values()))
        rows.append([line.variant, *numbers, line.network, miou, *gains])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def as_csv(lines: Sequence[Line]) -> str:
    """A line a network and seed; mIoU and gain as fractions."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", "K", "N", "network", "seed", "miou", "gain"])
    for line in lines:
        cell = [line.variant, line.iterations, line.self_training_steps, line.network]
        for seed in line.miou:
            writer.writerow([*cell, seed, line.miou[seed], line.gain[seed]])
    return text.getvalue()


def series_of(lines: Sequence[Line]) -> list[Series]:
    """mIoU in % over `networks_of`, by seed: a series for each variant and, where it has several,
    each N: on N depends from which network the second round starts. On K no network depends."""
    counts: dict[str, set[int]] = {}
    for line in lines:
        counts.setdefault(line.variant, set()).add(line.self_training_steps)
    found: dict[str, list[Line]] = {}
    for line in lines:
        several = len(counts[line.variant]) > 1
        name = f"{line.variant}, N = {line.self_training_steps}" if several else line.variant
        found.setdefault(name, []).append(line)
    networks = networks_of(lines)
    return [
        Series(name, [_seeds(its, network) for network in networks], color)
        for color, (name, its) in enumerate(found.items(), start=1)
    ]


def networks_of(lines: Sequence[Line]) -> list[str]:
    """The networks' names, in the order in which the loop makes them."""
    networks = dict.fromkeys(line.network for line in lines)
    return sorted(networks, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])


def chart(lines: Sequence[Line]) -> Markup:
    """mIoU over the networks: a dot a seed, a line through the means of each series."""
    categories = [symbol(network) for network in networks_of(lines)]
    return category_chart("mIoU by network", categories, series_of(lines))


def as_plot(lines: Sequence[Line]) -> str:
    """The chart as an SVG file of its own, with a legend where there are several lines."""
    colors = {one.name: one.color for one in series_of(lines)}
    return standalone(chart(lines), colors if len(colors) > 1 else {})


def as_page(title: str, lines: Sequence[Line], cells: int) -> str:
    """The chart and the table as one self-contained HTML page; `cells` are the runs planned."""
    seeds = sorted({seed for line in lines for seed in line.miou})
    made = {(line.variant, line.iterations, line.self_training_steps) for line in lines}
    return template("ablation.html.j2").render(
        title=title,
        lines=[(line, _spread(list(line.miou.values()))) for line in lines],
        best=max(lines, key=lambda line: statistics.fmean(line.miou.values()), default=None),
        series=series_of(lines),
        seeds=seeds,
        chart=chart(lines),
        settings=len(made),
        cells=cells,
        written=now(),
        roles=False,
    )


def _seeds(lines: Sequence[Line], network: str) -> list[float]:
    """A network's mIoU in %, by seed."""
    values: dict[int, float] = {}
    for line in lines:
        if line.network == network:
            values |= line.miou
    return [100 * value for value in values.values()]


def _spread(values: Sequence[float]) -> str:
    mean = 100 * statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.1f}"
    return f"{mean:.1f} ± {100 * statistics.stdev(values):.1f}"
