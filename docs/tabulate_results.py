"""The table of a results page, from the JSON beside it; and that JSON, from runs.

python docs/tabulate_results.py FILE
python docs/tabulate_results.py FILE "NAME=RUN[:NETWORK]" ...

The first prints the table, which a test looks for in the page. The second writes the JSON: a row
for each NAME, with the networks that the folder RUN has results of, or that of the stage NETWORK.
"""

import json
import sys
from pathlib import Path
from typing import Any

from bdl.reports.records import RESULTS
from bdl.runtime.files import write_text

Rows = dict[str, dict[str, dict[str, Any]]]


def symbol(k: int, i: int) -> str:
    """The name of a network in a table."""
    return f"M({k},{i})" if k else "M(0)"


def collect(runs: list[str]) -> Rows:
    """For each row the networks by symbol, each with its mIoU and the IoU of each class, 0 to 1."""
    rows: Rows = {}
    for given in runs:
        name, _, run = given.rpartition("=")
        folder, _, stage = run.partition(":")
        results = json.loads((Path(folder) / RESULTS).read_text(encoding="utf-8"))
        rows[name] = {
            symbol(row["k"], row["i"]): {"miou": row["miou"], "iou": row["iou"]}
            for row in results
            if row["miou"] is not None and stage in ("", row["stage"])
        }
    return rows


def table(rows: Rows) -> str:
    """In Markdown, percent: a column a network with the distance of the last to the first, then the
    classes of the last."""
    networks = sorted({network for row in rows.values() for network in row}, key=_place)
    classes = list(
        dict.fromkeys(c for row in rows.values() for n in row.values() for c in n["iou"])
    )
    head = ["", *networks, "last over first", *(f"{name}, last" for name in classes)]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for name, row in rows.items():
        given = [network for network in networks if network in row]
        first, last = row[given[0]], row[given[-1]]
        gain = f"{100 * (last['miou'] - first['miou']):+.1f}" if len(given) > 1 else ""
        cells = [f"{100 * row[n]['miou']:.1f}" if n in row else "" for n in networks]
        of_classes = [f"{100 * last['iou'][c]:.0f}" if c in last["iou"] else "" for c in classes]
        lines.append(f"| {' | '.join([name, *cells, gain, *of_classes])} |")
    return "\n".join(lines) + "\n"


def _place(network: str) -> tuple[int, ...]:
    return tuple(int(part) for part in network[2:-1].split(","))


def main() -> None:
    file, runs = Path(sys.argv[1]), sys.argv[2:]
    if runs:
        write_text(file, json.dumps(collect(runs), indent=1) + "\n")
    else:
        print(table(json.loads(file.read_text(encoding="utf-8"))), end="")


if __name__ == "__main__":
    main()
