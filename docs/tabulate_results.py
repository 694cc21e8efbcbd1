"""The tables of the results pages, from JSON files beside them; and these files, from runs.

    python docs/tabulate_results.py
    python docs/tabulate_results.py FILE "NAME=RUNS" ...

The first makes every table below docs/results anew. The second writes rows into FILE before that.
So one command puts new figures in; the text around the tables stays to be written:

    python docs/tabulate_results.py docs/results/crops/recipe.json "phone to infrared=runs/phone-*"

NAME is the row's name. RUNS is the folder of a run, or a pattern for those of several seeds; of
`bdl ablate` it is OUT/as-configured/K2-N2/seed-*. A row that is in FILE under NAME is replaced, the
others stay. A file holds, for each row and seed, the networks by symbol with their scores, 0 to 1:

    {"phone to infrared": {"0": {"M(0)": {"miou": 0.39, "iou": {"soil": 0.78, ...}}, ...}, ...}}

A comment in a page says which table stands below it:

    <!-- Made by docs/tabulate_results.py: networks of recipe.json -->

`networks` has the mIoU of each network: at each seed of a file with one row, else the means of each
row. `classes` has the IoU of each class, means over the seeds: of a file with one row for the last
network of each round, else for the last of each row. `means` has the mean mIoU of each network of
some files, a column a row. Means leave out what not all seeds of a row have.
"""

import argparse
import glob
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from bdl.reports.records import read_rows
from bdl.runtime.files import write_text
from bdl.runtime.ownership import CONFIGURATION, RESULTS

PAGES = Path(__file__).resolve().parent / "results"
MARK = r"(<!-- Made by docs/tabulate_results\.py: (\w+) of (.+?) -->\n)"
TABLE = re.compile(MARK + r"(?:\n(?:\|.*\n)+)?")

Row = dict[str, dict[str, dict[str, Any]]]  # seed -> symbol -> scores
Rows = dict[str, Row]


def collect(given: str) -> Rows:
    """The row of "NAME=RUNS"; its name says how many target labels its networks learned from."""
    name, _, pattern = given.rpartition("=")
    row: Row = {}
    for folder in sorted(map(Path, glob.glob(pattern))):
        if not (folder / RESULTS).is_file():
            continue
        results = [result for result in read_rows(folder) if result.miou is not None]
        for result in results:
            if result.note is not None:
                sys.exit(f"{folder}: {result.symbol} is {result.note}: run it again")
        seed = str(yaml.safe_load((folder / CONFIGURATION).read_text(encoding="utf-8"))["seed"])
        if seed in row:
            sys.exit(f"{folder}: another run of {pattern} has seed {seed}: name the one to show")
        row[seed] = {result.symbol: {"miou": result.miou, "iou": result.iou} for result in results}
        labels = next((result.labels for result in results if result.labels), "")
    if not row:
        sys.exit(f"{pattern}: no run with {RESULTS}: give NAME=FOLDER or NAME=PATTERN")
    name = f"{name}, {labels}" if labels else name
    return {name: {seed: row[seed] for seed in sorted(row, key=int)}}


def networks(rows: Rows) -> str:
    """Of one row a line a seed, the mean, and the mean of the distances to the first network. Of
    several rows a line each, with means, and the last network's distance at each seed."""
    if len(rows) == 1:
        (row,) = rows.values()
        return by_seed(row)
    symbols = of_any(rows)
    lines = [["", "seeds", *symbols, "last over first"]]
    for name, row in rows.items():
        line = [name, ", ".join(row), *summary(row, symbols)]
        if line[-1] and len(row) > 1:
            line[-1] += f" ({', '.join(signed([g]) for g in gains(row, of_all(row)[-1]))})"
        lines.append(line)
    return markdown(lines)


def by_seed(row: Row) -> str:
    """The table of one row."""
    symbols = in_order(symbol for seed in row.values() for symbol in seed)
    lines = [["seed", *symbols, "last over first"]]
    lines += [[seed, *summary({seed: row[seed]}, symbols)] for seed in row]
    if len(row) > 1:
        lines.append(["mean", *summary(row, symbols)])
        first, *others = of_all(row)
        over = [signed(gains(row, s)) if s in others else "" for s in symbols]
        lines.append([f"over {first}", *over, ""])
    return markdown(lines)


