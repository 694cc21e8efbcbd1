"""The README's picture, from a finished run of the demo.

python docs/draw_demo.py RUN FILE.png
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SCALE, GAP, HEADING, ROWS = 2, 8, 24, 2


def draw(run: Path) -> Image.Image:
    """One line a scene: source and translation; target, two predictions and the label."""
    last = sorted(run.glob("k*/segmentation-*"))[-1]
    translated = sorted(run.glob("k*/translated"))[-1]
    columns = [
        ("source, synthetic", run / "data" / "source" / "images"),
        ("translated (S')", translated / "images"),
        ("target, real", run / "data" / "validation" / "images"),
        ("source only", run / "source-only" / "evaluation" / "predictions"),
        (f"last network, {last.relative_to(run).as_posix()}", last / "evaluation" / "predictions"),
        ("label", run / "data" / "validation" / "labels"),
    ]
    # The evaluation keeps the predictions of some images, under the numbers of these.
    numbers = [int(file.stem) for file in sorted(columns[3][1].glob("*.png"))][:ROWS]
    width, height = Image.open(next(columns[0][1].glob("*.png"))).size
    cell = width * SCALE + GAP, height * SCALE + GAP
    # Source and target scenes have nothing to do with each other: three columns above, and below.
    sheet = Image.new("RGB", (3 * cell[0] + GAP, 2 * (HEADING + ROWS * cell[1]) + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for place, (title, folder) in enumerate(columns):
        left = GAP + place % 3 * cell[0]
        top = place // 3 * (HEADING + ROWS * cell[1])
        pen.text((left, top + 5), title, "black", font)
        files = sorted(folder.glob("*.png"))
        for row, number in enumerate(numbers):
            file = files[row] if folder.name == "predictions" else files[number]
            picture = Image.open(file).convert("RGB").resize((width * SCALE, height * SCALE), 0)
            sheet.paste(picture, (left, top + HEADING + row * cell[1]))
    return sheet


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/draw_demo.py RUN FILE.png")
    draw(Path(sys.argv[1])).save(sys.argv[2], optimize=True)
