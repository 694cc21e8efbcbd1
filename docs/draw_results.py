"""Curves and pictures of a finished run for a results page.

python docs/draw_results.py RUN FOLDER

Writes FOLDER/curves.svg, the cross entropy on the source's labels of each segmentation network;
FOLDER/predictions.png, what each of them sees in some validation images; and, where the source is
rendered, FOLDER/translations.png. Photos, translated or not, stay in the run.
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

WIDTH, GAP, HEADING, ROWS = 240, 6, 22, 3  # pixels, but for the rows


def networks(run: Path) -> dict[str, Path]:
    """The folders of the segmentation networks by their names, in the loop's order."""
    stages = [run / "source-only", *sorted(run.glob("k*/segmentation-*"))]
    return {symbol(stage.relative_to(run).as_posix()): stage for stage in stages}


def curves(run: Path) -> str:
    """The chart as SVG, a line for each network that the run trained, not those given to it."""
    lines = []
    for place, (name, stage) in enumerate(networks(run).items(), start=1):
        rows = json.loads((stage / "metrics.json").read_text(encoding="utf-8")).get("curves", [])
        if rows:
            lines.append(Line(name, [(row["step"], row["source"]) for row in rows], place))
    title = "cross entropy on the source's labels by step"
    return standalone(line_chart(title, lines), {line.name: line.color for line in lines})


def sheet(columns: dict[str, list[Path]]) -> Image.Image:
    """The images of each column below its name."""
    first = Image.open(next(iter(columns.values()))[0])
    height = round(WIDTH * first.height / first.width)
    rows = len(next(iter(columns.values())))
    size = len(columns) * (WIDTH + GAP) + GAP, HEADING + rows * (height + GAP)
    image = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    for column, (title, files) in enumerate(columns.items()):
        left = GAP + column * (WIDTH + GAP)
        pen.text((left, 3), title, "black", font)
        for row, file in enumerate(files):
            picture = Image.open(file).convert("RGB").resize((WIDTH, height))
            image.paste(picture, (left, HEADING + row * (height + GAP)))
    return image


def predictions(run: Path) -> Image.Image:
    """A row an image, of those whose predictions the evaluation keeps."""
    folders = {name: stage / "evaluation" / "predictions" for name, stage in networks(run).items()}
    return sheet({name: sorted(folder.glob("*.png"))[:ROWS] for name, folder in folders.items()})


def translations(run: Path) -> Image.Image:
    """A row a scene: the source's image, and its translation by each translator."""
    source = sorted((run / "data" / "source" / "images").glob("*.png"))
    shown = [source[number] for number in spread(len(source), ROWS)]
    columns = {"source": shown}
    for stage in sorted(run.glob("k*/translated")):
        files = [stage / "images" / file.name for file in shown]
        columns[f"F({stage.parent.name[1:]})"] = files
    return sheet(columns)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/draw_results.py RUN FOLDER")
    run, folder = map(Path, sys.argv[1:])
    write_text(folder / "curves.svg", curves(run))
    predictions(run).save(folder / "predictions.png", optimize=True)
    if (run / "data" / "source" / "images").is_dir():
        translations(run).save(folder / "translations.png", optimize=True)