def classes(rows: Rows) -> str:
    """A line for the last network of each round, of several rows for the last network of each."""
    lines: dict[str, list[dict[str, float | None]]] = {}
    for name, row in rows.items():
        last_of_rounds = list({order(symbol)[0]: symbol for symbol in of_all(row)}.values())
        for symbol in last_of_rounds if len(rows) == 1 else last_of_rounds[-1:]:
            head = symbol if len(rows) == 1 else f"{name}: {symbol}"
            lines[head] = [seed[symbol]["iou"] for seed in row.values()]
    names = list(dict.fromkeys(name for ious in lines.values() for name in ious[0]))
    table = [["IoU", *names]]
    for head, ious in lines.items():
        of_class = [[iou.get(name) for iou in ious] for name in names]
        given = [[value for value in values if value is not None] for values in of_class]
        table.append([head, *(percent(values, 0) if values else "" for values in given)])
    return markdown(table)


def means(rows: Rows) -> str:
    """A column a row."""
    symbols = of_any(rows)
    columns = [["", "seeds", *symbols, "last over first"]]
    columns += [[name, str(len(row)), *summary(row, symbols)] for name, row in rows.items()]
    return markdown([list(line) for line in zip(*columns, strict=True)])


KINDS = {"networks": networks, "classes": classes, "means": means}


def summary(row: Row, symbols: list[str]) -> list[str]:
    """The mean of each network that all seeds have, and of the last one's distance to the first."""
    shared = of_all(row)
    means = [percent(mious(row, s), 1) if s in shared else "" for s in symbols]
    return [*means, signed(gains(row, shared[-1])) if len(shared) > 1 else ""]


def mious(row: Row, symbol: str) -> list[float]:
    """Of a network, at each seed."""
    return [seed[symbol]["miou"] for seed in row.values()]


def gains(row: Row, symbol: str) -> list[float]:
    """The distance of a network to the first one, at each seed."""
    pairs = zip(mious(row, symbol), mious(row, of_all(row)[0]), strict=True)
    return [one - first for one, first in pairs]


def of_all(row: Row) -> list[str]:
    """The networks that every seed of the row has."""
    return in_order(set.intersection(*map(set, row.values())))


def of_any(rows: Rows) -> list[str]:
    """The networks that every seed of any row has."""
    return in_order(symbol for row in rows.values() for symbol in of_all(row))


def in_order(symbols: Iterable[str]) -> list[str]:
    """Each once, in the loop's order."""
    return sorted(set(symbols), key=order)


def order(symbol: str) -> tuple[int, ...]:
    """Round and self-training step: (1, 0) of M(1,0), (0,) of M(0)."""
    return tuple(int(part) for part in symbol[2:-1].split(","))


def percent(values: list[float], digits: int) -> str:
    return f"{100 * mean(values):.{digits}f}"


def signed(values: list[float]) -> str:
    return f"{100 * mean(values):+.1f}"


def markdown(lines: list[list[str]]) -> str:
    """A table, the first line its head, without columns that are empty below their heads."""
    columns = [column for column in zip(*lines, strict=True) if any(column[1:])]
    head, *body = zip(*columns, strict=True)
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *body])


def read(file: Path) -> Rows:
    """The rows of a file."""
    rows: Rows = json.loads(file.read_text(encoding="utf-8"))
    return rows


def filled(page: Path) -> str:
    """The text of a page with its tables as the files have them."""

    def table(found: re.Match[str]) -> str:
        mark, kind, files = found.groups()
        rows: Rows = {}
        for file in files.split():
            rows |= read(page.parent / file)
        return f"{mark}\n{KINDS[kind](rows)}"

    return TABLE.sub(table, page.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="of rows, to add to")
    parser.add_argument("rows", nargs="*", metavar="NAME=RUNS", help="a row and its runs")
    options = parser.parse_args()
    if options.file is not None:
        rows = read(options.file) if options.file.is_file() else {}
        for given in options.rows:
            rows |= collect(given)
        write_text(options.file, json.dumps(rows, indent=1) + "\n")
    for page in sorted(PAGES.rglob("*.md")):
        write_text(page, filled(page))


if __name__ == "__main__":
    main()
