"""Write the tables of performance.md from the results in results/performance.

    python docs/list_performance.py

What stands between the two marks of the page is made anew; the rest is written by hand.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "docs" / "results" / "performance"
BEGIN, END = "<!-- Made by docs/list_performance.py -->\n\n", "\n<!-- End -->\n"
HEAD = ("what", "machine", "command", "figures")


def page(text: str) -> str:
    """The page's text with the tables as the results have them."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + tables() + END + after


def tables() -> str:
    """A table of all figures, and one for each rehearsal at a recipe's own batch."""
    results = {}
    for file in sorted(RESULTS.glob("*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        if "benchmark" in result:
            results[file.name] = result
    # On a GPU first: that is what trainings run on.
    names = sorted(results, key=lambda name: results[name]["settings"]["device"] != "cuda")
    rows = [
        (
            f"[{results[name]['benchmark'].replace('_', ' ')}](results/performance/{name})",
            machine(results[name]),
            f"`{results[name]['command']}`",
            "<br>".join(f"{what}: {figure}" for what, figure in figures(results[name])),
        )
        for name in names
    ]
    parts = [table(HEAD, rows)]
    for result in map(results.__getitem__, names):
        if "parts" in result and not result["settings"]["light"]:
            parts.append(f"Each stage of `{result['command']}` on {machine(result)}:\n")
            parts.append(rehearsal(result))
    return "\n".join(parts)


def machine(result: dict[str, Any]) -> str:
    """Device; of a CPU also threads and load, that of others included."""
    on = result["machine"]
    if "paths" in result:  # counted, not measured
        return "any"
    if result["settings"]["device"] == "cuda":
        return str(on["device"])
    threads = "1 thread" if on["threads"] == 1 else f"{on['threads']} threads"
    return f"{on['device']}, {on['cores']} cores, {threads}, load {on['load']:.0f}"


def figures(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What was measured, and the figure."""
    for way, entry in result.get("ways", {}).items():
        text = f"{entry['seconds']:.3g} s, {entry['ratio']:.2f} times as fast"
        if "memory_peak" in entry:
            text += f", {entry['memory_peak'] / 2**20:.0f} MB"
        yield way, text
    for path, entry in result.get("paths", {}).items():
        operations, moved = entry["operations"], entry["bytes"]
        yield path, f"{operations / 1e12:.2f} x 10^12 operations, {moved / 1e9:.1f} GB"
    for stage, entry in result.get("stages", {}).items():
        if "one_by_one" in entry:
            text = f"{entry['one_by_one']:.2f} s one by one, {entry['seconds']:.2f} s at once"
        else:
            first, last = entry["after_first_mb"], entry["at_the_end_mb"]
            text = f"{first:.0f} MB after 250 images, {last:.0f} MB after all"
            text += f", peak {round(entry['peak_grown_mb']):+d} MB"
        yield stage, text
    for recipe, made in result.get("recipes", {}).items():
        width, height = made["crop"]
        text = f"a step of {made['batch']} images of {width}x{height} of each domain: "
        text += f"{made['seconds']:.3g} s, {made['memory'] / 1e9:.3g} GB, extrapolated from one "
        yield recipe, text + f"image of {' and '.join(made['measured'])}"
    if "hours" in result:
        sizes = [part["gpu_memory"] or part["memory"] or 0 for part in result["parts"]]
        text = f"all {len(sizes)} stages run, {max(sizes) / 1e9:.1f} GB at the most"
        if not result["settings"]["light"]:
            text += f", {result['hours']:.0f} hours in all"
        yield result["settings"]["config"], text


def rehearsal(result: dict[str, Any]) -> str:
    """Work, time and memory of each stage of a recipe."""
    rows = []
    for part in result["parts"]:
        memory = part["gpu_memory"] or part["memory"]
        work = f"{part['work']} {part['unit']}"
        size = f"{memory / 1e9:.1f}" if memory else ""
        rows.append((part["stage"], work, f"{part['seconds']:.3g}", f"{part['hours']:.1f}", size))
    return table(("stage", "work in the recipe", "s each", "hours", "GB"), rows)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    print(f"{PAGE.relative_to(ROOT)}: written", file=sys.stderr)
