"""Curves of a finished run for a results page; and what its translators did to rendered streets.

python docs/draw_results.py RUN FOLDER

Writes FOLDER/curves.svg, the cross entropy on the source's labels of each segmentation network,
and, where the source is rendered, FOLDER/translations.png: pictures of photos stay in the run.
"""

import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from anywhere, installed or not

from domains.datasets import spread  # noqa: E402
from runtime.charts import Line, line_chart, standalone  # noqa: E402
from runtime.files import write_text  # noqa: E402
from runtime.report import symbol  # noqa: E402

SCALE, GAP, HEADING, ROWS = 1.5, 8, 24, 3


def curves(run: Path) -> str:
    """The chart as SVG, a line for each network of the run."""
    stages = [run / "source-only", *sorted(run.glob("k*/segmentation-*"))]
    names = [symbol(stage.relative_to(run).as_posix()) for stage in stages]
    lines = []
    for place, (name, stage) in enumerate(zip(names, stages, strict=True), start=1):
        rows = json.loads((stage / "metrics.json").read_text(encoding="utf-8"))["curves"]
        lines.append(Line(name, [(row["step"], row["source"]) for row in rows], place))
    return standalone(line_chart("cross entropy on the source's labels by step", lines), names)


def translations(run: Path) -> Image.Image:
    """A row a scene: the source's image, and its translation by each translator."""
    columns = {"source": run / "data" / "source" / "images"}
    for stage in sorted(run.glob("k*/translated")):
        columns[f"F({stage.parent.name[1:]})"] = stage / "images"
    files = sorted(columns["source"].glob("*.png"))
    width, height = (round(SCALE * side) for side in Image.open(files[0]).size)
    size = len(columns) * (width + GAP) + GAP, HEADING + ROWS * (height + GAP)
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for column, (title, folder) in enumerate(columns.items()):
        left = GAP + column * (width + GAP)
        pen.text((left, 5), title, "black", font)
        for row, number in enumerate(spread(len(files), ROWS)):
            picture = Image.open(folder / files[number].name).convert("RGB")
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
            sheet.paste(picture, (left, HEADING + row * (height + GAP)))
    return sheet


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/draw_results.py RUN FOLDER")
    run, folder = map(Path, sys.argv[1:])
    write_text(folder / "curves.svg", curves(run))
    if (run / "data" / "source" / "images").is_dir():
        translations(run).save(folder / "translations.png", optimize=True)
