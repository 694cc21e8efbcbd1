"""Finished runs side by side: the rows and notes of their comparison, and its page."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from runtime.charts import Series, category_chart
from runtime.files import write_text
from runtime.report import Row, Strip, now, symbol, template


@dataclass
class ComparedRun:
    """A run and what the comparison says of it.

    `rows` are those of its results.json, `settings` its configuration by dotted key, `facts` say
    on what it was made, `validation` is equal for runs that are scored on the same images.
    """

    name: str
    rows: list[Row]
    settings: dict[str, Any]
    facts: dict[str, str] = field(default_factory=dict)
    validation: Any = None

    @property
    def last(self) -> Row:
        """The last network of the loop."""
        return max(self.rows, key=lambda row: (row["k"], row["i"]))


def write_comparison(
    file: Path,
    runs: Sequence[ComparedRun],
    classes: Sequence[tuple[str, tuple[int, int, int]]] = (),
    strips: Sequence[Strip] = (),
) -> None:
    """Write the page, self-contained as a run's report is; `classes` colour the `strips`."""
    fact_names = dict.fromkeys(key for run in runs for key in run.facts)
    text = template("comparison.html.j2").render(
        runs=runs,
        written=now(),
        networks=networks(runs),
        chart=chart(runs),
        class_rows=class_rows(runs),
        colors=dict(classes),
        differences=differences(runs),
        notes=notes(runs),
        facts=[(key, [run.facts.get(key) for run in runs]) for key in fact_names],
        strips=strips,
        roles=bool(strips),
    )
    write_text(file, text)


def networks(runs: Sequence[ComparedRun]) -> list[tuple[str, list[float | None]]]:
    """Each network that a run has, in the loop's order, and its mIoU in each run."""
    places = {row["stage"]: (row["k"], row["i"]) for run in runs for row in run.rows}
    found = {run.name: {row["stage"]: row["miou"] for row in run.rows} for run in runs}
    return [
        (stage, [found[run.name].get(stage) for run in runs])
        for stage in sorted(places, key=places.__getitem__)
    ]


def class_rows(runs: Sequence[ComparedRun]) -> list[tuple[str, list[float | None]]]:
    """The mean and every class, with the IoU of each run's last network."""
    names = dict.fromkeys(name for run in runs for name in run.last["iou"])
    rows = [("mean", [run.last["miou"] for run in runs])]
    return rows + [(name, [run.last["iou"].get(name) for run in runs]) for name in names]


def differences(runs: Sequence[ComparedRun]) -> list[tuple[str, list[Any]]]:
    """The keys whose values are not the same in all runs, but for the folder `out`."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    rows = [(key, [run.settings.get(key) for run in runs]) for key in keys if key != "out"]
    return [row for row in rows if any(one != other for one, other in pairwise(row[1]))]


def notes(runs: Sequence[ComparedRun]) -> list[str]:
    """What makes the numbers not comparable."""
    first, found = runs[0], []
    for run in runs[1:]:
        if list(run.last["iou"]) != list(first.last["iou"]):
            found.append(f"{run.name} has other classes than {first.name}.")
        elif run.validation != first.validation:
            found.append(
                f"{run.name} is scored on other validation images than {first.name}, or at "
                "another size."
            )
    return found


def chart(runs: Sequence[ComparedRun]) -> str:
    """mIoU in % over the networks, a line for each run."""
    rows = networks(runs)

    def values(place: int) -> list[list[float]]:
        found = [miou[place] for _, miou in rows]
        return [[] if value is None else [100 * value] for value in found]

    series = [Series(run.name, values(place), place + 1) for place, run in enumerate(runs)]
    return category_chart("mIoU by network and run", [symbol(stage) for stage, _ in rows], series)


def as_text(runs: Sequence[ComparedRun]) -> str:
    """mIoU in % by network and run, as a plain table."""
    widths = [max(len(run.name), 7) for run in runs]
    rows = [("network", [run.name for run in runs])] + [
        (stage, ["-" if value is None else f"{100 * value:.1f}" for value in values])
        for stage, values in networks(runs)
    ]
    return "\n".join(
        f"{name:<20}" + "".join(f"  {cell:>{w}}" for cell, w in zip(cells, widths, strict=True))
        for name, cells in rows
    )
