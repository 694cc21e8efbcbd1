"""The README's picture, from a finished run of the demo.

python docs/draw_demo.py RUN FILE.png
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bdl.reports.records import Record, records_in
from bdl.segmentation.stages import Evaluation, prediction_path
from bdl.translation.stages import Translated, image_path

SCALE, GAP, HEADING, ROWS = 2, 8, 24, 2


def draw(run: Path) -> Image.Image:
    """One line a scene: source and translation; target, two predictions and the label."""
    records = records_in(run)
    scored = of_kind(records, Evaluation.kind)
    first, last, translated = scored[0], scored[-1], of_kind(records, Translated.kind)[-1]
    # The evaluation keeps the predictions of some images, under the numbers of these.
    kept = sorted(prediction_path(first.folder, 0).parent.glob("*.png"))[:ROWS]
    numbers = [int(file.stem) for file in kept]

    def rendered(folder: str) -> list[Path]:
        files = sorted((run / "data" / folder).glob("*.png"))
        return [files[number] for number in numbers]

    def predicted(record: Record) -> list[Path]:
        return [prediction_path(record.folder, number) for number in numbers]

    source = rendered("source/images")
    columns = {
        "source, synthetic": source,
        "translated (S')": [image_path(translated.folder, file.stem) for file in source],
        "target, real": rendered("validation/images"),
        "source only": predicted(first),
        f"last network, {last.symbol}": predicted(last),
        "label": rendered("validation/labels"),
    }
    width, height = Image.open(source[0]).size
    cell = width * SCALE + GAP, height * SCALE + GAP
    # Source and target scenes have nothing to do with each other: three columns above, and below.
    sheet = Image.new("RGB", (3 * cell[0] + GAP, 2 * (HEADING + ROWS * cell[1]) + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, (title, files) in enumerate(columns.items()):
        left = GAP + number % 3 * cell[0]
        top = number // 3 * (HEADING + ROWS * cell[1])
        pen.text((left, top + 5), title, "black", font)
        for row, file in enumerate(files):
            picture = Image.open(file).convert("RGB").resize((width * SCALE, height * SCALE), 0)
            sheet.paste(picture, (left, top + HEADING + row * cell[1]))
    return sheet


def of_kind(records: list[Record], kind: str) -> list[Record]:
    """The finished stages of that kind, in the loop's order."""
    return [record for record in records if record.kind == kind]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/draw_demo.py RUN FILE.png")
    draw(Path(sys.argv[1])).save(sys.argv[2], optimize=True)
