"""Pictures of a finished run for a results page.

python docs/draw_results.py RUN FOLDER

Writes FOLDER/predictions.png, what each segmentation network sees in some validation images, and,
where the source is rendered, FOLDER/translations.png. Photos, translated or not, stay in the run.
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bdl.domains.datasets import spread
from bdl.reports.records import Record, records_in
from bdl.segmentation.stages import Evaluation, prediction_path
from bdl.translation.stages import Translated, image_path

WIDTH, GAP, HEADING, ROWS = 240, 6, 22, 3  # pixels, but for the rows


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


def predictions(records: list[Record]) -> Image.Image:
    """A row an image, of those whose predictions the evaluation keeps."""
    folders = {
        record.symbol: prediction_path(record.folder, 0).parent
        for record in records
        if record.kind == Evaluation.kind
    }
    return sheet({name: sorted(folder.glob("*.png"))[:ROWS] for name, folder in folders.items()})


def translations(records: list[Record], source: list[Path]) -> Image.Image:
    """A row a scene: the source's image, and its translation by each translator."""
    shown = [source[number] for number in spread(len(source), ROWS)]
    columns = {"source": shown}
    for record in records:
        if record.kind == Translated.kind:
            columns[record.symbol] = [image_path(record.folder, file.stem) for file in shown]
    return sheet(columns)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/draw_results.py RUN FOLDER")
    run, folder = map(Path, sys.argv[1:])
    records = records_in(run)
    predictions(records).save(folder / "predictions.png", optimize=True)
    source = sorted((run / "data" / "source" / "images").glob("*.png"))
    if source:
        translations(records, source).save(folder / "translations.png", optimize=True)
